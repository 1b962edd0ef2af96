"""The events of sequences that a memory reads, as columns.

Axes: E events.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class PastEvents:
    """Events of sequences, one sequence after the other.

    Attributes:
        times: (E,) float64 times in the source's unit, not decreasing within a sequence.
        types: (E,) codes of the types.
        text_lengths: (E,) lengths of the texts, in tokens.
        is_first: (E,) True where a sequence begins.
    """

    times: NDArray[np.float64]
    types: NDArray[np.integer]
    text_lengths: NDArray[np.integer]
    is_first: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.times)

    @classmethod
    def join(cls, sequences: Iterable["PastEvents"]) -> "PastEvents":
        """Sequences, or parts of one, one after the other."""
        columns = [(s.times, s.types, s.text_lengths, s.is_first) for s in sequences]
        return cls(*(np.concatenate(parts) for parts in zip(*columns, strict=True)))

    @classmethod
    def from_sequence(
        cls,
        times: NDArray[np.float64],
        types: NDArray[np.integer],
        text_lengths: NDArray[np.integer],
    ) -> "PastEvents":
        """One whole sequence."""
        return cls(times, types, text_lengths, np.arange(len(times)) == 0)

    def slice(self, start: int, end: int) -> "PastEvents":
        """The events from ``start`` to before ``end``."""
        return PastEvents(
            self.times[start:end],
            self.types[start:end],
            self.text_lengths[start:end],
            self.is_first[start:end],
        )
