"""Long horizons: distances and precisions by hand, by search and by scikit-learn."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from mmtpp.evaluate.baselines.history import History
from mmtpp.evaluate.horizon import (
    EventSet,
    horizon_estimates,
    matched,
    repeated,
    transport_distance,
    what_happened,
)

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
    assert transport_distance(found, true, delete_cost=2.0) == 0.5 + 2 * 2.0
    assert transport_distance(true, true, delete_cost=2.0) == 0
    assert transport_distance(_of([]), _of([1, 2, 3]), delete_cost=2.0) == 3 * 2.0


@given(times, times, st.floats(0.1, 5))
def test_no_way_is_cheaper(here: list[float], there: list[float], cost: float):
    found = transport_distance(_of(here), _of(there), delete_cost=cost)
    assert _searched(here, there, cost) == pytest.approx(found)


def test_each_event_is_matched_once_and_the_surer_forecast_wins():
    chances = np.array([[0.2, 0.8], [0.9, 0.1], [0.6, 0.4]])
    found = EventSet(np.array([1.0, 1.2, 7.0]), np.array([1, 0, 0]), chances)
    true = _of([1.1, 4.0])
    assert matched(found, true, 0, tolerance=0.5).tolist() == [False, True, False]
    assert not matched(found, true, 1, tolerance=0.5).any()
    assert not matched(_of([]), true, 0, tolerance=0.5).any()


@given(st.integers(0, 10**6))
def test_the_precision_is_that_of_scikit_learn(seed: int):
    """Every event far from all others: matching is then no choice. Every second score is a tie."""
    rng = np.random.default_rng(seed)
    size = 12
    at = np.arange(0.0, 100.0 * size, 100.0)
    chances = rng.dirichlet([1, 1], size)[rng.integers(0, size // 2, size)]
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


def _drawn(rng: np.random.Generator, origins: int) -> list[tuple[EventSet, EventSet]]:
    """Crowded futures with few distinct scores, so that ties and rival matches are common."""
    pairs = []
    for _ in range(origins):
        size, happened = rng.integers(1, 8), rng.integers(0, 6)
        first = rng.choice([0.0, 0.25, 0.5, 1.0], size)
        chances = np.stack([first, 1 - first, np.zeros(size)], axis=1)
        found = EventSet(rng.uniform(0, 10, size), chances.argmax(axis=1), chances)
        kinds = rng.integers(0, 2, happened)
        pairs.append((found, EventSet.certain(rng.uniform(0, 10, happened), kinds, 3)))
    return pairs


def _precisions(pairs: list[tuple[EventSet, EventSet]]) -> dict[str, float]:
    founds, trues = zip(*pairs, strict=True)
    sequence = np.arange(len(pairs))
    found = horizon_estimates(founds, trues, sequence, horizon=10.0, seconds_per_unit=1.0)
    return {name: each.value for name, each in found.items() if "t_map" in name}


@given(st.integers(0, 10**6))
def test_the_order_of_events_and_of_futures_changes_no_precision(seed: int):
    rng = np.random.default_rng(seed)
    pairs = _drawn(rng, 5)
    turned = []
    for found, true in (pairs[place] for place in rng.permutation(len(pairs))):
        order, other = rng.permutation(len(found.times)), rng.permutation(len(true.times))
        turned.append(
            (
                EventSet(found.times[order], found.types[order], found.chances[order]),
                EventSet(true.times[other], true.types[other], true.chances[other]),
            )
        )
    assert _precisions(pairs) == pytest.approx(_precisions(turned))


def _most_matches(here: NDArray[np.float64], there: NDArray[np.float64]) -> int:
    """The largest number of pairs within 2, by trying every assignment of the smaller set."""
    short, long = sorted((here.tolist(), there.tolist()), key=len)
    return max(
        sum(abs(a - b) <= 2 for a, b in zip(short, chosen, strict=True))
        for chosen in permutations(long, len(short))
    )


@given(st.integers(0, 10**6))
def test_equal_scores_are_one_threshold(seed: int):
    """The definition: recall and precision at every distinct score, each matching by search."""
    pairs = _drawn(np.random.default_rng(seed), 3)
    precisions = []
    for kind in range(3):
        there = [true.times[true.types == kind] for _, true in pairs]
        total = sum(len(times) for times in there)
        if not total:
            continue
        scores = np.concatenate([found.chances[:, kind] for found, _ in pairs])
        before, area = 0, 0.0
        for level in np.unique(scores)[::-1]:
            chosen = [found.times[found.chances[:, kind] >= level] for found, _ in pairs]
            hits = sum(_most_matches(*both) for both in zip(chosen, there, strict=True))
            area += (hits - before) / total * hits / (scores >= level).sum()
            before = hits
        precisions.append(area)
    if precisions:
        found = _precisions(pairs)
        assert np.mean(precisions) == pytest.approx(found["horizon/t_map"])
        assert np.sum(precisions) / 3 == pytest.approx(found["horizon/t_map_all_types"])


def test_the_metrics_of_two_origins_by_hand():
    found = [_of([1.0, 2.0]), _of([1.0])]
    true = [_of([1.1]), _of([9.0, 9.5])]
    sequence = np.array([0, 1])
    estimates = horizon_estimates(found, true, sequence, horizon=10.0, seconds_per_unit=60.0)
    # tolerance 2, deleting costs 1: 0.1 + 1, and 1 + 2
    assert estimates["horizon/otd_s"].value == pytest.approx(60 * (1.1 + 3.0) / 2)
    assert estimates["horizon/count_error"].value == 1.0
    assert estimates["horizon/true_events"].value == 1.5
    # three equally sure events are one threshold: one hit of three events, precision 1/3
    assert estimates["horizon/t_map"].value == pytest.approx(1 / 3 * 1 / 3)
    # type 1 never occurs and counts as 0
    assert estimates["horizon/t_map_all_types"].value == pytest.approx(1 / 3 * 1 / 3 / 2)
    low, high = estimates["horizon/t_map"].low, estimates["horizon/t_map"].high
    assert 0 == low < high <= 1


def test_what_happened_and_what_is_repeated():
    history = History(
        "a", np.array([0.0, 4.0, 9.0, 10.0, 12.0, 30.0]), np.array([0, 1, 1, 0, 1, 0])
    )
    true = what_happened(history, 3, horizon=5.0, num_types=2)
    assert (true.times.tolist(), true.types.tolist()) == ([2.0], [1])
    past = repeated(history, 3, horizon=5.0, num_types=2)
    # those after 5.0, up to the origin itself
    assert (past.times.tolist(), past.types.tolist()) == ([4.0, 5.0], [1, 0])
    assert past.chances.tolist() == [[0, 1], [1, 0]]
