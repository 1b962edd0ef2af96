"""Compression strategies: which events are similar to their past and become a similar-event token.

Every strategy goes forward and uses the past only. So the marks of a prefix are the prefix of the
marks, and training and prediction compress in the same way.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.events import Events
from mmtpp.core.seeds import seed_from

RECENT_FULL = "recent_full"


@dataclass(frozen=True, slots=True)
class Compression:
    """A strategy and its thresholds.

    Attributes:
        strategy: Key of ``STRATEGIES``.
        delta: Threshold, the paper's capital delta: in the source's time unit for ``temporal``,
            ``anchored`` and ``hybrid``; a difference of natural logarithms for ``relative``; unused
            by the other strategies. 0 marks no event.
        min_text_similarity: Minimum Jaccard index of the distinct tokens of two similar texts, 0 to
            1; ``hybrid`` only.
        drop_fraction: Probability that an event is marked, 0 to below 1; ``random_drop`` only.
        seed: Seed of the random marks; ``random_drop`` only.

    Raises:
        ValueError: The strategy is unknown, or a threshold is out of range.
    """

    strategy: str
    delta: float = 0.0
    min_text_similarity: float = 0.5
    drop_fraction: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise ValueError(f"unknown strategy {self.strategy!r}; one of {', '.join(STRATEGIES)}")
        if not 0 <= self.delta < math.inf:
            raise ValueError(f"delta is {self.delta}; it must be finite and 0 or more")
        if not 0 <= self.min_text_similarity <= 1:
            raise ValueError(f"min_text_similarity is {self.min_text_similarity}; it must be 0..1")
        if not 0 <= self.drop_fraction < 1:
            raise ValueError(f"drop_fraction is {self.drop_fraction}; it must be below 1")

    def for_sequence(self, sequence_id: str) -> "Compression":
        """The compression of one sequence: its random marks depend on the sequence's name."""
        return replace(self, seed=seed_from("drop", self.seed, sequence_id) % 2**63)


def compress(events: Events, compression: Compression) -> Events:
    """The events with their similar marks; see ``similar_events``."""
    return replace(events, similar=similar_events(events, compression))


def similar_events(events: Events, compression: Compression) -> NDArray[np.bool_]:
    """Mark the events that a strategy compresses.

    Args:
        events: E events; their present marks are ignored.
        compression: Strategy and thresholds.

    Returns:
        (E,) True where the event is similar. The first event is never similar.

    Raises:
        ValueError: An interval is negative or not finite.

    Source: MM-TPP, adaptive temporal compression, for ``temporal``; strict "<" as in the authors'
        stage-1 script, which goes forward (their stage 2 goes backwards).
    """
    intervals = events.intervals
    if not (np.isfinite(intervals) & (intervals >= 0)).all():
        raise ValueError("intervals must be finite and not negative")
    marks = np.zeros(len(intervals), dtype=np.bool_)
    if len(intervals) > 1:
        marks[1:] = STRATEGIES[compression.strategy](events, compression)
    return marks


def similar_intervals(
    intervals: NDArray[np.float64], previous: NDArray[np.float64], delta: float
) -> NDArray[np.bool_]:
    """(N,) whether each interval differs by less than ``delta`` from that of the event before it.

    Temporal compression drops these events, and the same rule leaves out targets
    (``evaluation.targets_delta``).

    Args:
        intervals: (N,) intervals, in the source's unit.
        previous: (N,) intervals of the events before; infinite where there is none, which makes an
            interval not similar.
        delta: Threshold, in the same unit; at 0, no interval is similar.
    """
    return np.abs(intervals - previous) < delta


def _none(events: Events, _: Compression) -> NDArray[np.bool_]:
    """No event is similar."""
    return np.zeros(len(events) - 1, dtype=np.bool_)


def _temporal(events: Events, compression: Compression) -> NDArray[np.bool_]:
    """The interval differs by less than delta from the interval of the previous event, marked or
    not. Runs are unbounded: a slow drift of the intervals never ends one."""
    return similar_intervals(events.intervals[1:], events.intervals[:-1], compression.delta)


def _anchored(events: Events, compression: Compression) -> NDArray[np.bool_]:
    """The interval differs by less than delta from the interval of the last full event, so a run
    never drifts further than delta."""
    delta = compression.delta
    intervals: list[float] = events.intervals.tolist()
    anchor = intervals[0]
    marks = [False] * (len(intervals) - 1)
    for index, interval in enumerate(intervals[1:]):
        if -delta < interval - anchor < delta:
            marks[index] = True
        else:
            anchor = interval
    return np.array(marks, dtype=np.bool_)


def _relative(events: Events, compression: Compression) -> NDArray[np.bool_]:
    """The logarithm of the interval differs by less than delta from the previous one, so the time
    unit does not matter. Zero is similar to zero only."""
    with np.errstate(divide="ignore", invalid="ignore"):
        differences = np.abs(np.diff(np.log(events.intervals)))
    # NaN: both intervals are zero
    return np.where(np.isnan(differences), 0.0, differences) < compression.delta


def _hybrid(events: Events, compression: Compression) -> NDArray[np.bool_]:
    """Similar in time as in ``temporal``, with the type and the frame of the previous event, and
    with a text that shares enough tokens with the previous text."""
    marks = _temporal(events, compression)
    marks &= events.types[1:] == events.types[:-1]
    marks &= events.frames[1:] == events.frames[:-1]
    candidates = np.flatnonzero(marks) + 1
    similarity = _text_similarity(events, candidates)
    marks[candidates - 1] = similarity >= compression.min_text_similarity
    return marks


def _random_drop(events: Events, compression: Compression) -> NDArray[np.bool_]:
    """Every event is marked with the same probability: a control, to measure the benefit of marking
    by time."""
    draws = np.random.default_rng(compression.seed).random(len(events) - 1)
    return draws < compression.drop_fraction


STRATEGIES: dict[str, Callable[[Events, Compression], NDArray[np.bool_]]] = {
    "none": _none,
    "temporal": _temporal,
    "anchored": _anchored,
    "relative": _relative,
    "hybrid": _hybrid,
    "random_drop": _random_drop,
    RECENT_FULL: _none,  # windows add older events of one token each, ``with_older_events``
}
"""Functions from E events to (E - 1,) marks of all events but the first."""


def _text_similarity(events: Events, chosen: NDArray[np.int64]) -> NDArray[np.float64]:
    """(C,) Jaccard index of the distinct tokens of each chosen event and of its predecessor; 1 if
    both texts are empty."""
    scale = int(events.text_ids.max(initial=0)) + 1
    current = _distinct_tokens(events, chosen, scale)
    previous = _distinct_tokens(events, chosen - 1, scale)
    shared = np.intersect1d(current, previous, assume_unique=True)
    num_current, num_previous, num_shared = (
        np.bincount(keys // scale, minlength=len(chosen)) for keys in (current, previous, shared)
    )
    num_union = num_current + num_previous - num_shared
    return np.where(num_union == 0, 1.0, num_shared / np.maximum(num_union, 1))


def _distinct_tokens(events: Events, chosen: NDArray[np.int64], scale: int) -> NDArray[np.int64]:
    """Keys ``index * scale + token`` of the distinct tokens of each chosen event, sorted; ``index``
    counts the chosen events."""
    starts = events.text_offsets[chosen]
    lengths = events.text_offsets[chosen + 1] - starts
    index = np.repeat(np.arange(len(chosen)), lengths)
    within = np.arange(len(index)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.unique(index * scale + events.text_ids[starts[index] + within])
