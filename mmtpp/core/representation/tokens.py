"""The output of a template (token ids with their modalities) and the token ids it needs."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class Modality(IntEnum):
    """Content of a token; losses are reported by modality. A ``MASKED`` token is never a label."""

    MASKED = 0
    TIME = 1
    TYPE = 2
    TEXT = 3
    CONTROL = 4


@dataclass(frozen=True, slots=True)
class TokenIds:
    """The token ids a template needs; ``model.vocabulary`` provides them.

    Attributes:
        byte_ids: Ids of ``<|byte_0|>`` to ``<|byte_255|>``.
        type_ids: Ids of the types: byte tokens, or the type tokens of a published adapter, which
            has fewer types.
        start_of_event, end_of_event, time_start, time_end, type_start, type_end, text_start,
            text_end, similar_event, time_prediction, type_prediction: Ids of the markers.
        vision_start, image_pad, vision_end: Ids of the backbone's image tokens.
        blank, line_break, prefix: Ids of the plain texts " ", line feed and "Event Sequence:" +
            line feed.
        chat_prefix: Ids of the system's turn and the start of the user's turn, up to "Event
            Sequence History:" + line feed. They precede the history in the published prompts.
        chat_turn: Ids of the end of the user's turn and the start of the assistant's turn.
        end_of_text: Id of the token that ends a published answer.
        weekdays: Ids of the plain texts "Mon" to "Sun", all of the same length.
        digits: Ids of the plain texts "0" to "9", all of the same length.
        colon: Ids of the plain text ":".
    """

    byte_ids: tuple[int, ...]
    type_ids: tuple[int, ...]
    start_of_event: int
    end_of_event: int
    time_start: int
    time_end: int
    type_start: int
    type_end: int
    text_start: int
    text_end: int
    similar_event: int
    time_prediction: int
    type_prediction: int
    vision_start: int
    image_pad: int
    vision_end: int
    blank: tuple[int, ...]
    line_break: tuple[int, ...]
    prefix: tuple[int, ...]
    chat_prefix: tuple[int, ...]
    chat_turn: tuple[int, ...]
    end_of_text: int
    weekdays: tuple[tuple[int, ...], ...]
    digits: tuple[tuple[int, ...], ...]
    colon: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Tokens:
    """A window of events as tokens.

    Attributes:
        ids: (T,) int32 token ids.
        modality: (T,) uint8, a ``Modality``.
        event: (T,) int32 index of the event within the window, not decreasing; -1 for the prefix.
            The tokens of a run of similar events belong to its last event.
        frames: (I,) int32, the frame of each group of ``image_tokens`` image pads, in order.
    """

    ids: NDArray[np.int32]
    modality: NDArray[np.uint8]
    event: NDArray[np.int32]
    frames: NDArray[np.int32]
