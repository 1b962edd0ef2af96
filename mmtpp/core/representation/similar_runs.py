"""Runs of consecutive similar events, which run-length encoding writes as a count and a span."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.events import Events

MAX_COUNT = 255  # the count is one byte token; longer runs are split


@dataclass(frozen=True, slots=True)
class SimilarRuns:
    """The R runs of a window, in order.

    Attributes:
        first: (R,) index of the first event.
        last: (R,) index of the last event; a run has ``last - first + 1`` events.
        span: (R,) float64, sum of the run's intervals: the time from the event before the run to
            its last event.
    """

    first: NDArray[np.int64]
    last: NDArray[np.int64]
    span: NDArray[np.float64]

    @property
    def count(self) -> NDArray[np.int64]:
        """(R,) number of events in each run, 1 to ``MAX_COUNT``."""
        return self.last - self.first + 1


def find_similar_runs(events: Events) -> SimilarRuns:
    """Group the similar events of a window into runs of at most ``MAX_COUNT``."""
    similar = events.similar
    index = np.arange(len(similar))
    continues = np.zeros(len(similar), dtype=np.bool_)
    continues[1:] = similar[1:] & similar[:-1]
    start = np.maximum.accumulate(np.where(similar & ~continues, index, 0))
    first = np.flatnonzero(similar & ((index - start) % MAX_COUNT == 0))
    breaks = np.ones(len(similar) + 1, dtype=np.bool_)  # a new run, or none, starts here
    breaks[:-1] = ~continues
    breaks[first] = True
    last = np.flatnonzero(similar & breaks[1:])
    span = np.zeros(len(first))
    if len(first):
        edges = np.stack([first, last + 1], axis=1).ravel()
        padded = np.append(events.intervals, 0.0)  # reduceat needs every edge inside the array
        span = np.add.reduceat(padded, edges)[::2]
    return SimilarRuns(first, last, span)


def extra_runs_at_start(events: Events) -> NDArray[np.int64]:
    """(E + 1,) number of additional runs in a window that starts at each event.

    A window that starts inside a run writes the remaining events of this run as one or more runs.
    The result is the number of these runs, minus the number of runs of the whole sequence that
    begin among the remaining events.
    """
    similar = events.similar
    num_events = len(similar)
    index = np.arange(num_events)
    is_kept = np.append(~similar, True)
    next_kept = np.minimum.accumulate(
        np.where(is_kept, np.arange(num_events + 1), num_events)[::-1]
    )
    remaining = next_kept[::-1][:-1] - index  # similar events up to the end of the run
    begun = np.zeros(num_events + 1, dtype=np.int64)
    begun[find_similar_runs(events).first] = 1
    before = np.cumsum(begun) - begun
    within = before[index + remaining] - before[index]
    extra = np.zeros(num_events + 1, dtype=np.int64)
    extra[:-1] = -(-remaining // MAX_COUNT) - within
    return extra
