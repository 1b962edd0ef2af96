"""Compression: the paper's rule against a six-line loop, and its laws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmtpp.core.compression import similar_events
from tests.unit.strategies import intervals

deltas = st.floats(min_value=0, max_value=1e6)


def _loop(waits: np.ndarray, delta: float) -> list[bool]:
    marks, previous = [], None
    for wait in waits.tolist():
        marks.append(previous is not None and abs(wait - previous) < delta)
        previous = wait
    return marks


@given(intervals, deltas)
def test_temporal_equals_the_loop(waits: np.ndarray, delta: float):
    assert _loop(waits, delta) == similar_events(waits, strategy="temporal", delta=delta).tolist()


@given(intervals, deltas, st.integers(0, 40))
def test_marks_of_a_prefix_are_the_prefix_of_the_marks(waits, delta, cut):
    whole = similar_events(waits, strategy="temporal", delta=delta)
    prefix = similar_events(waits[:cut], strategy="temporal", delta=delta)
    assert whole[:cut].tolist() == prefix.tolist()


@given(intervals, deltas, deltas)
def test_a_larger_delta_marks_at_least_as_many(waits, one, other):
    small, large = sorted([one, other])
    marks = similar_events(waits, strategy="temporal", delta=small)
    assert (similar_events(waits, strategy="temporal", delta=large) >= marks).all()


@given(intervals)
def test_delta_zero_and_none_mark_nothing(waits):
    assert not similar_events(waits, strategy="temporal", delta=0.0).any()
    assert not similar_events(waits, strategy="none", delta=1e9).any()


@pytest.mark.parametrize(
    ("waits", "strategy", "delta"),
    [([1.0], "temporal", -1.0), ([1.0], "magic", 1.0), ([np.nan], "none", 1.0)],
)
def test_bad_arguments_are_refused(waits, strategy, delta):
    with pytest.raises(ValueError, match=r"delta|strategy|intervals"):
        similar_events(np.array(waits), strategy=strategy, delta=delta)
