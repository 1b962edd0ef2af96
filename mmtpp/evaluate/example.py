"""One window of the report: its events, the compressed ones, and the model's attention."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DIFFICULTIES = {
    "easy": 0.05,
    "rather easy": 0.25,
    "typical": 0.5,
    "rather hard": 0.75,
    "hard": 0.95,
}
"""Quantiles of the mean NLL of a window's targets."""
MAX_EVENTS = 150  # number of events of a window that are shown, the newest ones


@dataclass(frozen=True, slots=True)
class Example:
    """The newest events of a window.

    Attributes:
        difficulty: A key of ``DIFFICULTIES``.
        sequence_id: Name of the window's sequence.
        start: Position of the first event within its sequence.
        times, intervals: (E,) times and intervals in the source's unit.
        types: (E,) codes of the types.
        texts: E texts, decoded by the tokenizer.
        similar: (E,) whether each event is compressed.
        frame: (E,) index into ``frames``, or ``core.events.NO_FRAME``.
        frames: JPEG files.
        attention: (E,) share of the attention that the question about the last event gives to the
            tokens of each event, averaged over heads and layers; NaN for the last event itself.
        attention_elsewhere: Share of all other tokens: the question itself, the beginning of the
            window, and the events before those shown.
        num_left_out: Number of distinct images that are not among ``frames``.
    """

    difficulty: str
    sequence_id: str
    start: int
    times: NDArray[np.float64]
    intervals: NDArray[np.float64]
    types: NDArray[np.int16]
    texts: tuple[str, ...]
    similar: NDArray[np.bool_]
    frame: NDArray[np.int32]
    frames: tuple[bytes, ...]
    attention: NDArray[np.float64]
    attention_elsewhere: float
    num_left_out: int
