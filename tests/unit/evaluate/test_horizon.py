"""Metrics of long horizons, against values by hand, exhaustive search and scikit-learn."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from mmtpp.core.forecasting.event_matching import EventSet
from mmtpp.core.point_processes.history import History
from mmtpp.evaluate.horizon import events_after, horizon_estimates, repeat_past


def _events(values: list[float]) -> EventSet:
    kinds = np.zeros(len(values), dtype=np.int64)
    return EventSet.from_known_types(np.array(values, dtype=np.float64), kinds, 2)


@given(st.integers(0, 10**6))
def test_the_precision_is_that_of_scikit_learn(seed: int):
    """All events are far apart, so the matching is unique; every second score is a tie."""
    rng = np.random.default_rng(seed)
    size = 12
    at = np.arange(0.0, 100.0 * size, 100.0)
    chances = rng.dirichlet([1, 1], size)[rng.integers(0, size // 2, size)]
    occurred = rng.random(size) < 0.6
    occurred[0] = True
    forecast = EventSet(at, chances.argmax(axis=1), chances)
    kinds = rng.integers(0, 2, size)
    true = EventSet.from_known_types(at[occurred], kinds[occurred], 2)
    sequence = np.zeros(1, dtype=np.int64)
    estimates = horizon_estimates([forecast], [true], sequence, horizon=10.0, seconds_per_unit=1.0)
    expected = [
        average_precision_score(occurred & (kinds == kind), chances[:, kind])
        for kind in range(2)
        if (occurred & (kinds == kind)).any()
    ]
    assert estimates["horizon/t_map"].value == pytest.approx(np.mean(expected))


def _draw_pairs(rng: np.random.Generator, origins: int) -> list[tuple[EventSet, EventSet]]:
    """Crowded futures with few distinct scores, so that ties and rival matches are common."""
    pairs = []
    for _ in range(origins):
        size, num_true = rng.integers(1, 8), rng.integers(0, 6)
        first = rng.choice([0.0, 0.25, 0.5, 1.0], size)
        chances = np.stack([first, 1 - first, np.zeros(size)], axis=1)
        forecast = EventSet(rng.uniform(0, 10, size), chances.argmax(axis=1), chances)
        kinds = rng.integers(0, 2, num_true)
        true = EventSet.from_known_types(rng.uniform(0, 10, num_true), kinds, 3)
        pairs.append((forecast, true))
    return pairs


def _precisions(pairs: list[tuple[EventSet, EventSet]]) -> dict[str, float]:
    forecast, true = zip(*pairs, strict=True)
    sequence = np.arange(len(pairs))
    estimates = horizon_estimates(forecast, true, sequence, horizon=10.0, seconds_per_unit=1.0)
    return {name: estimate.value for name, estimate in estimates.items() if "t_map" in name}


@given(st.integers(0, 10**6))
def test_the_order_of_events_and_of_futures_changes_no_precision(seed: int):
    rng = np.random.default_rng(seed)
    pairs = _draw_pairs(rng, 5)
    shuffled = []
    for forecast, true in (pairs[place] for place in rng.permutation(len(pairs))):
        order, other = rng.permutation(len(forecast.times)), rng.permutation(len(true.times))
        shuffled.append(
            (
                EventSet(
                    forecast.times[order], forecast.types[order], forecast.type_probabilities[order]
                ),
                EventSet(true.times[other], true.types[other], true.type_probabilities[other]),
            )
        )
    assert _precisions(shuffled) == pytest.approx(_precisions(pairs))


def _most_matches(here: NDArray[np.float64], there: NDArray[np.float64]) -> int:
    """The largest number of pairs within 2, over every assignment of the smaller set."""
    short, long = sorted((here.tolist(), there.tolist()), key=len)
    return max(
        sum(abs(a - b) <= 2 for a, b in zip(short, chosen, strict=True))
        for chosen in permutations(long, len(short))
    )


@given(st.integers(0, 10**6))
def test_equal_scores_are_one_threshold(seed: int):
    """By the definition: recall and precision at every distinct score, each matched by search."""
    pairs = _draw_pairs(np.random.default_rng(seed), 3)
    precisions = []
    for kind in range(3):
        there = [true.times[true.types == kind] for _, true in pairs]
        total = sum(len(times) for times in there)
        if not total:
            continue
        scores = np.concatenate([forecast.type_probabilities[:, kind] for forecast, _ in pairs])
        before, area = 0, 0.0
        for level in np.unique(scores)[::-1]:
            here = [
                forecast.times[forecast.type_probabilities[:, kind] >= level]
                for forecast, _ in pairs
            ]
            hits = sum(_most_matches(*both) for both in zip(here, there, strict=True))
            area += (hits - before) / total * hits / (scores >= level).sum()
            before = hits
        precisions.append(area)
    if precisions:
        actual = _precisions(pairs)
        assert actual["horizon/t_map"] == pytest.approx(np.mean(precisions))
        assert actual["horizon/t_map_all_types"] == pytest.approx(np.sum(precisions) / 3)


def test_the_metrics_of_two_origins_by_hand():
    forecast = [_events([1.0, 2.0]), _events([1.0])]
    true = [_events([1.1]), _events([9.0, 9.5])]
    sequence = np.array([0, 1])
    estimates = horizon_estimates(forecast, true, sequence, horizon=10.0, seconds_per_unit=60.0)
    # tolerance 2, deleting costs 1: 0.1 + 1, and 1 + 2
    assert estimates["horizon/otd_s"].value == pytest.approx(60 * (1.1 + 3.0) / 2)
    assert estimates["horizon/count_error"].value == 1.0
    assert estimates["horizon/true_events"].value == 1.5
    # three events with equal scores are one threshold: one hit of three events, precision 1/3
    assert estimates["horizon/t_map"].value == pytest.approx(1 / 3 * 1 / 3)
    # type 1 never occurs and counts as 0
    assert estimates["horizon/t_map_all_types"].value == pytest.approx(1 / 3 * 1 / 3 / 2)
    low, high = estimates["horizon/t_map"].low, estimates["horizon/t_map"].high
    assert 0 == low < high <= 1


def test_true_events_and_the_repeated_past():
    history = History(
        "a", np.array([0.0, 4.0, 9.0, 10.0, 12.0, 30.0]), np.array([0, 1, 1, 0, 1, 0])
    )
    true = events_after(history, 3, horizon=5.0, num_types=2)
    assert (true.times.tolist(), true.types.tolist()) == ([2.0], [1])
    past = repeat_past(history, 3, horizon=5.0, num_types=2)
    # the events after 5.0, up to the origin itself
    assert (past.times.tolist(), past.types.tolist()) == ([4.0, 5.0], [1, 0])
    assert past.type_probabilities.tolist() == [[0, 1], [1, 0]]
