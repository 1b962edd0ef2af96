"""Scores of events: the losses of labels, summed by event."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.representation.tokens import Modality


@dataclass(frozen=True, slots=True)
class EventScores:
    """Scores of the E events of a window that are written in full.

    Attributes:
        event: (E,) index of the event within the window.
        interval_code_nll: (E,) nats of every token of the event up to the last byte of its time
            code. They include the decision that neither an image nor a similar-event token comes
            first. So the value is never below the exact cost of the interval, and it is comparable
            between compression thresholds.
        type_nll: (E,) nats of the type byte given the interval.
        predicted_type: (E,) most likely valid type, as an index into the valid types.
        text_nll: (E,) nats of all text tokens.
        nll: (E,) nats of all tokens of the event: interval, type, text and the markers.
    """

    event: NDArray[np.int64]
    interval_code_nll: NDArray[np.float64]
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
    """Sum the losses of labels by event.

    Args:
        nll: (N,) nats of the labels, in token order.
        modality: (N,) modality of the labels.
        event: (N,) event that the label belongs to, not decreasing.
        best_type: (N,) most likely valid type at the label; only read at TYPE labels.

    Returns:
        Scores of the events with a type label. These are the events written in full.
    """
    is_type = modality == Modality.TYPE
    events = event[is_type].astype(np.int64)
    if len(events) == 0:
        empty = np.zeros(0)
        return EventScores(events, empty, empty, events, empty, empty)
    slot = np.searchsorted(events, event)
    slot = np.minimum(slot, len(events) - 1)
    belongs = events[slot] == event  # False at labels of similar events
    last_time = np.full(len(events), -1)
    is_time = belongs & (modality == Modality.TIME)
    np.maximum.at(last_time, slot[is_time], np.flatnonzero(is_time))
    is_interval = belongs & (np.arange(len(nll)) <= last_time[slot])
    is_text = belongs & (modality == Modality.TEXT)

    def total(where: NDArray[np.bool_]) -> NDArray[np.float64]:
        sums = np.bincount(slot[where], weights=nll[where], minlength=len(events))
        return sums.astype(np.float64)

    return EventScores(
        event=events,
        interval_code_nll=total(is_interval),
        type_nll=total(is_type),
        predicted_type=best_type[is_type].astype(np.int64),
        text_nll=total(is_text),
        nll=total(belongs),
    )
