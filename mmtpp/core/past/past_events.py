"""The events of sequences that a memory reads, as columns.

Axes: E events.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.past.event_images import EventImages
from mmtpp.core.past.event_words import EventWords


@dataclass(frozen=True, slots=True)
class PastEvents:
    """Events of sequences, one sequence after the other.

    Attributes:
        times: (E,) float64 times in the source's unit, not decreasing within a sequence.
        types: (E,) codes of the types.
        text_lengths: (E,) lengths of the texts, in tokens.
        is_first: (E,) True where a sequence begins.
        words: Words of the texts; None if they are not read.
        images: Images of the events; None if they are not read.
    """

    times: NDArray[np.float64]
    types: NDArray[np.integer]
    text_lengths: NDArray[np.integer]
    is_first: NDArray[np.bool_]
    words: EventWords | None = None
    images: EventImages | None = None

    def __len__(self) -> int:
        return len(self.times)

    @classmethod
    def join(cls, sequences: Iterable["PastEvents"]) -> "PastEvents":
        """Sequences, or parts of one, one after the other.

        Raises:
            ValueError: The words or images of some sequences are read, and those of others are
                not.
        """
        parts = list(sequences)
        columns = [(part.times, part.types, part.text_lengths, part.is_first) for part in parts]
        words = [part.words for part in parts if part.words is not None]
        if len(words) not in (0, len(parts)):
            raise ValueError("the words of some of the sequences are not read")
        images = [part.images for part in parts if part.images is not None]
        if len(images) not in (0, len(parts)):
            raise ValueError("the images of some of the sequences are not read")
        return cls(
            *(np.concatenate(column) for column in zip(*columns, strict=True)),
            words=EventWords.join(words) if words else None,
            images=EventImages.join(images) if images else None,
        )

    @classmethod
    def from_sequence(
        cls,
        times: NDArray[np.float64],
        types: NDArray[np.integer],
        text_lengths: NDArray[np.integer],
        words: EventWords | None = None,
    ) -> "PastEvents":
        """One whole sequence."""
        return cls(times, types, text_lengths, np.arange(len(times)) == 0, words)

    def slice(self, start: int, end: int) -> "PastEvents":
        """The events from ``start`` to before ``end``."""
        return PastEvents(
            self.times[start:end],
            self.types[start:end],
            self.text_lengths[start:end],
            self.is_first[start:end],
            self.words.slice(start, end) if self.words is not None else None,
            self.images.take(slice(start, end)) if self.images is not None else None,
        )
