"""Draws from a Hawkes process have the distributions that the baseline computes on a grid."""

import numpy as np
import pytest

from mmtpp.core.forecasting.interval_forecasts import IntervalRange
from mmtpp.core.point_processes.hawkes import Hawkes
from mmtpp.core.point_processes.history import History
from mmtpp.core.point_processes.next_event_draws import NextEventDraws

PROCESS = Hawkes(
    beta=np.array([0.1, 2.0]),
    mu=np.array([0.2, 0.05, 0.01]),
    alpha=np.random.default_rng(0).uniform(0, 0.25, (3, 3, 2)),
)
HISTORY = History("one", np.array([0.0, 1.5, 1.6, 4.0, 9.0]), np.array([0, 1, 1, 2, 0]))
NUM_DRAWS = 20_000


def _draw(after: int, *, tick: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Draws after an event of ``HISTORY``; the other chosen events must not matter."""
    other = History("two", np.array([0.0, 0.2]), np.array([2, 2]))
    draws = NextEventDraws(PROCESS, [other, HISTORY], [np.array([1]), np.array([after, 0])])
    index = np.full(NUM_DRAWS, 1)
    return draws.draw(index, np.random.default_rng(1), tick=tick)


@pytest.mark.parametrize("after", [0, 1, 3])
def test_intervals_have_the_distribution_of_the_baseline(after: int):
    intervals, _ = _draw(after)
    grid = IntervalRange(1e-3, 1e3, 0.0).grid(num_bytes=2)
    [forecasts] = PROCESS.forecast_intervals(HISTORY, grid)
    expected = np.cumsum(forecasts.mass[after])
    edges = grid.edges[1:]
    inside = (edges > 1e-2) & (edges < 50)
    drawn = np.searchsorted(np.sort(intervals), edges[inside]) / NUM_DRAWS
    # the largest difference of two distributions is above this in one of 10,000 cases
    assert np.abs(drawn - expected[inside]).max() < 2.2 / np.sqrt(NUM_DRAWS)


def test_types_have_the_rates_at_the_drawn_times():
    """The probability of a type is the integral of its rate times the survival."""
    after = 2
    _, types = _draw(after)
    times = np.linspace(0, 400, 400_001)
    rates = np.tile(PROCESS.mu[:, None], (1, len(times)))
    for event in range(after + 1):
        waited = HISTORY.times[after] - HISTORY.times[event]
        for decay, beta in enumerate(PROCESS.beta):
            raised = PROCESS.alpha[:, HISTORY.types[event], decay] * beta
            rates += raised[:, None] * np.exp(-beta * (times + waited))
    total = rates.sum(axis=0)
    step = times[1]
    survival = np.exp(-np.concatenate([[0], np.cumsum((total[1:] + total[:-1]) / 2) * step]))
    expected = np.trapezoid(rates * survival, dx=step)
    assert expected.sum() == pytest.approx(1, abs=1e-4)
    assert np.bincount(types, minlength=3) / NUM_DRAWS == pytest.approx(expected, abs=0.014)


def test_intervals_are_whole_ticks():
    intervals, _ = _draw(1, tick=0.25)
    assert (intervals % 0.25 == 0).all()
    assert (intervals == 0).any()  # an event within half a tick
