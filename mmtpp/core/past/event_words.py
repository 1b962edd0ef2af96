"""The words of events' texts: the first and last tokens of each text, as rows of a small table.

Axes: E events, W words of all events.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FIRST_WORDS, LAST_WORDS = 16, 16
MAX_WORDS = FIRST_WORDS + LAST_WORDS
"""Number of words that are kept of a text: the first and the last ones."""
MAX_WORD_ROWS = 4096
"""Number of rows of the table. Larger vocabularies share rows, so their size costs nothing."""
NO_WORD = 0


@dataclass(frozen=True, slots=True)
class TextSettings:
    """What is read of the texts.

    Attributes:
        has_lengths: Whether the numbers of tokens are read; if not, they are 0.
        num_words: Number of rows of the table of words, 1 to ``MAX_WORD_ROWS``; 0 if words are not
            read.
    """

    has_lengths: bool
    num_words: int = 0


@dataclass(frozen=True, slots=True)
class EventWords:
    """Words of the texts of consecutive events.

    Attributes:
        rows: (W,) rows of the table, 1 to ``num_words``; ``NO_WORD`` is no word.
        offsets: (E + 1,) index of the first word of each event.
    """

    rows: NDArray[np.int16]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @classmethod
    def from_tokens(
        cls, token_ids: NDArray[np.integer], offsets: NDArray[np.integer], num_words: int
    ) -> "EventWords":
        """Keep the first and the last tokens of each text.

        Args:
            token_ids: Ids of the tokens of all texts.
            offsets: (E + 1,) index of the first token of each text; the first one is 0.
            num_words: Number of rows of the table. An id has the row ``id % num_words + 1``.
        """
        lengths = np.diff(offsets)
        place = np.arange(len(token_ids)) - np.repeat(offsets[:-1], lengths)
        is_kept = (place < FIRST_WORDS) | (place >= np.repeat(lengths, lengths) - LAST_WORDS)
        rows = (token_ids[is_kept] % num_words + 1).astype(np.int16)
        return cls(rows, _offsets(np.minimum(lengths, MAX_WORDS)))

    @classmethod
    def join(cls, parts: Iterable["EventWords"]) -> "EventWords":
        """The words of events, one part after the other."""
        rows, lengths = zip(*((part.rows, np.diff(part.offsets)) for part in parts), strict=True)
        return cls(np.concatenate(rows), _offsets(np.concatenate(lengths)))

    def slice(self, start: int, end: int) -> "EventWords":
        """The words of the events from ``start`` to before ``end``."""
        offsets = self.offsets[slice(start, end + 1)]
        return EventWords(self.rows[offsets[0] : offsets[-1]], offsets - offsets[0])

    def padded(self, events: NDArray[np.integer]) -> NDArray[np.int16]:
        """(N, MAX_WORDS) words of some events, followed by ``NO_WORD``.

        Args:
            events: (N,) indices of the events.
        """
        starts, ends = self.offsets[events], self.offsets[events + 1]
        places = starts[:, None] + np.arange(MAX_WORDS)
        padded = np.full(places.shape, NO_WORD, dtype=np.int16)
        is_word = places < ends[:, None]
        padded[is_word] = self.rows[places[is_word]]
        return padded


def _offsets(lengths: NDArray[np.integer]) -> NDArray[np.int64]:
    return np.append(0, np.cumsum(lengths, dtype=np.int64))
