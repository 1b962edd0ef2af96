"""Long horizons: distances and precisions by hand, by search and by scikit-learn."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from mmtpp.config.load import config_from_tree
from mmtpp.core.errors import ConfigError
from mmtpp.core.forecast import IntervalRange
from mmtpp.evaluate.history import History
from mmtpp.evaluate.horizon import (
    EventSet,
    check_futures,
    horizon_estimates,
    matched,
    repeated,
    transport_distance,
    what_happened,
)
from mmtpp.train.template_record import Answers

times = st.lists(st.floats(0, 10), max_size=4)


def _of(values: list[float], types: list[int] | None = None) -> EventSet:
    kinds = np.array(types or [0] * len(values), dtype=np.int64)
    return EventSet.certain(np.array(values, dtype=np.float64), kinds, 2)


def _searched(here: list[float], there: list[float], cost: float) -> float:
    """Every way to move some events to others, the rest deleted and inserted."""
    best = cost * (len(here) + len(there))
    short, long = sorted((here, there), key=len)
    for chosen in permutations(range(len(long)), len(short)):
        moved = sum(
            min(abs(a - long[place]), 2 * cost) for a, place in zip(short, chosen, strict=True)
        )
        best = min(best, moved + cost * (len(long) - len(short)))
    return best


def test_a_future_becomes_what_happened_at_the_least_cost():
    found, true = _of([1.0, 5.0], [0, 1]), _of([1.5, 5.0], [0, 0])
    # 0.5 to move the first, one of type 1 deleted, one of type 0 inserted
    assert 0.5 + 2 * 2.0 == transport_distance(found, true, delete_cost=2.0)
    assert 0 == transport_distance(true, true, delete_cost=2.0)
    assert 3 * 2.0 == transport_distance(_of([]), _of([1, 2, 3]), delete_cost=2.0)


@given(times, times, st.floats(0.1, 5))
def test_no_way_is_cheaper(here: list[float], there: list[float], cost: float):
    found = transport_distance(_of(here), _of(there), delete_cost=cost)
    assert _searched(here, there, cost) == pytest.approx(found)


def test_each_event_is_matched_once_and_the_surer_forecast_wins():
    chances = np.array([[0.2, 0.8], [0.9, 0.1], [0.6, 0.4]])
    found = EventSet(np.array([1.0, 1.2, 7.0]), np.array([1, 0, 0]), chances)
    true = _of([1.1, 4.0])
    assert [False, True, False] == matched(found, true, 0, tolerance=0.5).tolist()
    assert not matched(found, true, 1, tolerance=0.5).any()
    assert not matched(_of([]), true, 0, tolerance=0.5).any()


@given(st.integers(0, 10**6))
def test_the_precision_is_that_of_scikit_learn(seed: int):
    """Every event far from all others: matching is then no choice."""
    rng = np.random.default_rng(seed)
    size = 12
    at = np.arange(size) * 100.0
    chances = rng.dirichlet([1, 1], size)
    happened = rng.random(size) < 0.6
    happened[0] = True
    found = EventSet(at, chances.argmax(axis=1), chances)
    kinds = rng.integers(0, 2, size)
    true = EventSet.certain(at[happened], kinds[happened], 2)
    sequence = np.zeros(1, dtype=np.int64)
    estimates = horizon_estimates([found], [true], sequence, horizon=10.0, seconds_per_unit=1.0)
    expected = [
        average_precision_score(happened & (kinds == kind), chances[:, kind])
        for kind in range(2)
        if (happened & (kinds == kind)).any()
    ]
    assert np.mean(expected) == pytest.approx(estimates["horizon/t_map"].value)


def test_the_metrics_of_two_origins_by_hand():
    found = [_of([1.0, 2.0]), _of([1.0])]
    true = [_of([1.1]), _of([9.0, 9.5])]
    sequence = np.array([0, 1])
    estimates = horizon_estimates(found, true, sequence, horizon=10.0, seconds_per_unit=60.0)
    # tolerance 2, deleting costs 1: 0.1 + 1, and 1 + 2
    assert 60 * (1.1 + 3.0) / 2 == pytest.approx(estimates["horizon/otd_s"].value)
    assert 1.0 == estimates["horizon/count_error"].value
    assert 1.5 == estimates["horizon/true_events"].value
    # one hit, the first of three equally sure, of three events
    assert 1 / 3 == pytest.approx(estimates["horizon/t_map"].value)
    low, high = estimates["horizon/t_map"].low, estimates["horizon/t_map"].high
    assert 0 == low < high <= 1


def test_what_happened_and_what_is_repeated():
    history = History(
        "a", np.array([0.0, 4.0, 9.0, 10.0, 12.0, 30.0]), np.array([0, 1, 1, 0, 1, 0])
    )
    true = what_happened(history, 3, horizon=5.0, num_types=2)
    assert ([2.0], [1]) == (true.times.tolist(), true.types.tolist())
    past = repeated(history, 3, horizon=5.0, num_types=2)
    # those after 5.0, up to the origin itself
    assert ([4.0, 5.0], [1, 0]) == (past.times.tolist(), past.types.tolist())
    assert [[0, 1], [1, 0]] == past.chances.tolist()


@pytest.mark.parametrize("tasks", [("time",), ("type", "joint"), ("qa",)])
def test_futures_need_a_model_that_knows_when_and_which(tasks: tuple[str, ...]):
    answers = Answers(tasks, IntervalRange(1.0, 9.0, 1.0), (0,), ("a",), 60.0, history=False)
    config = config_from_tree({"evaluation": {"futures": 2, "horizon": 5.0}})
    with pytest.raises(ConfigError, match=r"(?s)asked for .*evaluation.futures = 2"):
        check_futures(config, answers)
    check_futures(config_from_tree({}), answers)  # none are wanted


@pytest.mark.parametrize("tasks", [("time", "type"), ("time", "joint"), ("time", "type", "text")])
def test_futures_are_drawn_by_a_model_that_knows_when_and_which(tasks: tuple[str, ...]):
    answers = Answers(tasks, IntervalRange(1.0, 9.0, 1.0), (0,), ("a",), 60.0, history=False)
    check_futures(config_from_tree({"evaluation": {"futures": 2, "horizon": 5.0}}), answers)
