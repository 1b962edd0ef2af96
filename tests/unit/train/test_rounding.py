"""Formats with fewer bits against torch's own, and states kept in them."""

import pytest
import torch
from pydantic import ValidationError

from mmtpp.config.load import config_from_tree
from mmtpp.config.schema import Optimizer as OptimizerSettings
from mmtpp.config.schema import Precision, Rounding
from mmtpp.core.errors import ConfigError
from mmtpp.experiments.rounding import round_
from mmtpp.train.optimizer.optimizer import Optimizer
from mmtpp.train.optimizer.states import BLOCK, States


def _values() -> torch.Tensor:
    """Of all magnitudes a format has, some in the middle of two of its numbers."""
    generator = torch.Generator().manual_seed(0)
    spread = torch.randn(20_000, generator=generator) * torch.logspace(-40, 4, 20_000)
    return torch.cat([spread, torch.arange(-64, 64) / 16, torch.tensor([0.0, 1 + 2**-8])])


@pytest.mark.parametrize(
    ("mantissa_bits", "exponent_bits", "dtype"),
    [(7, 8, torch.bfloat16), (10, 5, torch.float16), (2, 5, torch.float8_e5m2)],
)
def test_rounding_is_that_of_torchs_types(mantissa_bits: int, exponent_bits: int, dtype):
    values = _values()
    expected = values.to(dtype).float()
    found = round_(
        values.clone(), Rounding(mantissa_bits=mantissa_bits, exponent_bits=exponent_bits)
    )
    assert torch.equal(expected, found)


def test_too_large_is_the_largest_and_nan_stays():
    found = round_(torch.tensor([1e9, -1e9, torch.nan]), Rounding(mantissa_bits=3, exponent_bits=4))
    assert found[:2].tolist() == [240.0, -240.0]  # (2 - 1/8) 2^7
    assert found[2].isnan()


def test_float32_is_left_alone():
    values = torch.tensor([1e-45, 3.4e38, 1 + 2**-23])
    assert torch.equal(values, round_(values.clone(), Rounding()))


def test_stochastic_rounding_is_right_on_average():
    """0.1 lies between 0.09375 and 0.1015625 in 3 bits of mantissa."""
    rounding = Rounding(mantissa_bits=3, mode="stochastic")
    generator = torch.Generator().manual_seed(0)
    found = round_(torch.full((100_000,), 0.1), rounding, generator)
    assert set(found.unique().tolist()) == {0.09375, 0.1015625}
    # standard error 1.6e-3 of the distance between the two
    assert float(found.double().mean()) == pytest.approx(0.1, abs=4 * 1.6e-3 * 0.0078125)


@pytest.mark.parametrize("stored", ["bfloat16", "int8"])
@pytest.mark.parametrize("key", ["exp_avg", "exp_avg_sq"])
def test_states_are_kept_within_their_errors(stored: str, key: str):
    if stored == "int8":
        pytest.importorskip("torchao", reason="8-bit states need the extra lowbit")
    states = States(Precision(stored_states=stored))
    values = torch.randn(5000, generator=torch.Generator().manual_seed(0))
    values = values.square() if key == "exp_avg_sq" else values
    state = states.zeros(values, key)
    assert not states.read(state, key, 0, 5000).any()
    # in two parts, as large tensors are
    states.write(state, key, values[: 10 * BLOCK].clone(), 0)
    states.write(state, key, values[10 * BLOCK :].clone(), 10 * BLOCK)
    found = states.read(state, key, 0, 5000)
    if stored == "bfloat16":
        assert torch.equal(values.bfloat16().float(), found)
        assert state[key].element_size() == 2
        return
    assert key not in state
    assert sum(each.numel() * each.element_size() for each in state.values()) < 1.1 * 5000
    padded = torch.nn.functional.pad(values, (0, -5000 % BLOCK)).view(-1, BLOCK)
    # the map's numbers are at most 0.0141 apart from what is between them (Dettmers et al., 2021)
    largest = padded.abs().amax(1, keepdim=True).expand_as(padded).reshape(-1)[:5000]
    if key == "exp_avg_sq":  # of squares, which AdamW takes the root of, the roots are kept
        found, values, largest = found.sqrt(), values.sqrt(), largest.sqrt()
    assert bool(((found - values).abs() <= 0.0142 * largest).all())
    found, values = (found**2, values**2) if key == "exp_avg_sq" else (found, values)
    states.expand(state, key, values)
    assert torch.equal(found, state[key])
    states.collapse(state, key)
    assert key not in state


def test_small_states_are_not_put_into_codes():
    pytest.importorskip("torchao", reason="8-bit states need the extra lowbit")
    state = States(Precision(stored_states="int8")).zeros(torch.zeros(7), "exp_avg")
    assert list(state) == ["exp_avg"]


def _steps(stored: str, gradients: list[torch.Tensor]) -> torch.Tensor:
    """The largest element of each step of AdamW at a learning rate of 1."""
    weight = torch.nn.Parameter(torch.zeros_like(gradients[0]))
    settings = OptimizerSettings()
    optimizer = Optimizer(
        {"weight": weight}, settings, Precision(stored_states=stored), lr=1.0, weight_decay=0.0
    )
    optimizer.start([(weight, 0)], 0)
    steps = []
    for gradient in gradients:
        before = weight.detach().clone()
        weight.grad = gradient.clone()
        optimizer.step()
        steps.append((weight.detach() - before).abs().max())
    return torch.stack(steps)


@pytest.mark.parametrize("stored", ["bfloat16", "int8"])
def test_small_gradients_beside_large_ones_make_no_large_steps(stored: str):
    """Columns whose gradients differ by five orders of magnitude are in the same blocks of 256, and
    a row of an embedding that occurs once, with tiny gradients, is beside one that often does."""
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
        exact, found = _steps("float32", gradients), _steps(stored, gradients)
        assert bool((found < 2.5 * exact).all()), (exact, found)


def test_settings_that_would_do_nothing_or_twice_are_refused():
    with pytest.raises(ValidationError, match="mode = stochastic rounds nothing"):
        Rounding(mode="stochastic")
    with pytest.raises(
        ValidationError, match=r"stored_states = int8 with states\.mantissa_bits = 4"
    ):
        Precision(stored_states="int8", states=Rounding(mantissa_bits=4))
    with pytest.raises(ConfigError, match=r"optimizer\.beta2 = 0\.999"):
        config_from_tree(
            {"optimizer": {"beta2": 0.999}, "precision": {"stored_states": "bfloat16"}}
        )
    config_from_tree({"optimizer": {"beta2": 0.995}, "precision": {"stored_states": "bfloat16"}})
