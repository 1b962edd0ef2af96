"""Compression: every strategy against a plain loop, and the properties of all strategies."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmtpp.core.events import Events
from mmtpp.core.representation.compression import (
    STRATEGIES,
    Compression,
    compress,
    similar_events,
    similar_intervals,
)
from tests.unit.generators import events, intervals, plain_events

deltas = st.floats(min_value=0, max_value=1e6)
by_time = st.sampled_from(["temporal", "anchored", "relative"])
some = events(max_size=40)


def _marks(given_events: Events, strategy: str, delta: float, **more: float) -> list[bool]:
    return similar_events(given_events, Compression(strategy, delta, **more)).tolist()


def _temporal_loop(waits: list[float], delta: float) -> list[bool]:
    marks, previous = [], None
    for wait in waits:
        marks.append(previous is not None and abs(wait - previous) < delta)
        previous = wait
    return marks


def _anchored_loop(waits: list[float], delta: float) -> list[bool]:
    marks, anchor = [], None
    for wait in waits:
        marks.append(anchor is not None and abs(wait - anchor) < delta)
        anchor = anchor if marks[-1] else wait
    return marks


def _relative_loop(waits: list[float], delta: float) -> list[bool]:
    marks = [False]
    for before, wait in itertools.pairwise(waits):
        if before == 0 or wait == 0:
            marks.append(before == wait and delta > 0)
        else:
            marks.append(abs(math.log(wait) - math.log(before)) < delta)
    return marks


def _hybrid_loop(given_events: Events, delta: float, share: float) -> list[bool]:
    marks = _temporal_loop(given_events.intervals.tolist(), delta)
    offsets = given_events.text_offsets.tolist()
    texts = [set(given_events.text_ids[a:b].tolist()) for a, b in itertools.pairwise(offsets)]
    for i in range(1, len(marks)):
        union = texts[i] | texts[i - 1]
        jaccard = len(texts[i] & texts[i - 1]) / len(union) if union else 1.0
        marks[i] &= given_events.types[i] == given_events.types[i - 1]
        marks[i] &= given_events.frames[i] == given_events.frames[i - 1]
        marks[i] &= jaccard >= share
    return [bool(mark) for mark in marks]


@given(intervals, deltas)
def test_temporal_equals_the_loop(waits: np.ndarray, delta: float):
    given_events = plain_events(len(waits), intervals=waits)
    assert _marks(given_events, "temporal", delta) == _temporal_loop(waits.tolist(), delta)


@given(intervals, deltas)
def test_anchored_equals_the_loop(waits: np.ndarray, delta: float):
    given_events = plain_events(len(waits), intervals=waits)
    assert _marks(given_events, "anchored", delta) == _anchored_loop(waits.tolist(), delta)


@given(intervals, st.floats(0, 50))
def test_relative_equals_the_loop(waits: np.ndarray, delta: float):
    given_events = plain_events(len(waits), intervals=waits)
    assert _marks(given_events, "relative", delta) == _relative_loop(waits.tolist(), delta)


@given(some, deltas, st.sampled_from([0.0, 0.3, 0.5, 1.0]), st.integers(1, 3))
def test_hybrid_equals_the_loop(given_events: Events, delta: float, share: float, few: int):
    # few types, frames and tokens, so that some agree
    alike = replace(
        given_events,
        types=given_events.types % few,
        frames=given_events.frames % few,
        text_ids=given_events.text_ids % (2 * few),
    )
    expected = _hybrid_loop(alike, delta, share)
    assert _marks(alike, "hybrid", delta, min_text_similarity=share) == expected


@given(some, st.sampled_from(list(STRATEGIES)), deltas, st.integers(0, 40))
def test_marks_of_a_prefix_are_the_prefix_of_the_marks(given_events, strategy, delta, cut):
    whole = _marks(given_events, strategy, delta)
    assert _marks(given_events.slice(0, min(cut, len(whole))), strategy, delta) == whole[:cut]


@given(intervals, st.sampled_from(["temporal", "relative"]), deltas, deltas)
def test_a_larger_delta_marks_at_least_as_many(waits, strategy, one, other):
    given_events = plain_events(len(waits), intervals=waits)
    small, large = sorted([one, other])
    fewer = np.array(_marks(given_events, strategy, small))
    assert (np.array(_marks(given_events, strategy, large)) >= fewer).all()


@given(some, by_time | st.just("hybrid"))
def test_delta_zero_and_none_mark_nothing(given_events: Events, strategy: str):
    assert not any(_marks(given_events, strategy, 0.0))
    assert not any(_marks(given_events, "none", 1e9))


@given(some, st.sampled_from(list(STRATEGIES)), deltas)
def test_the_first_event_is_never_similar_and_nothing_else_changes(given_events, strategy, delta):
    marked = compress(given_events, Compression(strategy, delta))
    assert not marked.similar[:1].any()
    assert marked.intervals is given_events.intervals


def test_an_anchor_bounds_the_drift_and_temporal_does_not():
    """Published bug 4: with chained similarity the drift of a run is unbounded."""
    waits = np.arange(0.0, 2.0, 0.1)
    given_events = plain_events(len(waits), intervals=waits)
    assert all(_marks(given_events, "temporal", 0.15)[1:])
    anchored = np.array(_marks(given_events, "anchored", 0.15))
    kept = np.maximum.accumulate(np.where(anchored, -1, np.arange(len(waits))))
    assert (np.abs(waits - waits[kept]) < 0.15).all()
    assert anchored.sum() == 10


def test_random_drop_has_its_rate_and_its_seed():
    given_events = plain_events(20_000)
    marks = np.array(_marks(given_events, "random_drop", 0.0, drop_fraction=0.3, seed=1))
    # five standard deviations of a binomial
    assert abs(marks.mean() - 0.3) < 5 * math.sqrt(0.3 * 0.7 / 20_000)
    assert marks.tolist() == _marks(given_events, "random_drop", 9.0, drop_fraction=0.3, seed=1)
    assert marks.tolist() != _marks(given_events, "random_drop", 0.0, drop_fraction=0.3, seed=2)


@pytest.mark.parametrize(
    "arguments",
    [
        {"strategy": "magic"},
        {"strategy": "temporal", "delta": -1.0},
        {"strategy": "temporal", "delta": math.nan},
        {"strategy": "hybrid", "min_text_similarity": 1.1},
        {"strategy": "random_drop", "drop_fraction": 1.0},
    ],
)
def test_bad_settings_are_refused(arguments: dict):
    with pytest.raises(ValueError, match=r"strategy|delta|min_text_similarity|drop_fraction"):
        Compression(**arguments)


@pytest.mark.parametrize("wait", [math.nan, math.inf, -1.0])
def test_invalid_intervals_are_refused(wait: float):
    with pytest.raises(ValueError, match="intervals"):
        _marks(plain_events(2, intervals=np.array([0.0, wait])), "none", 1.0)


def test_an_interval_is_similar_below_delta_and_never_without_an_event_before():
    similar = similar_intervals(
        np.array([5.0, 5.0, 5.0, 5.0]), np.array([3.0, 7.5, 2.5, np.inf]), 2.5
    )
    assert similar.tolist() == [True, False, False, False]
    assert not similar_intervals(np.array([5.0]), np.array([5.0]), 0.0).any()
