"""Splits in time: every event is in one split, and the splits follow each other in time."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mmtpp.core.split import TimeSplit, events_of_split


def test_cuts_in_time_by_hand():
    times = np.array([0.0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    assert TimeSplit(None, None, 0.1, 0.2).cuts(times) == (7.0, 8.0)
    assert TimeSplit(4.5, 6.5, 0.1, 0.2).cuts(times) == (4.5, 6.5)
    # the validation events are just before the test, if its start is given
    assert TimeSplit(None, 5.0, 0.1, 0.2).cuts(times) == (4.0, 5.0)
    assert TimeSplit(3.0, None, 0.1, 0.2).cuts(times) == (3.0, 8.0)
    # a share of 0 gives no split
    assert TimeSplit(None, None, 0.0, 0.0).cuts(times) == (np.inf, np.inf)
    # all events before the cuts, all events after them
    assert _spans(times, TimeSplit(50.0, 60.0, 0.1, 0.1)) == [(0, 10), (10, 10), (10, 10)]
    assert _spans(times, TimeSplit(None, -1.0, 0.1, 0.1)) == [(0, 0), (0, 0), (0, 10)]
    # simultaneous events stay together, after the cut
    tied = np.array([0.0, 1, 2, 2, 2, 2, 2, 2, 3, 4])
    assert _spans(tied, TimeSplit(None, None, 0.1, 0.2)) == [(0, 2), (2, 8), (8, 10)]


def _spans(times: np.ndarray, split: TimeSplit) -> list[tuple[int, int]]:
    cuts = split.cuts(times)
    return [events_of_split("time", name, times, cuts) for name in ("train", "validation", "test")]


@given(
    st.lists(st.integers(-5, 20), min_size=1, max_size=40),
    st.none() | st.integers(-10, 30),
    st.none() | st.integers(-10, 30),
    st.floats(0, 0.4),
    st.floats(0, 0.4),
)
def test_every_event_is_in_one_split_in_order_of_time(times, validation, test, share, test_share):
    ordered = np.sort(np.array(times, dtype=np.float64))
    if validation is not None and test is not None and validation > test:
        validation = test
    spans = _spans(ordered, TimeSplit(validation, test, share, test_share))
    assert [0, len(ordered)] == [spans[0][0], spans[2][1]]
    assert spans[0][1] == spans[1][0] <= spans[1][1] == spans[2][0]
    for edge in (spans[1][0], spans[2][0]):
        if 0 < edge < len(ordered):
            assert ordered[edge - 1] < ordered[edge]
    if test is not None:
        assert (ordered < test).sum() == spans[2][0]
