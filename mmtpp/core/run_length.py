"""Runs: consecutive similar events that are written as one count and one span."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.events import Events

MAX_COUNT = 255  # the count is one byte token; longer runs are written as several


@dataclass(frozen=True, slots=True)
class Runs:
    """The R runs of a window, in order.

    Attributes:
        first: (R,) index of the first event.
        last: (R,) index of the last event; the run has ``last - first + 1`` events.
        span: (R,) float64, their summed intervals: the time from the event before the run to its
            last event.
    """

    first: NDArray[np.int64]
    last: NDArray[np.int64]
    span: NDArray[np.float64]

    @property
    def count(self) -> NDArray[np.int64]:
        """(R,) events of each run, 1 to ``MAX_COUNT``."""
        return self.last - self.first + 1


def find_runs(events: Events) -> Runs:
    """Group the similar events of a window into runs of at most ``MAX_COUNT``."""
    similar = events.similar
    place = np.arange(len(similar))
    continues = np.zeros(len(similar), dtype=np.bool_)
    continues[1:] = similar[1:] & similar[:-1]
    start = np.maximum.accumulate(np.where(similar & ~continues, place, 0))
    first = np.flatnonzero(similar & ((place - start) % MAX_COUNT == 0))
    breaks = np.ones(len(similar) + 1, dtype=np.bool_)  # no run goes over these places
    breaks[:-1] = ~continues
    breaks[first] = True
    last = np.flatnonzero(similar & breaks[1:])
    span = np.zeros(len(first))
    if len(first):
        edges = np.stack([first, last + 1], axis=1).ravel()
        padded = np.append(events.intervals, 0.0)  # reduceat wants every edge inside
        span = np.add.reduceat(padded, edges)[::2]
    return Runs(first, last, span)


def runs_to_restart(events: Events) -> NDArray[np.int64]:
    """(E + 1,) runs that a window starting there has more than those that begin in it."""
    similar = events.similar
    num_events = len(similar)
    place = np.arange(num_events)
    is_kept = np.append(~similar, True)
    next_kept = np.minimum.accumulate(
        np.where(is_kept, np.arange(num_events + 1), num_events)[::-1]
    )
    remaining = next_kept[::-1][:-1] - place  # similar events from here to the end of their run
    begun = np.zeros(num_events + 1, dtype=np.int64)
    begun[find_runs(events).first] = 1
    before = np.cumsum(begun) - begun
    within = before[place + remaining] - before[place]
    extra = np.zeros(num_events + 1, dtype=np.int64)
    extra[:-1] = -(-remaining // MAX_COUNT) - within
    return extra
