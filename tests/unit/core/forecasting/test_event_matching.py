"""Distances and matches of sets of events, against values by hand and exhaustive search."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmtpp.core.forecasting.event_matching import EventSet, match_events, transport_distance

times = st.lists(st.floats(0, 10), max_size=4)


def _events(values: list[float], types: list[int] | None = None) -> EventSet:
    kinds = np.array(types or [0] * len(values), dtype=np.int64)
    return EventSet.from_known_types(np.array(values, dtype=np.float64), kinds, 2)


def _least_cost(here: list[float], there: list[float], cost: float) -> float:
    """The least cost over all ways to move some events, and to delete and insert the other ones."""
    best = cost * (len(here) + len(there))
    short, long = sorted((here, there), key=len)
    for chosen in permutations(range(len(long)), len(short)):
        moves = sum(
            min(abs(a - long[place]), 2 * cost) for a, place in zip(short, chosen, strict=True)
        )
        best = min(best, moves + cost * (len(long) - len(short)))
    return best


def test_the_distance_is_the_least_cost_by_hand():
    forecast, true = _events([1.0, 5.0], [0, 1]), _events([1.5, 5.0], [0, 0])
    # 0.5 to move the first event, one event of type 1 deleted, one event of type 0 inserted
    assert transport_distance(forecast, true, delete_cost=2.0) == 0.5 + 2 * 2.0
    assert transport_distance(true, true, delete_cost=2.0) == 0
    assert transport_distance(_events([]), _events([1, 2, 3]), delete_cost=2.0) == 3 * 2.0


@given(times, times, st.floats(0.1, 5))
def test_no_other_way_costs_less(here: list[float], there: list[float], cost: float):
    distance = transport_distance(_events(here), _events(there), delete_cost=cost)
    assert distance == pytest.approx(_least_cost(here, there, cost))


def test_each_event_is_matched_once_and_the_higher_score_wins():
    chances = np.array([[0.2, 0.8], [0.9, 0.1], [0.6, 0.4]])
    forecast = EventSet(np.array([1.0, 1.2, 7.0]), np.array([1, 0, 0]), chances)
    true = _events([1.1, 4.0])
    assert match_events(forecast, true, 0, tolerance=0.5).tolist() == [False, True, False]
    assert not match_events(forecast, true, 1, tolerance=0.5).any()
    assert not match_events(_events([]), true, 0, tolerance=0.5).any()
