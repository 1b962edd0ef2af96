"""The neural baselines of the quality benchmark: what they may see, and what their errors mean.

They need EasyTPP, which is an extra: ``pip install -e .[quality] -c constraints.txt``.
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
def test_a_later_event_changes_no_earlier_likelihood(model: str, seed: int):
    assert effect_of_later_events(model, seed=seed) < MAX_EFFECT


@pytest.mark.parametrize("seed", [0, 1])
def test_a_model_that_sees_the_future_is_found(seed: int):
    """ANHN of EasyTPP 0.3.0 does, and is not among the baselines."""
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
    """Independent exponential intervals of mean 10: nothing predicts better than the mean, whose
    RMSE is 10; a single draw from the true distribution has 14.1."""
    parts = {"train": 200, "validation": 20, "test": 20}
    return {"num_types": 2, "tick": 1e-6} | {
        part: _exponential(size, seed) for seed, (part, size) in enumerate(parts.items())
    }


@pytest.mark.parametrize("model", MODELS)
def test_the_error_is_of_the_mean_of_many_draws(model: str, exponential: dict):
    # ODETPP trains one epoch in a second
    done = _trial(model, exponential, seconds=12.0 if model == "ODETPP" else 2.0)
    assert done.returncode == 0, done.stderr[-2000:]
    metrics = json.loads(done.stdout.splitlines()[-1])
    assert DRAWS >= 100
    assert metrics["draws"] == DRAWS
    assert 1 <= metrics["best_epoch"] <= metrics["epochs"]
    assert metrics["targets"] == 20 * 39
    intervals = np.concatenate([np.diff(times) for times, _ in exponential["test"]])
    of_the_mean = np.sqrt(np.mean((intervals - 10.0) ** 2))
    one_draw = np.sqrt(np.mean((intervals - 10.0) ** 2) + 10.0**2)
    assert metrics["time/rmse"] < 0.6 * of_the_mean + 0.4 * one_draw
    # the entropy of the intervals and of the types; after 2 s of training
    entropy = 1 + np.log(10.0) + np.log(2)
    assert metrics["joint/nll_nats_per_event"] > entropy - 0.1


def test_a_trial_of_a_model_that_sees_the_future_fails(exponential: dict):
    done = _trial("ANHN", exponential)
    assert done.returncode != 0
    assert "ANHN: a later event changes the likelihood of earlier ones" in done.stderr
