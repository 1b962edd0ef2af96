"""The tick of a clock, from intervals that were made from ticks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmtpp.core.clock import Clock


def _tick(*parts: np.ndarray) -> float:
    clock = Clock()
    for part in parts:
        clock.add(np.asarray(part, dtype=np.float64))
    return clock.tick


@pytest.mark.parametrize(
    ("intervals", "tick"),
    [
        ([60.0, 180.0, 0.0, 300.0], 60.0),  # minutes, told in seconds
        ([60.0, 61.0, 5.0], 1.0),
        ([0.1, 0.2, 0.1 + 0.2, 7.7], 0.1),  # 0.30000000000000004
        ([12.345, 0.001, 3600.0], 0.001),
        ([0.5, 1.5, 2.25], 0.25),
        ([1e6, 3e6], 1e6),
        ([np.pi, np.e], 0.0),  # no clock
        ([0.0, 0.0], 0.0),
        ([3.0, 1e-13, 7.0], 1.0),  # a sum of floats that should be zero
    ],
)
def test_ticks_by_hand(intervals: list[float], tick: float):
    assert tick == pytest.approx(_tick(np.array(intervals)), rel=1e-12)


def test_differences_of_times_keep_their_clock():
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.integers(0, 5000, 20_000)) * 0.001 + 1.4e9 / 1000
    assert 0.001 == pytest.approx(_tick(np.diff(times)))


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=20), st.integers(0, 6))
def test_every_interval_is_a_whole_number_of_ticks(counts: list[int], digits: int):
    intervals = np.array(counts) / 10.0**digits
    half = len(intervals) // 2
    tick = _tick(intervals[:half], intervals[half:])
    expected = np.gcd.reduce(np.array(counts)) / 10.0**digits
    assert expected == pytest.approx(tick)
