"""Older events: one token each, whose vector still holds time, type, text and image.

With ``compression.strategy = recent_full`` a window begins with older events. Each is one
similar-event token, to whose row the model adds what this module keeps, see
``model/older_vectors.py``. The recent events follow in full, in the style of the template.

Axes: S older events, B bytes of a time code, X text tokens.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.events import NO_FRAME, Events
from mmtpp.core.representation.soft_tokens import shorten_texts
from mmtpp.core.representation.template import Template
from mmtpp.core.representation.tokens import Tokens


@dataclass(frozen=True, slots=True)
class OlderEvents:
    """The content of the older events of a window or of a row.

    Attributes:
        at: (S,) int32 positions of their tokens, increasing.
        code_ids: (S, B + 1) int32 token ids of the time code and of the type.
        text_ids: (X,) int32 first and last tokens of every text.
        text_offsets: (S + 1,) int64 limits of the texts within ``text_ids``.
        frames: (S,) int32 image of each event, in the store or in the row; ``NO_FRAME`` for none.
    """

    at: NDArray[np.int32]
    code_ids: NDArray[np.int32]
    text_ids: NDArray[np.int32]
    text_offsets: NDArray[np.int64]
    frames: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.at)

    @classmethod
    def from_window(cls, template: Template, events: Events, tokens: Tokens) -> "OlderEvents":
        """Take the older events of a window.

        Args:
            template: Template of the window.
            events: Events of the window; those marked as similar are the older ones.
            tokens: Tokens of the window.
        """
        older = events.slice(0, int(events.similar.sum()))
        if not older.similar.all():
            raise ValueError("older events come before all events in full")
        text_ids, text_offsets = shorten_texts(older.text_ids, older.text_offsets)
        at = np.flatnonzero(tokens.ids == template.ids.similar_event)[: len(older)]
        frames = older.frames
        if template.settings.images == "none":
            frames = np.full(len(older), NO_FRAME)
        codes = [template.time_ids(older.intervals), template.encode_types(older.types)[:, None]]
        return cls(
            at.astype(np.int32),
            np.concatenate(codes, axis=1),
            text_ids,
            text_offsets,
            frames.astype(np.int32),
        )

    def with_frames(self, distinct: NDArray[np.int32]) -> "OlderEvents":
        """The events with the positions of their images in a sorted list of all distinct ones."""
        has_image = self.frames != NO_FRAME
        frames = np.where(has_image, np.searchsorted(distinct, self.frames), NO_FRAME)
        return replace(self, frames=frames.astype(np.int32))

    def within(self, tokens: NDArray[np.int64]) -> "OlderEvents":
        """The events of which a row with only some of the tokens still has the token.

        Args:
            tokens: Positions of the tokens that are left, increasing.
        """
        is_left = np.isin(self.at, tokens)
        lengths = np.diff(self.text_offsets)
        return OlderEvents(
            np.searchsorted(tokens, self.at[is_left]).astype(np.int32),
            self.code_ids[is_left],
            self.text_ids[np.repeat(is_left, lengths)],
            np.append(0, np.cumsum(lengths[is_left])),
            self.frames[is_left],
        )


def images_of(tokens: Tokens, older: OlderEvents | None) -> NDArray[np.int32]:
    """The images that a window needs: those that its tokens show, and those of older events."""
    if older is None:
        return tokens.frames
    return np.append(tokens.frames, older.frames[older.frames != NO_FRAME])
