"""Optimisers compared with closed forms, torch's own, a few lines by hand, and under DeepSpeed."""

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
from mmtpp.experiments.steepest_descent import steepest_direction
from mmtpp.train.optimizer.muon import orthogonalized
from mmtpp.train.optimizer.optimizer import Optimizer, is_hidden_matrix
from tests.parity.ranks import STEPS, Job, event_model, plain_losses, run_ranks

EXPONENTS = [1.0, 1.5, 2.0, 3.0, "inf"]


def _optimizer(parameters: dict[str, nn.Parameter], **tree: object) -> Optimizer:
    config = config_from_tree({"optimizer_precision": tree.pop("precision", {}), "optimizer": tree})
    optimizer = Optimizer(
        parameters, config.optimizer, config.optimizer_precision, lr=0.1, weight_decay=0.02
    )
    tensors = [
        (parameter, index)
        for index, group in enumerate(optimizer.param_groups)
        for parameter in group["params"]
    ]
    optimizer.init_states(tensors, 0)
    return optimizer


def _parameters(*shapes: tuple[int, ...]) -> dict[str, nn.Parameter]:
    torch.manual_seed(0)
    return {f"layer{i}.weight": nn.Parameter(torch.randn(shape)) for i, shape in enumerate(shapes)}


def _set_gradients(parameters: dict[str, nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in parameters.values():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("p", EXPONENTS)
@pytest.mark.parametrize("geometry", ["entrywise", "schatten"])
@pytest.mark.parametrize("shape", [(4, 7), (7, 4), (5, 5)])
def test_a_direction_has_norm_one_and_reaches_the_dual_norm(geometry, p, shape):
    """By Hölder's inequality, no tensor of norm 1 has a larger inner product with the gradient."""
    gradient = np.random.default_rng(1).standard_normal(shape)
    direction = steepest_direction(torch.tensor(gradient), geometry, p).double().numpy()

    def norm(matrix: np.ndarray, exponent: float) -> float:
        values = matrix if geometry == "entrywise" else np.linalg.svd(matrix, compute_uv=False)
        return float(np.linalg.norm(values.ravel(), exponent))

    exponent = np.inf if p == "inf" else p
    dual = 1.0 if p == "inf" else np.inf if p == 1 else p / (p - 1)
    assert norm(direction, exponent) == pytest.approx(1, rel=1e-5)
    assert float((gradient * direction).sum()) == pytest.approx(norm(gradient, dual), rel=1e-5)


@pytest.mark.parametrize("geometry", ["entrywise", "schatten"])
@pytest.mark.parametrize("p", EXPONENTS)
def test_a_gradient_of_zero_has_no_direction(geometry, p):
    assert not steepest_direction(torch.zeros(3, 4), geometry, p).any()
    assert not orthogonalized(torch.zeros(3, 4)).any()


def test_singular_values_of_zero_get_no_direction():
    """A gradient of rank 1 has one singular value to normalise; rounding noise is no second one."""
    left, right = torch.randn(6, generator=torch.Generator().manual_seed(0)), torch.arange(1.0, 5)
    direction = steepest_direction(torch.outer(left, right), "schatten", "inf")
    expected = torch.outer(left / left.norm(), right / right.norm())
    assert torch.allclose(direction, expected, atol=1e-6)


def test_newton_schulz_on_a_diagonal_matrix_is_its_polynomial():
    """On a diagonal matrix the iteration applies a polynomial to each number."""
    values = [3.0, 1.0, 0.1]
    norm = math.sqrt(sum(value**2 for value in values))
    expected = []
    for value in (start / norm for start in values):
        for _ in range(5):
            value = 3.4445 * value - 4.7750 * value**3 + 2.0315 * value**5
        expected.append(value)
    result = orthogonalized(torch.diag(torch.tensor(values)))
    assert torch.allclose(result, torch.diag(torch.tensor(expected)), atol=1e-5)
    assert all(0.68 <= value <= 1.21 for value in expected)


@pytest.mark.parametrize("shape", [(12, 40), (40, 12)])
def test_muon_equals_torchs(shape: tuple[int, int]):
    """torch iterates in bfloat16, which has 3 digits; both use Nesterov momentum."""
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
    moved, expected = (
        parameters["layer0.weight"].detach() - start for parameters in (ours, torchs)
    )
    assert float((moved - expected).norm() / expected.norm()) < 0.02


def test_adamw_equals_torchs():
    ours, torchs = _parameters((3, 4), (5,)), _parameters((3, 4), (5,))
    mine = _optimizer(ours)
    theirs = torch.optim.AdamW(torchs.values(), lr=0.1, betas=(0.9, 0.95), weight_decay=0.02)
    for step in range(5):
        for parameters, optimizer in ((ours, mine), (torchs, theirs)):
            _set_gradients(parameters, step)
            optimizer.step()
    for name in ours:
        assert torch.allclose(ours[name], torchs[name], atol=1e-6)


def test_signs_by_hand():
    """Two updates of lr 0.1 and weight decay 0.02: w (1 - 0.002) - 0.1 sign."""
    for name, second in (("signsgd", [-1.0, 1.0]), ("signum", [1.0, 1.0])):
        weight = nn.Parameter(torch.tensor([2.0, -1.0]))
        optimizer = _optimizer({"w": weight}, name=name, momentum=0.5)
        weight.grad = torch.tensor([4.0, 0.5])
        optimizer.step()
        expected = torch.tensor([2.0, -1.0]) * 0.998 - 0.1
        assert torch.allclose(weight.detach(), expected)
        # the momentum 0.5 x 2 + 0.5 x (-1) is positive, the gradient itself negative
        weight.grad = torch.tensor([-1.0, 0.5])
        optimizer.step()
        assert torch.allclose(weight.detach(), expected * 0.998 - 0.1 * torch.tensor(second))


@pytest.mark.parametrize("geometry", ["entrywise", "schatten"])
def test_steepest_in_the_frobenius_norm_is_the_normalised_gradient(geometry: str):
    """Both norms are the Frobenius norm at p = 2; with match_rms, a step has the RMS 0.2 lr."""
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
        assert torch.allclose(weight.detach(), expected, atol=1e-6)


def test_muon_updates_hidden_matrices_and_adamw_all_other_parameters():
    """LoRA's factors are hidden matrices; rows of tokens, norms and biases are not."""
    names = {
        name
        for name, parameter in event_model(lora=True).named_parameters()
        if parameter.requires_grad and is_hidden_matrix(name, parameter)
    }
    assert names
    assert all("lora_A" in name or "lora_B" in name for name in names)
    tables = [
        name
        for name, parameter in event_model(lora=False).named_parameters()
        if not is_hidden_matrix(name, parameter) and parameter.ndim == 2
    ]
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
def test_settings_that_contradict_each_other_are_refused(tree: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        config_from_tree(tree)


def test_infinity_may_be_written_like_in_toml():
    for p in ("inf", math.inf):
        config = config_from_tree({"optimizer": {"name": "steepest", "p": p}})
        assert config.optimizer.p == "inf"
    config_from_tree({"optimizer": {"name": "signum"}, "zero": {"stage": 3}})


def _by_hand(*, reduces_variance: bool) -> Callable:
    """Muon, AdamW for all other parameters, and STORM, in a few lines; the published iteration."""

    def newton_schulz(matrix: torch.Tensor) -> torch.Tensor:
        flipped = matrix.shape[0] > matrix.shape[1]
        x = matrix.T if flipped else matrix
        x = x / x.norm().clamp(min=1e-7)
        for _ in range(5):
            gram = x @ x.T
            x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
        return x.T if flipped else x

    def make_update(model: nn.Module, gradients: Callable) -> Callable:
        named = {
            name: parameter
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }
        matrices = {
            name for name, parameter in named.items() if parameter.ndim == 2 and "lora_" in name
        }
        by_adamw = [parameter for name, parameter in named.items() if name not in matrices]
        adamw = torch.optim.AdamW(by_adamw, betas=(0.9, 0.95), weight_decay=0.01)
        momentum = {name: torch.zeros_like(named[name]) for name in matrices}
        previous = _copy(named)

        def update(lr: float, step: int) -> None:
            if reduces_variance:
                current_gradients = {name: parameter.grad for name, parameter in named.items()}
                current = _copy(named)
                _set(named, previous)
                gradients(step)
                for name, parameter in named.items():
                    parameter.grad = current_gradients[name] - 0.95 * parameter.grad
                _set(named, current)
            torch.nn.utils.clip_grad_norm_(named.values(), 1.0)
            previous.update(_copy(named))
            adamw.param_groups[0]["lr"] = lr
            adamw.step()
            with torch.no_grad():
                for name in matrices:
                    matrix, average = named[name], momentum[name]
                    if reduces_variance:
                        average.mul_(0.95).add_(matrix.grad)
                        ascent = average
                    else:
                        average.mul_(0.95).add_(matrix.grad, alpha=0.05)
                        ascent = 0.95 * average + 0.05 * matrix.grad
                    matrix.mul_(1 - lr * 0.01)
                    scale = 0.2 * math.sqrt(max(matrix.shape))
                    matrix.sub_(newton_schulz(ascent), alpha=lr * scale)

        return update

    return make_update


def _copy(named: dict[str, nn.Parameter]) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in named.items()}


def _set(named: dict[str, nn.Parameter], values: dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in named.items():
            parameter.copy_(values[name])


MUON = Job(2, lora=True, optimizer={"name": "muon"})
STORM = Job(2, lora=True, optimizer={"name": "muon", "variance_reduction": True})


def test_muon_under_deepspeed_equals_muon_by_hand(tmp_path: Path):
    """Two ranks cut matrices anywhere, then one rank without ZeRO resumes: the same run."""
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
    by_hand = plain_losses(lora=True, make_update=_by_hand(reduces_variance=False))
    assert first[0].losses + second[0].losses == pytest.approx(by_hand, abs=1e-4)
    assert first[2].losses == pytest.approx(by_hand, abs=1e-4)
    storm = plain_losses(lora=True, make_update=_by_hand(reduces_variance=True))
    assert first[1].losses + second[1].losses == pytest.approx(storm, abs=1e-4)
    assert abs(storm[-1] - by_hand[-1]) > 1e-3  # they differ by more than the tolerance


def test_rules_do_not_depend_on_the_number_of_ranks():
    """Two ranks' pieces against one rank's whole tensors, and Muon in bfloat16 against float32."""
    rules = [
        {"name": "signum"},
        {"name": "steepest", "geometry": "entrywise", "p": 3.0},
        {"name": "steepest", "geometry": "schatten", "p": "inf"},
    ]
    halves = [Job(1 + index % 2, optimizer=rule) for index, rule in enumerate(rules)]
    *split, low = run_ranks(2, *halves, replace(MUON, precision="bfloat16"))
    *whole, high = run_ranks(1, *(replace(job, stage=0) for job in halves), replace(MUON, stage=0))
    for one_rank, two_ranks in zip(whole, split, strict=True):
        assert two_ranks.losses == pytest.approx(one_rank.losses, abs=1e-3)
        assert one_rank.losses[-1] < one_rank.losses[0] - 0.01
    assert low.losses == pytest.approx(high.losses, abs=0.05)


def test_one_state_at_a_time_is_decoded_to_float32():
    """So a checkpoint takes 4 bytes per parameter while it is written, and not 8."""
    pytest.importorskip("torchao", reason="8-bit states need the extra lowbit")
    parameters = _parameters((64, 128))
    (weight,) = parameters.values()
    optimizer = _optimizer(parameters, precision={"stored_states": "int8"})
    _set_gradients(parameters, 0)
    optimizer.step()
    coded = set(optimizer.state[weight])
    for name in ("exp_avg", "exp_avg_sq"):
        optimizer.decode_state(name)
        assert set(optimizer.state[weight]) == coded | {name}
        decoded = optimizer.state[weight][name]
        assert (decoded.dtype, decoded.shape) == (torch.float32, weight.shape)
        optimizer.encode_state(name)
        assert set(optimizer.state[weight]) == coded


LOW = {"stored_states": "int8", "weights": {"mantissa_bits": 8, "mode": "stochastic"}}


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_resumed_run_in_few_bits_is_bit_identical(tmp_path: Path, name: str):
    """Both runs continue from states that were coded in 8 bits once more. The last loss belongs to
    weights that these states have updated."""
    pytest.importorskip("torchao", reason="8-bit states need the extra lowbit")
    job = Job(2, optimizer={"name": name}, rounding=LOW)
    (tmp_path / "there").mkdir()
    half = STEPS // 2
    saved = replace(job, end=half, save=str(tmp_path / "there"))
    continued, _, resumed = run_ranks(
        2,
        replace(job, save=str(tmp_path), save_after=half),
        saved,
        replace(job, first=half, load=str(tmp_path / "there")),
    )
    assert resumed.losses == continued.losses[half:]
    assert continued.losses[-1] != continued.losses[half]
    exact = plain_losses() if name == "adamw" else None
    if exact:
        assert continued.losses == pytest.approx(exact, abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adamw", "signum"])
def test_rules_for_sharded_parameters(name: str):
    """Compares ZeRO-3, with rules that need no whole matrices, with one rank without ZeRO."""
    job = Job(3, optimizer={"name": name}, rounding={"stored_states": "bfloat16"})
    (sharded,) = run_ranks(2, job)
    (alone,) = run_ranks(1, replace(job, stage=0))
    assert sharded.losses == pytest.approx(alone.losses, abs=1e-3)
