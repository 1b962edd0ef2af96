"""Optimisers against a few lines of their own, closed forms, torch's, and under DeepSpeed."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mmtpp.config.load import config_from_tree
from mmtpp.core.errors import ConfigError
from mmtpp.experiments.geometry import orthogonalized, steepest_direction
from mmtpp.train.optimizer.optimizer import Optimizer, is_hidden_matrix
from tests.parity.ranks import STEPS, Job, event_model, plain_losses, run_ranks

EXPONENTS = [1.0, 1.5, 2.0, 3.0, "inf"]


def _optimizer(parameters: dict[str, nn.Parameter], **tree: object) -> Optimizer:
    config = config_from_tree({"precision": tree.pop("precision", {}), "optimizer": tree})
    optimizer = Optimizer(parameters, config.optimizer, config.precision, lr=0.1, weight_decay=0.02)
    tensors = [
        (each, index)
        for index, group in enumerate(optimizer.param_groups)
        for each in group["params"]
    ]
    optimizer.start(tensors, 0)
    return optimizer


def _parameters(*shapes: tuple[int, ...]) -> dict[str, nn.Parameter]:
    torch.manual_seed(0)
    return {f"layer{i}.weight": nn.Parameter(torch.randn(shape)) for i, shape in enumerate(shapes)}


def _set_gradients(parameters: dict[str, nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for each in parameters.values():
        each.grad = torch.randn(each.shape, generator=generator)


@pytest.mark.parametrize("p", EXPONENTS)
@pytest.mark.parametrize("geometry", ["entrywise", "schatten"])
@pytest.mark.parametrize("shape", [(4, 7), (7, 4), (5, 5)])
def test_a_direction_has_norm_one_and_reaches_the_dual_norm(geometry, p, shape):
    """By Hoelder no tensor of norm 1 has a larger inner product with the gradient."""
    gradient = np.random.default_rng(1).standard_normal(shape)
    direction = steepest_direction(torch.tensor(gradient), geometry, p).double().numpy()

    def norm(matrix: np.ndarray, exponent: float) -> float:
        values = matrix if geometry == "entrywise" else np.linalg.svd(matrix, compute_uv=False)
        return float(np.linalg.norm(values.ravel(), exponent))

    exponent = np.inf if p == "inf" else p
    dual = 1.0 if p == "inf" else np.inf if p == 1 else p / (p - 1)
    assert norm(direction, exponent) == pytest.approx(1, rel=1e-5)
    assert norm(gradient, dual) == pytest.approx(float((gradient * direction).sum()), rel=1e-5)


@pytest.mark.parametrize("geometry", ["entrywise", "schatten"])
@pytest.mark.parametrize("p", EXPONENTS)
def test_no_gradient_no_direction(geometry, p):
    assert not steepest_direction(torch.zeros(3, 4), geometry, p).any()
    assert not orthogonalized(torch.zeros(3, 4)).any()


def test_directions_missing_from_a_gradient_stay_missing():
    """A gradient of rank 1 has one singular value to normalise; rounding noise is not another."""
    left, right = torch.randn(6, generator=torch.Generator().manual_seed(0)), torch.arange(1.0, 5)
    direction = steepest_direction(torch.outer(left, right), "schatten", "inf")
    expected = torch.outer(left / left.norm(), right / right.norm())
    assert torch.allclose(expected, direction, atol=1e-6)


def test_newton_schulz_on_a_diagonal_is_its_polynomial():
    """On a diagonal matrix the iteration is one of numbers, which a calculator can follow."""
    values = [3.0, 1.0, 0.1]
    norm = math.sqrt(sum(each**2 for each in values))
    expected = []
    for value in (each / norm for each in values):
        for _ in range(5):
            value = 3.4445 * value - 4.7750 * value**3 + 2.0315 * value**5
        expected.append(value)
    found = orthogonalized(torch.diag(torch.tensor(values)))
    assert torch.allclose(torch.diag(torch.tensor(expected)), found, atol=1e-5)
    assert all(0.68 <= value <= 1.21 for value in expected)


@pytest.mark.parametrize("shape", [(12, 40), (40, 12)])
def test_muon_is_torchs(shape: tuple[int, int]):
    """torch iterates in bfloat16, of 3 digits; both use the momentum before."""
    ours, torchs = _parameters(shape), _parameters(shape)
    mine = _optimizer(ours, name="muon")
    theirs = torch.optim.Muon(
        list(torchs.values()), lr=0.1, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"
    )
    start = ours["layer0.weight"].detach().clone()
    for step in range(3):
        for parameters, optimizer in ((ours, mine), (torchs, theirs)):
            _set_gradients(parameters, step)
            optimizer.step()
    moved, expected = (each["layer0.weight"].detach() - start for each in (ours, torchs))
    assert float((moved - expected).norm() / expected.norm()) < 0.02


def test_adamw_is_torchs():
    ours, torchs = _parameters((3, 4), (5,)), _parameters((3, 4), (5,))
    mine = _optimizer(ours)
    theirs = torch.optim.AdamW(torchs.values(), lr=0.1, betas=(0.9, 0.95), weight_decay=0.02)
    for step in range(5):
        for parameters, optimizer in ((ours, mine), (torchs, theirs)):
            _set_gradients(parameters, step)
            optimizer.step()
    for name in ours:
        assert torch.allclose(torchs[name], ours[name], atol=1e-6)


def test_signs_by_hand():
    """Two updates of lr 0.1 and weight decay 0.02: w (1 - 0.002) - 0.1 sign."""
    for name, second in (("signsgd", [-1.0, 1.0]), ("signum", [1.0, 1.0])):
        weight = nn.Parameter(torch.tensor([2.0, -1.0]))
        optimizer = _optimizer({"w": weight}, name=name, momentum=0.5)
        weight.grad = torch.tensor([4.0, 0.5])
        optimizer.step()
        expected = torch.tensor([2.0, -1.0]) * 0.998 - 0.1
        assert torch.allclose(expected, weight.detach())
        # momentum: 0.5 x 2 + 0.5 x (-1) > 0, where the gradient itself is below
        weight.grad = torch.tensor([-1.0, 0.5])
        optimizer.step()
        assert torch.allclose(expected * 0.998 - 0.1 * torch.tensor(second), weight.detach())


@pytest.mark.parametrize("geometry", ["entrywise", "schatten"])
def test_steepest_in_the_norm_of_frobenius_is_the_normalised_gradient(geometry: str):
    """Both norms are Frobenius' at p = 2; matched, the step's root mean square is 0.2 lr."""
    for match, scale in ((False, 1.0), (True, 0.2 * math.sqrt(12))):
        parameters = _parameters((3, 4))
        (weight,) = parameters.values()
        start = weight.detach().clone()
        settings = {"geometry": geometry, "p": 2, "momentum": 0.0, "match_rms": match}
        optimizer = _optimizer(parameters, name="steepest", **settings)
        _set_gradients(parameters, 3)
        optimizer.step()
        gradient = weight.grad
        expected = start * 0.998 - 0.1 * scale * gradient / gradient.norm()
        assert torch.allclose(expected, weight.detach(), atol=1e-6)


def test_muon_moves_hidden_matrices_and_adamw_the_rest():
    """LoRA's factors are hidden matrices; rows of tokens, norms and biases are not."""
    names = {
        name
        for name, each in event_model(lora=True).named_parameters()
        if each.requires_grad and is_hidden_matrix(name, each)
    }
    assert names
    assert all("lora_A" in name or "lora_B" in name for name in names)
    rest = {
        name: each.ndim
        for name, each in event_model(lora=False).named_parameters()
        if not is_hidden_matrix(name, each)
    }
    tables = [name for name, num_axes in rest.items() if num_axes == 2]
    assert tables
    assert all("embed_tokens" in name or "lm_head" in name for name in tables)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"optimizer": {"name": "muon"}, "zero": {"stage": 3}}, "needs whole matrices"),
        ({"optimizer": {"name": "muon"}, "zero": {"offload": True}}, "offload = false"),
        ({"optimizer": {"name": "signsgd", "variance_reduction": True}}, "corrects a momentum"),
        (
            {"optimizer": {"name": "signum", "variance_reduction": True}, "zero": {"stage": 3}},
            "at most 2; here 3",
        ),
        ({"optimizer": {"name": "steepest", "p": 0.5}}, "greater than or equal to 1"),
    ],
)
def test_what_cannot_be_is_refused(tree: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        config_from_tree(tree)


def test_infinity_may_be_written_as_toml_does():
    for p in ("inf", math.inf):
        config = config_from_tree({"optimizer": {"name": "steepest", "p": p}})
        assert config.optimizer.p == "inf"
    config_from_tree({"optimizer": {"name": "signum"}, "zero": {"stage": 3}})


def _by_hand(*, reduces_variance: bool) -> Callable:
    """Muon with AdamW for the rest, and STORM, in a few lines; the iteration as published."""

    def newton_schulz(matrix: torch.Tensor) -> torch.Tensor:
        flipped = matrix.shape[0] > matrix.shape[1]
        x = matrix.T if flipped else matrix
        x = x / x.norm().clamp(min=1e-7)
        for _ in range(5):
            gram = x @ x.T
            x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
        return x.T if flipped else x

    def make(model: nn.Module, gradients: Callable) -> Callable:
        named = {name: each for name, each in model.named_parameters() if each.requires_grad}
        matrices = {name for name, each in named.items() if each.ndim == 2 and "lora_" in name}
        rest = [each for name, each in named.items() if name not in matrices]
        adamw = torch.optim.AdamW(rest, betas=(0.9, 0.95), weight_decay=0.01)
        momentum = {name: torch.zeros_like(named[name]) for name in matrices}
        before = {name: each.detach().clone() for name, each in named.items()}

        def update(lr: float, step: int) -> None:
            if reduces_variance:
                here = {name: each.grad for name, each in named.items()}
                now = {name: each.detach().clone() for name, each in named.items()}
                _set(named, before)
                gradients(step)
                for name, each in named.items():
                    each.grad = here[name] - 0.95 * each.grad
                _set(named, now)
            torch.nn.utils.clip_grad_norm_(named.values(), 1.0)
            for name, each in named.items():
                before[name] = each.detach().clone()
            adamw.param_groups[0]["lr"] = lr
            adamw.step()
            with torch.no_grad():
                for name in matrices:
                    each, average = named[name], momentum[name]
                    if reduces_variance:
                        average.mul_(0.95).add_(each.grad)
                        ascent = average
                    else:
                        average.mul_(0.95).add_(each.grad, alpha=0.05)
                        ascent = 0.95 * average + 0.05 * each.grad
                    each.mul_(1 - lr * 0.01)
                    scale = 0.2 * math.sqrt(max(each.shape))
                    each.sub_(newton_schulz(ascent), alpha=lr * scale)

        return update

    return make


def _set(named: dict[str, nn.Parameter], values: dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, each in named.items():
            each.copy_(values[name])


MUON = Job(2, lora=True, optimizer={"name": "muon"})
STORM = Job(2, lora=True, optimizer={"name": "muon", "variance_reduction": True})


def test_muon_under_deepspeed_is_muon_by_hand(tmp_path: Path):
    """Matrices cut anywhere by two ranks, then all on one without ZeRO: the same run."""
    half = STEPS // 2
    jobs = {"muon": MUON, "storm": STORM}
    for name in jobs:
        (tmp_path / name).mkdir()
    first = run_ranks(
        2,
        *(replace(job, end=half, save=str(tmp_path / name)) for name, job in jobs.items()),
        replace(MUON, stage=1),
    )
    second = run_ranks(
        1,
        *(
            replace(job, stage=0, first=half, load=str(tmp_path / name))
            for name, job in jobs.items()
        ),
    )
    by_hand = plain_losses(lora=True, make=_by_hand(reduces_variance=False))
    assert by_hand == pytest.approx(first[0].losses + second[0].losses, abs=1e-4)
    assert by_hand == pytest.approx(first[2].losses, abs=1e-4)
    storm = plain_losses(lora=True, make=_by_hand(reduces_variance=True))
    assert storm == pytest.approx(first[1].losses + second[1].losses, abs=1e-4)
    assert abs(storm[-1] - by_hand[-1]) > 1e-3  # they differ by more than the tolerance


def test_rules_are_the_same_on_any_number_of_ranks():
    """Pieces of two ranks against whole tensors of one, and Muon in bfloat16 against float32."""
    rules = [
        {"name": "signum"},
        {"name": "steepest", "geometry": "entrywise", "p": 3.0},
        {"name": "steepest", "geometry": "schatten", "p": "inf"},
    ]
    halves = [Job(1 + index % 2, optimizer=rule) for index, rule in enumerate(rules)]
    *split, low = run_ranks(2, *halves, replace(MUON, precision="bfloat16"))
    *whole, high = run_ranks(1, *(replace(job, stage=0) for job in halves), replace(MUON, stage=0))
    for one, two in zip(whole, split, strict=True):
        assert one.losses == pytest.approx(two.losses, abs=1e-3)
        assert one.losses[-1] < one.losses[0] - 0.01
    assert high.losses == pytest.approx(low.losses, abs=0.05)


def test_one_state_at_a_time_is_shown_in_float32():
    """So that a checkpoint takes 4 bytes a parameter for a while, and not 8."""
    pytest.importorskip("torchao", reason="8-bit states need the extra lowbit")
    parameters = _parameters((64, 128))
    (weight,) = parameters.values()
    optimizer = _optimizer(parameters, precision={"stored_states": "int8"})
    _set_gradients(parameters, 0)
    optimizer.step()
    hidden = set(optimizer.state[weight])
    for name in ("exp_avg", "exp_avg_sq"):
        optimizer.expand(name)
        assert hidden | {name} == set(optimizer.state[weight])
        assert (torch.float32, weight.shape) == (
            optimizer.state[weight][name].dtype,
            optimizer.state[weight][name].shape,
        )
        optimizer.collapse(name)
        assert hidden == set(optimizer.state[weight])


LOW = {"stored_states": "int8", "weights": {"mantissa_bits": 8, "mode": "stochastic"}}


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_resumed_run_in_few_bits_is_the_same_run(tmp_path: Path, name: str):
    """Exactly, as both go on from states that were written once more in 8 bits; the last loss is of
    weights that those states have moved."""
    pytest.importorskip("torchao", reason="8-bit states need the extra lowbit")
    job = Job(2, optimizer={"name": name}, rounding=LOW)
    (tmp_path / "there").mkdir()
    half = STEPS // 2
    saved = replace(job, end=half, save=str(tmp_path / "there"))
    went_on, _, resumed = run_ranks(
        2,
        replace(job, save=str(tmp_path), save_after=half),
        saved,
        replace(job, first=half, load=str(tmp_path / "there")),
    )
    assert went_on.losses[half:] == resumed.losses
    assert went_on.losses[-1] != went_on.losses[half]
    exact = plain_losses() if name == "adamw" else None
    if exact:
        assert exact == pytest.approx(went_on.losses, abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adamw", "signum"])
def test_sharded_parameters_too(name: str):
    """ZeRO-3 with rules that need no whole matrices, against one rank without ZeRO."""
    job = Job(3, optimizer={"name": name}, rounding={"stored_states": "bfloat16"})
    (sharded,) = run_ranks(2, job)
    (alone,) = run_ranks(1, replace(job, stage=0))
    assert alone.losses == pytest.approx(sharded.losses, abs=1e-3)
