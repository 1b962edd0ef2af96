"""Distributions of intervals: probabilities of ticks, against float64 and against their sum."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from mmtpp.expert.mixture import IntervalScale, Mixture, MixtureHead

TICK = 0.25
SCALE = IntervalScale(tick=TICK, smallest=TICK / 2, log_mean=0.4, log_spread=1.3)


def _mixture(scale: IntervalScale = SCALE, num_rows: int = 1) -> Mixture:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    weights = normal(num_rows, 6).log_softmax(-1)
    return Mixture(weights, normal(num_rows, 5), 0.1 + normal(num_rows, 5).abs(), scale)


def _probability(mixture: Mixture, low: float, high: float) -> float:
    """Probability of an interval between two bounds, by SciPy in float64."""
    weights = mixture.log_weights[0].double().exp().numpy()
    total = weights[-1] if low < 0 else 0.0
    for weight, mean, width in zip(weights, mixture.means[0], mixture.widths[0], strict=False):
        component = stats.lognorm(
            s=float(width) * SCALE.log_spread,
            scale=math.exp(float(mean) * SCALE.log_spread + SCALE.log_mean),
        )
        total += weight * (component.cdf(high) - component.cdf(max(low, 0.0)))
    return total


def test_log_densities_are_those_of_ticks():
    mixture = _mixture()
    for ticks in (0, 1, 2, 7, 99, 100, 101, 400, 5000):
        interval = torch.tensor([ticks * TICK])
        expected = _probability(mixture, (ticks - 0.5) * TICK, (ticks + 0.5) * TICK) / TICK
        density = float(mixture.log_density(interval).exp())
        assert density == pytest.approx(expected, rel=1e-3), ticks


def test_the_probabilities_of_all_ticks_sum_to_one():
    mixture = _mixture()
    num_ticks = 200_000
    total = 0.0
    for intervals in torch.arange(num_ticks).mul(TICK).split(1000):
        rows = torch.zeros(len(intervals), dtype=torch.long)
        total += float(mixture.select(rows).log_density(intervals).double().exp().sum()) * TICK
    beyond = 1 - _probability(mixture, -1.0, (num_ticks - 0.5) * TICK)
    assert total + beyond == pytest.approx(1.0, abs=1e-4)


def test_the_cdf_contains_the_atom():
    mixture = _mixture()
    at_zero, *above = mixture.cdf_at(torch.tensor([0.0, 1.0, 50.0]))[0].tolist()
    assert at_zero == pytest.approx(float(mixture.log_weights[0, -1].exp()), abs=1e-6)
    for value, probability in zip((1.0, 50.0), above, strict=True):
        assert probability == pytest.approx(_probability(mixture, -1.0, value), rel=1e-5)


def test_times_without_a_clock_have_densities():
    mixture = _mixture(IntervalScale(tick=0.0, smallest=1e-3, log_mean=0.4, log_spread=1.3))
    step = 1e-3
    slope = _probability(mixture, 1 - step, 1 + step) / (2 * step)
    assert float(mixture.log_density(torch.tensor([1.0])).exp()) == pytest.approx(slope, rel=1e-3)
    zero = float(mixture.log_density(torch.tensor([0.0])))
    assert zero == pytest.approx(float(mixture.log_weights[0, -1]))


def test_gradients_are_finite_far_from_all_components():
    mixture = _mixture()
    means = mixture.means.clone().requires_grad_()
    moved = Mixture(mixture.log_weights, means, mixture.widths, SCALE)
    for interval in (0.0, TICK, 1e-3, 1e9):
        loss = -moved.log_density(torch.tensor([interval])).sum()
        (gradient,) = torch.autograd.grad(loss, means)
        assert torch.isfinite(loss)
        assert torch.isfinite(gradient).all()


def test_a_new_head_gives_the_training_intervals():
    rng = np.random.default_rng(0)
    logs = np.concatenate([rng.normal(-1.0, 0.2, 5000), rng.normal(1.0, 0.5, 5000)])
    scale = IntervalScale(tick=0.0, smallest=1e-6, log_mean=0.0, log_spread=1.0)
    head = MixtureHead(4, 32, scale)
    head.start_from(logs)
    mixture = head.distributions(torch.zeros(1, 4))
    for level in (0.1, 0.3, 0.5, 0.7, 0.9):
        value = torch.tensor([math.exp(np.quantile(logs, level))], dtype=torch.float32)
        assert float(mixture.cdf_at(value).detach()) == pytest.approx(level, abs=0.06)
