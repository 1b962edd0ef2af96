"""The linear model of the optimiser benchmark: margins and directions computed by hand."""

import itertools
import math

import numpy as np
import pytest

from benchmarks.optimizers import margins
from benchmarks.optimizers.report import closing_rate


@pytest.fixture
def two_samples() -> margins.Problem:
    """x = (1, 0) and its mirror image in two classes: one comparison sets the margin."""
    return margins.Problem(np.array([[1.0, 0.0], [-1.0, 0.0]]), np.array([0, 1]))


@pytest.mark.parametrize(
    ("norm", "expected"),
    # rows (a, 0) and (-a, 0) have the margin 2a; their norms are a, a sqrt 2 and a sqrt 2
    [("sign", 2.0), ("Frobenius", math.sqrt(2)), ("spectral", math.sqrt(2))],
)
def test_the_largest_margin_equals_that_computed_by_hand(two_samples, norm: str, expected: float):
    low, high = margins.largest_margin(two_samples, norm)
    assert low == pytest.approx(expected, rel=1e-3)
    assert high == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("norm", margins.NORMS)
def test_no_model_has_a_larger_margin(norm: str):
    """No random model near the best one exceeds the upper bound."""
    problem = margins.random_problem(0)
    low, high = margins.largest_margin(problem, norm)
    assert low <= high * (1 + 1e-9)
    assert high <= low * 1.002
    flat = problem.comparisons().reshape(-1, margins.NUM_CLASSES * margins.NUM_FEATURES)
    rng = np.random.default_rng(1)
    for _ in range(200):
        model = flat.mean(axis=0) + rng.standard_normal(flat.shape[1]) * rng.uniform(0, 1)
        shaped = model.reshape(margins.NUM_CLASSES, -1)
        assert (flat @ model).min() / margins.norm_of(shaped, norm) <= high


def test_the_gradient_equals_the_slope_of_the_loss():
    problem = margins.random_problem(3)
    rng = np.random.default_rng(0)
    model = rng.standard_normal((margins.NUM_CLASSES, margins.NUM_FEATURES))
    chosen = np.array([0, 7, 11])

    def loss(at: np.ndarray) -> float:
        logits = problem.features_ND[chosen] @ at.T
        right = logits[np.arange(3), problem.classes_N[chosen]]
        return float(np.mean(np.log(np.exp(logits).sum(axis=1)) - right))

    gradient = problem.gradient(model, chosen)
    for place in itertools.product((0, 3), (0, 15)):
        step = np.zeros_like(model)
        step[place] = 1e-5
        slope = (loss(model + step) - loss(model - step)) / 2e-5
        assert gradient[place] == pytest.approx(slope, abs=1e-6)


@pytest.mark.parametrize("norm", margins.EXAMPLES)
def test_single_samples_converge_to_the_predicted_direction(monkeypatch, norm: str):
    monkeypatch.setattr(margins, "STEPS", 1000)
    monkeypatch.setattr(margins, "SHOWN", (1000,))
    records = {
        (record["method"], record["batch"]): record for record in margins.run_counterexample(norm)
    }
    single, full = records["no momentum", 1], records["no momentum", 8]
    assert single["cosine"] > 0.99
    assert (
        single["share"] < 0 < 0.9 < full["share"]
    )  # single samples misclassify a sample, full batches do not
    assert full["cosine"] < 0.9


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_the_closing_rate_of_a_power_law_is_its_exponent(exponent: float):
    shares = [1 - 0.3 * step**-exponent for step in margins.SHOWN]
    assert closing_rate(shares) == pytest.approx(exponent, abs=1e-9)
