"""Distributions of intervals: probabilities of ticks, against float64 and against their sum."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from mmtpp.expert.interval_density import IntervalScale, LogNormalHead, LogNormals

TICK = 0.25
SCALE = IntervalScale(tick=TICK, smallest=TICK / 2, log_mean=0.4, log_spread=1.3)


def _log_normals(scale: IntervalScale = SCALE, num_rows: int = 1) -> LogNormals:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    weights = normal(num_rows, 6).log_softmax(-1)
    return LogNormals(weights, normal(num_rows, 5), 0.1 + normal(num_rows, 5).abs(), scale)


def _probability(log_normals: LogNormals, low: float, high: float) -> float:
    """Probability of an interval between two bounds, by SciPy in float64."""
    weights = log_normals.log_weights[0].double().exp().numpy()
    total = weights[-1] if low < 0 else 0.0
    for weight, mean, width in zip(
        weights, log_normals.means[0], log_normals.widths[0], strict=False
    ):
        component = stats.lognorm(
            s=float(width) * SCALE.log_spread,
            scale=math.exp(float(mean) * SCALE.log_spread + SCALE.log_mean),
        )
        total += weight * (component.cdf(high) - component.cdf(max(low, 0.0)))
    return total


def test_log_densities_are_those_of_ticks():
    log_normals = _log_normals()
    for ticks in (0, 1, 2, 7, 99, 100, 101, 400, 5000):
        interval = torch.tensor([ticks * TICK])
        expected = _probability(log_normals, (ticks - 0.5) * TICK, (ticks + 0.5) * TICK) / TICK
        density = float(log_normals.log_density(interval).exp())
        assert density == pytest.approx(expected, rel=1e-3), ticks


def test_the_probabilities_of_all_ticks_sum_to_one():
    log_normals = _log_normals()
    num_ticks = 200_000
    total = 0.0
    for intervals in torch.arange(num_ticks).mul(TICK).split(1000):
        rows = torch.zeros(len(intervals), dtype=torch.long)
        total += float(log_normals.select(rows).log_density(intervals).double().exp().sum()) * TICK
    beyond = 1 - _probability(log_normals, -1.0, (num_ticks - 0.5) * TICK)
    assert total + beyond == pytest.approx(1.0, abs=1e-4)


def test_the_cdf_contains_the_atom():
    log_normals = _log_normals(replace(SCALE, tick=0.0))
    for value in (0.0, 1.0, 50.0):
        _, probability = log_normals.cdf_of_tick(torch.tensor([value]))
        expected = _probability(log_normals, -1.0, value)
        assert float(probability) == pytest.approx(expected, rel=1e-5)
    assert float(log_normals.atom) == pytest.approx(_probability(log_normals, -1.0, 0.0))


def test_times_without_a_clock_have_densities():
    log_normals = _log_normals(IntervalScale(tick=0.0, smallest=1e-3, log_mean=0.4, log_spread=1.3))
    step = 1e-3
    slope = _probability(log_normals, 1 - step, 1 + step) / (2 * step)
    assert float(log_normals.log_density(torch.tensor([1.0])).exp()) == pytest.approx(
        slope, rel=1e-3
    )
    zero = float(log_normals.log_density(torch.tensor([0.0])))
    assert zero == pytest.approx(float(log_normals.log_weights[0, -1]))


def test_gradients_are_finite_far_from_all_components():
    log_normals = _log_normals()
    means = log_normals.means.clone().requires_grad_()
    moved = LogNormals(log_normals.log_weights, means, log_normals.widths, SCALE)
    for interval in (0.0, TICK, 1e-3, 1e9):
        loss = -moved.log_density(torch.tensor([interval])).sum()
        (gradient,) = torch.autograd.grad(loss, means)
        assert torch.isfinite(loss)
        assert torch.isfinite(gradient).all()


def test_a_new_head_gives_the_training_intervals():
    rng = np.random.default_rng(0)
    logs = np.concatenate([rng.normal(-1.0, 0.2, 5000), rng.normal(1.0, 0.5, 5000)])
    scale = IntervalScale(tick=0.0, smallest=1e-6, log_mean=0.0, log_spread=1.0)
    head = LogNormalHead(4, 32, scale)
    head.start_from(logs)
    log_normals = head.distributions(torch.zeros(1, 4))
    for level in (0.1, 0.3, 0.5, 0.7, 0.9):
        value = torch.tensor([math.exp(np.quantile(logs, level))], dtype=torch.float32)
        below, _ = log_normals.cdf_of_tick(value)
        assert float(below.detach()) == pytest.approx(level, abs=0.06)
