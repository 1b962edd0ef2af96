"""The tick of a clock, from times that were made from ticks, in any unit."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmtpp.core.times.clock import Clock, round_to_ticks

UNITS = [1.0, 60.0, 3600.0, 86400.0]
EPOCH = 1_700_000_000


def _tick_s(*sequences: np.ndarray, unit: float = 1.0) -> float:
    clock = Clock(unit)
    for times in sequences:
        clock.add_sequences(np.asarray(times, dtype=np.float64), np.array([len(times)]))
    return clock.tick_s


@pytest.mark.parametrize(
    ("intervals", "tick"),
    [
        ([60.0, 180.0, 0.0, 300.0], 60.0),  # minutes, written in seconds
        ([60.0, 61.0, 5.0], 1.0),
        ([0.1, 0.2, 0.1 + 0.2, 7.7], 0.1),  # 0.30000000000000004
        ([12.345, 0.001, 3600.0], 0.001),
        ([0.5, 1.5, 2.25], 0.25),
        ([1e6, 3e6], 1e6),
        ([np.pi, np.e], 0.0),  # no clock
        ([0.0, 0.0], 0.0),
        ([3.0, 1e-13, 7.0], 1.0),  # a sum of floats that should be zero
        (np.array([5.0, 30.0, 90.0, 0.0]) / 60, 5 / 60),  # seconds in an unknown unit
    ],
)
def test_ticks_by_hand(intervals: list[float], tick: float):
    assert _tick_s(np.cumsum([0.0, *intervals])) == pytest.approx(tick, rel=1e-12)


@pytest.mark.parametrize(("last", "tick"), [(0.25, 0.25), (4.0, 2.0), (np.pi, 0.0)])
def test_an_interval_after_many_decides(last: float, tick: float):
    """Wrong units are refuted by the first intervals; the others count as well."""
    assert _tick_s(np.cumsum([0.0, *[2.0] * 2000, last])) == pytest.approx(tick, rel=1e-12)
    whole, other = np.arange(0.0, 4000.0, 2.0), np.array([0.0, last])
    assert _tick_s(whole, other) == pytest.approx(tick, rel=1e-12)


def test_a_sequence_without_intervals_says_nothing():
    assert _tick_s(np.zeros(3), np.cumsum([0.0, 60.0, 180.0, 300.0])) == 60.0
    clock = Clock()
    clock.add_sequences(np.array([5.0, 0.0, 60.0, 240.0, 540.0]), np.array([1, 4]))
    assert clock.tick_s == 60.0


def test_differences_of_times_keep_their_clock():
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.integers(0, 5000, 20_000)) * 0.001 + 1.4e9 / 1000
    assert _tick_s(times) == pytest.approx(0.001)


@pytest.mark.parametrize("unit", [*UNITS, 7.0, 0.001, 604_800.0])
@pytest.mark.parametrize(
    ("scale", "tick_s"), [(86400, 86400), (60, 60), (1, 1), (1e-3, 1e-3), (1e-6, 1e-6)]
)
@pytest.mark.parametrize("start", [EPOCH, 0, -3 * 10**8])  # the last before 1970
def test_dates_have_one_tick_in_every_unit(start: int, scale: float, tick_s: float, unit: float):
    rng = np.random.default_rng(1)
    waits = rng.geometric(1 / 5000, (3, 400)) * rng.integers(0, 2, (3, 400))  # half simultaneous
    sequences = start + np.cumsum(waits, axis=1) * scale
    assert _tick_s(*(sequences / unit), unit=unit) == pytest.approx(tick_s, rel=1e-9)


@given(
    st.lists(st.integers(0, 10**5), min_size=4, max_size=60).filter(lambda waits: sum(waits) > 0),
    st.sampled_from([1.0, 60.0, 0.25, 0.001]),
    st.integers(-(10**9), 2 * 10**9),
)
def test_the_unit_does_not_change_the_tick(waits: list[int], scale: float, start: int):
    """Expected: the greatest common divisor of the whole numbers the times were made from."""
    times = start + np.cumsum(waits) * scale
    expected = np.gcd.reduce(np.array(waits[1:])) * scale
    ticks = [_tick_s(times / unit, times / unit, unit=unit) for unit in UNITS]
    for tick in ticks:  # 0 with too little evidence, but never a wrong tick
        assert tick == 0 or tick == pytest.approx(expected)


def test_a_part_of_the_unit_is_a_tick_too():
    frames = np.sort(np.random.default_rng(2).integers(0, 1000, 500)).astype(np.float64)
    assert _tick_s(frames, unit=1 / 29.97) == pytest.approx(1 / 29.97)
    hours = np.sort(np.random.default_rng(3).integers(0, 10**5, 500)) / 24  # days, unit not set
    assert _tick_s(hours) == pytest.approx(1 / 24)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("start", [0, EPOCH])
def test_continuous_times_have_no_tick(start: int, unit: float):
    rng = np.random.default_rng(4)
    times = start + np.cumsum(rng.exponential(30.0, 2000))
    assert _tick_s(times / unit, unit=unit) == 0.0
    assert _tick_s(times[:3] / unit, unit=unit) == 0.0
    if not start:
        assert _tick_s((times / unit).astype(np.float32), unit=unit) == 0.0


def test_single_precision_keeps_a_clock():
    times = np.cumsum(np.random.default_rng(5).integers(1, 50, 1000)) / 10
    assert _tick_s(times.astype(np.float32)) == pytest.approx(0.1)


def test_sequences_of_several_scales_share_the_finest_clock():
    rng = np.random.default_rng(6)
    coarse = EPOCH + np.cumsum(rng.integers(1, 9, 100)) * 3600.0
    fine = np.cumsum(rng.integers(1, 9, 100)) * 0.5
    assert _tick_s(coarse, fine) == 0.5
    assert _tick_s(coarse, coarse[:1]) == 3600.0


def test_shards_are_merged():
    rng = np.random.default_rng(7)
    shards = [EPOCH + np.cumsum(rng.integers(0, 9, 100)) * 1e-6 * step for step in (10, 4, 6)]
    whole, merged = Clock(60.0), Clock(60.0)
    for times in shards:
        whole.add_sequences(times / 60, np.array([100]))
        part = Clock(60.0)
        part.add_sequences(times / 60, np.array([30, 0, 70]))
        merged.merge_state(json.loads(json.dumps(part.state())))
    assert 0 < merged.tick_s == whole.tick_s
    empty = Clock(60.0)
    empty.add_sequences(np.zeros(0), np.zeros(0, dtype=np.int64))
    merged.merge_state(empty.state())
    assert merged.tick_s == whole.tick_s


def test_rounding_to_ticks_removes_the_rounding_of_times():
    seconds = np.array([EPOCH, EPOCH + 5, EPOCH + 5, EPOCH + 95], dtype=np.float64)
    waits = np.diff(seconds / 86400)
    assert (waits * 86400).tolist() != [5.0, 0.0, 90.0]
    assert (round_to_ticks(waits, 1 / 86400) / (1 / 86400)).tolist() == [5, 0, 90]
    assert round_to_ticks(waits, 0.0).tolist() == waits.tolist()
