"""The neural baselines of the quality benchmark: causality and the error of their predictions.

The tests need EasyTPP, an extra: ``pip install -e .[quality] -c constraints.txt``.
"""

import json
import subprocess
import sys

import numpy as np
import pytest

from benchmarks.quality.easytpp import DRAWS
from benchmarks.quality.leakage import MAX_EFFECT, effect_of_later_events
from benchmarks.quality.neural import MODELS

pytest.importorskip("easy_tpp", reason="EasyTPP is not installed: pip install -e .[quality]")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("seed", [0, 1])
def test_later_events_do_not_change_earlier_likelihoods(model: str, seed: int):
    assert effect_of_later_events(model, seed=seed) < MAX_EFFECT


@pytest.mark.parametrize("seed", [0, 1])
def test_a_model_that_sees_the_future_is_detected(seed: int):
    """ANHN of EasyTPP 0.3.0 uses later events, so it is not a baseline."""
    assert "ANHN" not in MODELS
    assert effect_of_later_events("ANHN", seed=seed) > 10 * MAX_EFFECT


def _trial(model: str, sequences: dict, seconds: float = 2.0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.quality.neural", model, str(seconds), "0"]
    return subprocess.run(
        command, input=json.dumps(sequences), capture_output=True, text=True, check=False
    )


def _exponential(num_sequences: int, seed: int) -> list:
    rng = np.random.default_rng(seed)
    return [
        [np.cumsum(rng.exponential(10.0, 40)).tolist(), rng.integers(0, 2, 40).tolist()]
        for _ in range(num_sequences)
    ]


@pytest.fixture(scope="module")
def exponential() -> dict:
    """Independent exponential intervals with mean 10.

    The best prediction is the mean, with an RMSE of 10; one draw from the true distribution has an
    RMSE of 14.1.
    """
    parts = {"train": 200, "validation": 20, "test": 20}
    return {"num_types": 2, "tick": 1e-6} | {
        part: _exponential(size, seed) for seed, (part, size) in enumerate(parts.items())
    }


@pytest.mark.parametrize("model", MODELS)
def test_the_error_is_that_of_the_mean_of_many_draws(model: str, exponential: dict):
    # ODETPP needs about a second per epoch
    process = _trial(model, exponential, seconds=12.0 if model == "ODETPP" else 2.0)
    assert process.returncode == 0, process.stderr[-2000:]
    metrics = json.loads(process.stdout.splitlines()[-1])
    assert DRAWS >= 100
    assert metrics["draws"] == DRAWS
    assert 1 <= metrics["best_epoch"] <= metrics["epochs"]
    assert metrics["targets"] == 20 * 39
    num_targets, nll = np.array(metrics["by_sequence"]).T
    assert num_targets.tolist() == [39] * 20
    assert nll.sum() / 780 == pytest.approx(metrics["joint/nll_nats_per_event"], abs=1e-3)
    intervals = np.concatenate([np.diff(times) for times, _ in exponential["test"]])
    rmse_of_mean = np.sqrt(np.mean((intervals - 10.0) ** 2))
    rmse_of_one_draw = np.sqrt(np.mean((intervals - 10.0) ** 2) + 10.0**2)
    assert metrics["time/rmse"] < 0.6 * rmse_of_mean + 0.4 * rmse_of_one_draw
    # a lower bound after 2 s of training: the entropy of the intervals and of the types
    entropy = 1 + np.log(10.0) + np.log(2)
    assert metrics["joint/nll_nats_per_event"] > entropy - 0.1


def test_a_trial_of_a_model_that_sees_the_future_fails(exponential: dict):
    process = _trial("ANHN", exponential)
    assert process.returncode != 0
    assert "ANHN: later events change the likelihood of earlier events" in process.stderr


def _seconds(num_sequences: int, seed: int) -> list:
    """Intervals of one, two or three whole seconds, all with the same probability."""
    rng = np.random.default_rng(seed)
    return [
        [np.cumsum(rng.integers(1, 4, 40)).astype(float).tolist(), [0] * 40]
        for _ in range(num_sequences)
    ]


@pytest.mark.parametrize(("model", "slack"), [("IntensityFree", 0.25), ("S2P2", 1.0)])
def test_whole_seconds_have_no_unbounded_likelihood(model: str, slack: float):
    parts = {"train": 200, "validation": 20, "test": 20}
    sequences = {"num_types": 1, "tick": 1.0} | {
        part: _seconds(size, seed) for seed, (part, size) in enumerate(parts.items())
    }
    process = _trial(model, sequences, seconds=15.0)
    assert process.returncode == 0, process.stderr[-2000:]
    nll = json.loads(process.stdout.splitlines()[-1])["joint/nll_nats_per_event"]
    assert np.log(3) - 0.02 < nll < np.log(3) + slack


def test_the_mass_of_a_tick_is_that_of_the_distribution():
    import torch
    from scipy.stats import norm

    from benchmarks.quality.tick_likelihood import log_normal_mass

    low = np.array([-40.0, -3.0, -0.1, 0.2, 5.0, 39.0])
    high = low + np.array([0.5, 1e-6, 0.2, 1e-3, 2.0, 1.0])
    # scipy's survival function is exact above 0, its distribution function below
    expected = [
        norm.logsf(a) + np.log1p(-np.exp(norm.logsf(b) - norm.logsf(a)))
        if a > 0
        else norm.logcdf(b) + np.log1p(-np.exp(norm.logcdf(a) - norm.logcdf(b)))
        for a, b in zip(low, high, strict=True)
    ]
    mass = log_normal_mass(torch.from_numpy(low), torch.from_numpy(high))
    np.testing.assert_allclose(mass.numpy(), expected, rtol=1e-7)
    narrow = norm.logpdf(-3.0) + np.log(1e-6)
    assert float(mass[1]) == pytest.approx(narrow, rel=1e-6)
