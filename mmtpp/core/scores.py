"""Scores of held-out events, computed once from a table with one row an event."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.tokens import Modality

MODALITY_NAMES = {
    Modality.TIME: "time",
    Modality.TYPE: "type",
    Modality.TEXT: "text",
    Modality.CONTROL: "control",
}


@dataclass(frozen=True, slots=True)
class LossSums:
    """Summed negative log-likelihood and label counts by modality; merge by adding.

    Attributes:
        nll: (5,) nats, indexed by ``Modality``.
        tokens: (5,) labels, indexed by ``Modality``.
    """

    nll: NDArray[np.float64]
    tokens: NDArray[np.float64]

    @classmethod
    def of(cls, nll: NDArray[np.floating], modality: NDArray[np.integer]) -> "LossSums":
        """Sums over (N,) labels."""
        size = len(Modality)
        sums = np.bincount(modality, weights=nll, minlength=size)
        counts = np.bincount(modality, minlength=size)
        return cls(sums.astype(np.float64), counts.astype(np.float64))

    def __add__(self, other: "LossSums") -> "LossSums":
        return LossSums(self.nll + other.nll, self.tokens + other.tokens)

    def per_token(self, prefix: str) -> dict[str, float]:
        """``{prefix}/loss_per_token`` over all labels and by modality, in nats."""
        metrics = {f"{prefix}/loss_per_token": float(self.nll.sum() / self.tokens.sum())}
        for modality, name in MODALITY_NAMES.items():
            if self.tokens[modality]:
                metrics[f"{prefix}/{name}_loss_per_token"] = float(
                    self.nll[modality] / self.tokens[modality]
                )
        return metrics


@dataclass(frozen=True, slots=True)
class EventScores:
    """What a model says of the events of one window, E of them scored.

    Attributes:
        event: (E,) index of the event within the window.
        interval_nll: (E,) nats: minus the log-probability of writing this event in full with this
            interval code, every token up to the last time byte included, and with it the
            decision that no image and no similar-event token comes first. So it is never below
            the exact cost of the interval, and comparable between compression thresholds.
        type_nll: (E,) nats of the type byte given the interval.
        predicted_type: (E,) the most likely of the valid types, as an index into them.
        text_nll: (E,) nats of all text tokens.
        nll: (E,) nats of all that is written of the event: the three above, and the marks between.
    """

    event: NDArray[np.int64]
    interval_nll: NDArray[np.float64]
    type_nll: NDArray[np.float64]
    predicted_type: NDArray[np.int64]
    text_nll: NDArray[np.float64]
    nll: NDArray[np.float64]


def score_events(
    nll: NDArray[np.floating],
    modality: NDArray[np.integer],
    event: NDArray[np.integer],
    best_type: NDArray[np.integer],
) -> EventScores:
    """Gather label scores by event.

    Args:
        nll: (N,) nats of each label, in token order.
        modality: (N,) of each label.
        event: (N,) the event each label belongs to, not decreasing.
        best_type: (N,) the most likely valid type at each label; read at TYPE labels only.

    Returns:
        Scores of the events that have a type label, that is, of the events written in full.
    """
    is_type = modality == Modality.TYPE
    events = event[is_type].astype(np.int64)
    if len(events) == 0:
        empty = np.zeros(0)
        return EventScores(events, empty, empty, events, empty, empty)
    slot = np.searchsorted(events, event)
    slot = np.minimum(slot, len(events) - 1)
    belongs = events[slot] == event  # labels of similar events belong to none
    last_time = np.full(len(events), -1)
    times = belongs & (modality == Modality.TIME)
    np.maximum.at(last_time, slot[times], np.flatnonzero(times))
    opening = belongs & (np.arange(len(nll)) <= last_time[slot])
    text = belongs & (modality == Modality.TEXT)

    def total(where: NDArray[np.bool_]) -> NDArray[np.float64]:
        sums = np.bincount(slot[where], weights=nll[where], minlength=len(events))
        return sums.astype(np.float64)

    return EventScores(
        events,
        total(opening),
        total(is_type),
        best_type[is_type].astype(np.int64),
        total(text),
        total(belongs),
    )
