"""Optimiser states that are stored in fewer bits."""

import pytest
import torch

from mmtpp.config.schema import OptimizerPrecisionSection, OptimizerSection
from mmtpp.train.optimizer.optimizer import Optimizer
from mmtpp.train.optimizer.state_codec import BLOCK, StateCodec


@pytest.mark.parametrize("stored", ["bfloat16", "int8"])
@pytest.mark.parametrize("key", ["exp_avg", "exp_avg_sq"])
def test_states_are_stored_within_their_error(stored: str, key: str):
    if stored == "int8":
        pytest.importorskip("torchao", reason="8-bit states need the extra lowbit")
    codec = StateCodec(OptimizerPrecisionSection(stored_states=stored))
    values = torch.randn(5000, generator=torch.Generator().manual_seed(0))
    values = values.square() if key == "exp_avg_sq" else values
    state = codec.zeros(values, key)
    assert not codec.read(state, key, 0, 5000).any()
    # in two parts, like large tensors
    codec.write(state, key, values[: 10 * BLOCK].clone(), 0)
    codec.write(state, key, values[10 * BLOCK :].clone(), 10 * BLOCK)
    read = codec.read(state, key, 0, 5000)
    if stored == "bfloat16":
        assert torch.equal(read, values.bfloat16().float())
        assert state[key].element_size() == 2
        return
    assert key not in state
    assert sum(tensor.numel() * tensor.element_size() for tensor in state.values()) < 1.1 * 5000
    padded = torch.nn.functional.pad(values, (0, -5000 % BLOCK)).view(-1, BLOCK)
    # a number is at most 0.0141 away from the nearest number of the map (Dettmers et al., 2021)
    largest = padded.abs().amax(1, keepdim=True).expand_as(padded).reshape(-1)[:5000]
    if key == "exp_avg_sq":  # AdamW takes the root of a square, and the codec stores that root
        read, values, largest = read.sqrt(), values.sqrt(), largest.sqrt()
    assert bool(((read - values).abs() <= 0.0142 * largest).all())
    read, values = (read**2, values**2) if key == "exp_avg_sq" else (read, values)
    codec.decode(state, key, values)
    assert torch.equal(state[key], read)
    codec.encode(state, key)
    assert key not in state


def test_small_states_are_not_coded():
    pytest.importorskip("torchao", reason="8-bit states need the extra lowbit")
    state = StateCodec(OptimizerPrecisionSection(stored_states="int8")).zeros(
        torch.zeros(7), "exp_avg"
    )
    assert list(state) == ["exp_avg"]


def _steps(stored: str, gradients: list[torch.Tensor]) -> torch.Tensor:
    """The largest element of each step of AdamW at a learning rate of 1."""
    weight = torch.nn.Parameter(torch.zeros_like(gradients[0]))
    settings = OptimizerSection()
    optimizer = Optimizer(
        {"weight": weight},
        settings,
        OptimizerPrecisionSection(stored_states=stored),
        lr=1.0,
        weight_decay=0.0,
    )
    optimizer.init_states([(weight, 0)], 0)
    steps = []
    for gradient in gradients:
        before = weight.detach().clone()
        weight.grad = gradient.clone()
        optimizer.step()
        steps.append((weight.detach() - before).abs().max())
    return torch.stack(steps)


@pytest.mark.parametrize("stored", ["bfloat16", "int8"])
def test_small_gradients_near_large_ones_make_no_large_steps(stored: str):
    """Two cases: columns in the same blocks of 256 whose gradients differ by five orders of
    magnitude, and a rare row of an embedding with tiny gradients next to a frequent row."""
    if stored == "int8":
        pytest.importorskip("torchao", reason="8-bit states need the extra lowbit")
    source = torch.Generator().manual_seed(0)
    scales = torch.logspace(0, -5, 256)
    dense = [torch.randn(64, 256, generator=source) * scales for _ in range(10)]
    rows = []
    for step in range(6):
        rows.append(torch.zeros(64, 96))
        rows[-1][0] = 1e-2 * torch.randn(96, generator=source)
        if not step:
            rows[-1][1] = 3e-6 * torch.randn(96, generator=source)
    for gradients in (dense, rows):
        exact, coded = _steps("float32", gradients), _steps(stored, gradients)
        assert bool((coded < 2.5 * exact).all()), (exact, coded)
