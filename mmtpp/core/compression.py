"""Which events are similar to their past and may be compressed into a similar-event token.

Every strategy marks events forward and from the past only, so the marks of a prefix are the prefix
of the marks: training and prediction compress alike.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.order import seed_from
from mmtpp.core.template import Events


@dataclass(frozen=True, slots=True)
class Compression:
    """A strategy and its thresholds.

    Attributes:
        strategy: a key of ``STRATEGIES``.
        delta: the paper's capital delta: in the source's time unit for ``temporal``, ``anchored``
            and ``hybrid``; a difference of natural logarithms for ``relative``; unused otherwise.
            0 marks nothing.
        min_text_similarity: ``hybrid`` only, 0 to 1: Jaccard index of the distinct tokens of two
            texts from which they count as similar.
        drop_fraction: ``random_drop`` only, 0 to below 1: chance of an event to be marked.
        seed: ``random_drop`` only.

    Raises:
        ValueError: an unknown strategy or a threshold out of range.
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

    def of_sequence(self, sequence_id: str) -> "Compression":
        """That of one sequence: what it draws at random depends on the sequence's name."""
        return replace(self, seed=seed_from("drop", self.seed, sequence_id) % 2**63)


def compress(events: Events, compression: Compression) -> Events:
    """The same events with their similar marks; see ``similar_events``."""
    return replace(events, similar=similar_events(events, compression))


def similar_events(events: Events, compression: Compression) -> NDArray[np.bool_]:
    """Mark the events that a strategy compresses.

    Args:
        events: E events; marks they already carry do not matter.
        compression: strategy and thresholds.

    Returns:
        (E,) True where the event is similar. Never True for the first event.

    Raises:
        ValueError: an interval is negative or not finite.

    Source: MM-TPP, adaptive temporal compression, for ``temporal``; strict "<" as in the authors'
        stage-1 script, which walks forward (their stage 2 walks backwards).
    """
    waits = events.intervals
    if not (np.isfinite(waits) & (waits >= 0)).all():
        raise ValueError("intervals must be finite and not negative")
    marks = np.zeros(len(waits), dtype=np.bool_)
    if len(waits) > 1:
        marks[1:] = STRATEGIES[compression.strategy](events, compression)
    return marks


def _none(events: Events, compression: Compression) -> NDArray[np.bool_]:
    """Nothing is similar."""
    return np.zeros(len(events) - 1, dtype=np.bool_)


def _temporal(events: Events, compression: Compression) -> NDArray[np.bool_]:
    """The interval differs by less than delta from that of the event directly before, marked or
    not. Chains are unbounded: a slow drift is never kept."""
    return np.abs(np.diff(events.intervals)) < compression.delta


def _anchored(events: Events, compression: Compression) -> NDArray[np.bool_]:
    """The interval differs by less than delta from that of the last event that was kept, so a run
    never drifts further than delta."""
    delta = compression.delta
    waits: list[float] = events.intervals.tolist()
    anchor = waits[0]
    marks = [False] * (len(waits) - 1)
    for index, wait in enumerate(waits[1:]):
        if -delta < wait - anchor < delta:
            marks[index] = True
        else:
            anchor = wait
    return np.array(marks, dtype=np.bool_)


def _relative(events: Events, compression: Compression) -> NDArray[np.bool_]:
    """The logarithm of the interval differs by less than delta from the one before: free of scale.
    Zero is similar to zero only."""
    with np.errstate(divide="ignore", invalid="ignore"):
        gaps = np.abs(np.diff(np.log(events.intervals)))
    return np.where(np.isnan(gaps), 0.0, gaps) < compression.delta  # NaN: both are zero


def _hybrid(events: Events, compression: Compression) -> NDArray[np.bool_]:
    """Similar in time as ``temporal``, of the same type, with the same frame, and with a text that
    shares enough of its tokens with the one before."""
    marks = _temporal(events, compression)
    marks &= events.types[1:] == events.types[:-1]
    marks &= events.frames[1:] == events.frames[:-1]
    candidates = np.flatnonzero(marks) + 1
    similarity = _text_similarity(events, candidates)
    marks[candidates - 1] = similarity >= compression.min_text_similarity
    return marks


def _random_drop(events: Events, compression: Compression) -> NDArray[np.bool_]:
    """Each event with the same chance: the control that shows what choosing by time is worth."""
    draws = np.random.default_rng(compression.seed).random(len(events) - 1)
    return draws < compression.drop_fraction


STRATEGIES: dict[str, Callable[[Events, Compression], NDArray[np.bool_]]] = {
    "none": _none,
    "temporal": _temporal,
    "anchored": _anchored,
    "relative": _relative,
    "hybrid": _hybrid,
    "random_drop": _random_drop,
}
"""From E events to (E - 1,) marks of all but the first."""


def _text_similarity(events: Events, chosen: NDArray[np.int64]) -> NDArray[np.float64]:
    """(C,) Jaccard index of each chosen event's distinct tokens and those of the event before it;
    1 when both are empty."""
    scale = int(events.text_ids.max(initial=0)) + 1
    own = _distinct_tokens(events, chosen, scale)
    before = _distinct_tokens(events, chosen - 1, scale)
    shared = np.intersect1d(own, before, assume_unique=True)
    sizes = [np.bincount(keys // scale, minlength=len(chosen)) for keys in (own, before, shared)]
    together = sizes[0] + sizes[1] - sizes[2]
    return np.where(together == 0, 1.0, sizes[2] / np.maximum(together, 1))


def _distinct_tokens(events: Events, chosen: NDArray[np.int64], scale: int) -> NDArray[np.int64]:
    """Keys ``place * scale + token`` of the distinct tokens of each chosen event, sorted."""
    starts = events.text_offsets[chosen]
    lengths = events.text_offsets[chosen + 1] - starts
    place = np.repeat(np.arange(len(chosen)), lengths)
    within = np.arange(len(place)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.unique(place * scale + events.text_ids[starts[place] + within])
