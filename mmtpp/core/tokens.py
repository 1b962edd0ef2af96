"""What a template makes: token ids, a modality for each, and the ids it makes them from."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class Modality(IntEnum):
    """What a token carries; the loss is reported by it. ``MASKED`` tokens are never labels."""

    MASKED = 0
    TIME = 1
    TYPE = 2
    TEXT = 3
    CONTROL = 4


@dataclass(frozen=True, slots=True)
class TokenIds:
    """The token ids a template needs; ``model.vocabulary`` provides them.

    Attributes:
        byte_ids: ids of ``<|byte_0|>`` to ``<|byte_255|>``.
        type_ids: id of each type: byte tokens, or the type tokens of a published adapter, which
            has fewer.
        start_of_event, end_of_event, time_start, time_end, type_start, type_end, text_start,
            text_end, similar_event, time_prediction, type_prediction: the markers.
        vision_start, image_pad, vision_end: the backbone's own image tokens.
        blank, line_break, prefix: plain text " ", line feed and "Event Sequence:" + line feed,
            as token ids.
        chat_prefix: the system's turn and the start of the user's, up to "Event Sequence History:"
            + line feed; before the history in the published prompts.
        chat_turn: the end of the user's turn and the start of the assistant's.
        end_of_text: the token that ends a published answer.
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


@dataclass(frozen=True, slots=True)
class Tokens:
    """A window of events as tokens.

    Attributes:
        ids: (T,) int32.
        modality: (T,) uint8, a ``Modality``.
        event: (T,) int32 index of the event within the window, not decreasing; -1 for the prefix.
            The tokens of a run belong to its last event.
        frames: (I,) int32, the frame behind each run of ``image_tokens`` image pads, in order.
    """

    ids: NDArray[np.int32]
    modality: NDArray[np.uint8]
    event: NDArray[np.int32]
    frames: NDArray[np.int32]
