"""The training distribution: a probability, with the nats that the temporal expert counts."""

import numpy as np
import pytest

from mmtpp.core.forecasting.interval_forecasts import IntervalGrid, IntervalRange
from mmtpp.core.forecasting.training_distribution import TrainingDistribution

TYPES = np.array([0, 0, 1, 0])


def _fit(intervals: list[float], *, tick: float) -> tuple[TrainingDistribution, IntervalGrid]:
    grid = IntervalRange(tick or 0.5, 64.0, tick).grid(num_bytes=2)
    fitted = TrainingDistribution.fit(np.array(intervals), TYPES, grid, 3, tick=tick)
    return fitted, grid


def test_the_ticks_have_a_probability_of_one():
    fitted, grid = _fit([0.0, 2.0, 2.0, 9.0], tick=1.0)
    nll = fitted.interval_nll(np.arange(0.0, grid.edges[-1]), grid, tick=1.0)
    assert np.exp(-nll).sum() == pytest.approx(1, abs=1e-6)
    assert np.exp(-nll[0]) == pytest.approx(1.5 / 5)  # one of four intervals, and half an interval


def test_without_a_clock_zero_has_a_probability_and_the_rest_a_density():
    fitted, grid = _fit([0.0, 2.0, 2.5, 9.0], tick=0.0)
    edges = grid.edges[1:]  # the first step lies below the first time code
    density = np.exp(-fitted.interval_nll((edges[1:] + edges[:-1]) / 2, grid, tick=0.0))
    inside = (density * np.diff(edges)).sum()
    assert inside + fitted.mass[0] == pytest.approx(1 - 1.5 / 5, abs=1e-6)
    assert fitted.interval_nll(np.zeros(2), grid, tick=0.0) == pytest.approx(-np.log(1.5 / 5))


def test_every_type_has_a_share_of_a_pseudo_event():
    fitted, _ = _fit([1.0, 2.0, 2.0, 9.0], tick=1.0)
    expected = np.array([3 + 1 / 3, 1 + 1 / 3, 1 / 3]) / 5
    assert np.exp(fitted.type_logs) == pytest.approx(expected)
