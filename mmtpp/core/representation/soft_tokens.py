"""Soft tokens: one token per event, whose vector holds memory, type, text and image.

A row of soft tokens has one token per event, and no other tokens. Every token but the first of a
segment is a label: the interval and the type of its event, given all tokens before.

Axes: T tokens, P columns of the memory, X text tokens.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.events import Events

FIRST_TOKENS, LAST_TOKENS = 16, 16
"""Number of tokens of a text that are read: the first and the last ones."""


@dataclass(frozen=True, slots=True)
class SoftTokens:
    """The content of the soft tokens of a window or of a row.

    Attributes:
        memory: (T, P) float32 memory after each event, ``core.past.event_memory``.
        intervals: (T,) float64 interval before each event, in the source's unit.
        text_ids: (X,) int32 first and last tokens of every text.
        text_offsets: (T + 1,) int64 limits of the texts within ``text_ids``.
        has_image: (T,) bool, True where the event shows the next image of the row.
    """

    memory: NDArray[np.float32]
    intervals: NDArray[np.float64]
    text_ids: NDArray[np.int32]
    text_offsets: NDArray[np.int64]
    has_image: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.intervals)

    @classmethod
    def from_events(
        cls, memory: NDArray[np.float32], events: Events, has_image: NDArray[np.bool_]
    ) -> "SoftTokens":
        """Build the soft tokens of events.

        Args:
            memory: (T, P) memory after each event.
            events: The T events.
            has_image: (T,) whether the event's image is shown.
        """
        text_ids, text_offsets = shorten_texts(events.text_ids, events.text_offsets)
        return cls(memory, events.intervals, text_ids, text_offsets, has_image)


def shorten_texts(
    text_ids: NDArray[np.int32], text_offsets: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Keep the first and the last tokens of every text.

    Args:
        text_ids: Ids of the tokens of all texts.
        text_offsets: (T + 1,) limits of the texts, from 0.

    Returns:
        The kept ids and their limits.
    """
    lengths = np.diff(text_offsets)
    place = np.arange(len(text_ids)) - np.repeat(text_offsets[:-1], lengths)
    is_kept = (place < FIRST_TOKENS) | (place >= np.repeat(lengths, lengths) - LAST_TOKENS)
    kept = np.minimum(lengths, FIRST_TOKENS + LAST_TOKENS)
    return text_ids[is_kept], np.append(0, np.cumsum(kept, dtype=np.int64))
