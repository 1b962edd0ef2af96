"""Compare forecast sets of events with the events that occurred: OTD and T-mAP.

- OTD, the optimal transport distance (Mei et al. 2019): the least cost of turning one set of events
  into the other by moving events of the same type in time, deleting events and inserting events.
- T-mAP (Karpukhin et al. 2024): the mean over types of the average precision of the forecast
  events. Each forecast event is matched to at most one true event of the type within a tolerance.
  Events with equal scores share one threshold, so the order of the events changes nothing.

Axes: N forecast events, M true events, K types, S sequences, G distinct scores.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy import optimize  # pyright: ignore[reportMissingTypeStubs]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class EventSet:
    """Events between an origin and the horizon.

    Attributes:
        times: (N,) times after the origin.
        types: (N,) indices into the K types.
        type_probabilities: (N, K) probability of each type.
    """

    times: FloatArray
    types: NDArray[np.int64]
    type_probabilities: FloatArray

    @classmethod
    def from_known_types(
        cls, times: FloatArray, types: NDArray[np.int64], num_types: int
    ) -> "EventSet":
        """Build a set of events whose types have probability 1."""
        return cls(times, types, np.eye(num_types)[types])


def transport_distance(forecast: EventSet, true: EventSet, *, delete_cost: float) -> float:
    """Optimal transport distance of two sets of events, in units of time.

    Args:
        forecast: Forecast events.
        true: True events.
        delete_cost: Cost of deleting or inserting one event, in units of time.
    """
    total = delete_cost * (len(forecast.times) + len(true.times))
    for type_index in np.intersect1d(forecast.types, true.types):
        forecast_times = forecast.times[forecast.types == type_index]
        true_times = true.times[true.types == type_index]
        gain = np.minimum(np.abs(forecast_times[:, None] - true_times) - 2 * delete_cost, 0)
        total += gain[_assign(gain)].sum()
    return float(total)


def match_events(
    forecast: EventSet, true: EventSet, type_index: int, *, tolerance: float
) -> NDArray[np.bool_]:
    """Match forecast events to true events of one type, each to a different one.

    The matching has the largest sum of the scores' ranks. At every threshold of the score it has
    the largest possible number of matches, because the sets that can be matched form a transversal
    matroid. So the scores of the matched events do not depend on the order of the events.

    Args:
        forecast: Forecast events; their score is the probability of the type.
        true: True events.
        type_index: Index of the type.
        tolerance: Largest difference between the times of two matched events.

    Returns:
        (N,) whether each forecast event is matched.
    """
    is_matched = np.zeros(len(forecast.times), dtype=np.bool_)
    true_times = true.times[true.types == type_index]
    if not len(true_times) or not len(forecast.times):
        return is_matched
    is_near = np.abs(forecast.times[:, None] - true_times) <= tolerance
    _, rank = np.unique(forecast.type_probabilities[:, type_index], return_inverse=True)
    rows, columns = _assign(-(rank[:, None] + 1) * is_near)
    is_matched[rows] = is_near[rows, columns]
    return is_matched


def _assign(cost: NDArray[np.number]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the assignment with the least total cost."""
    assign = cast("Callable[..., Any]", optimize.linear_sum_assignment)  # pyright: ignore[reportUnknownMemberType]
    return assign(cost)


@dataclass(frozen=True, slots=True)
class RankedEvents:
    """Forecast events of all sequences, ordered by their score for one type, the highest first.

    Attributes:
        is_matched: (N,) whether each event is matched to a true event.
        sequence: (N,) index of the sequence of each event.
        starts: (G,) index of the first event of each distinct score.
        num_true: (S,) number of true events of the type in each sequence.
    """

    is_matched: NDArray[np.bool_]
    sequence: NDArray[np.int64]
    starts: NDArray[np.int64]
    num_true: FloatArray

    @classmethod
    def from_pairs(
        cls,
        pairs: Sequence[tuple[EventSet, EventSet]],
        sequence: NDArray[np.int64],
        type_index: int,
        *,
        tolerance: float,
    ) -> "RankedEvents":
        """Match and rank the events of several forecasts.

        Args:
            pairs: Forecast and true events of each forecast.
            sequence: Index of the sequence of each forecast.
            type_index: Index of the type.
            tolerance: Largest difference between the times of two matched events.
        """
        is_matched = np.concatenate(
            [
                match_events(forecast, true, type_index, tolerance=tolerance)
                for forecast, true in pairs
            ]
        )
        scores = np.concatenate(
            [forecast.type_probabilities[:, type_index] for forecast, _ in pairs]
        )
        owner = np.repeat(sequence, [len(forecast.times) for forecast, _ in pairs])
        num_true = np.bincount(sequence, [(true.types == type_index).sum() for _, true in pairs])
        order = np.argsort(-scores, kind="stable")
        starts = np.flatnonzero(np.diff(scores[order], prepend=np.nan))
        return cls(is_matched[order], owner[order], starts, num_true.astype(np.float64))

    def average_precision(self, weights: FloatArray) -> float:
        """Average precision with (S,) weights of the sequences; NaN without any true event."""
        total = float(weights @ self.num_true)
        if not total:
            return float("nan")
        if not len(self.starts):
            return 0.0
        event_weights = weights[self.sequence]
        events = np.add.reduceat(event_weights, self.starts)
        hits = np.add.reduceat(event_weights * self.is_matched, self.starts)
        precision = np.cumsum(hits) / np.maximum(np.cumsum(events), 1e-300)
        return float(precision @ hits) / total
