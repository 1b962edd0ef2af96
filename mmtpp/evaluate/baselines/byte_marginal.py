"""Baselines that any model must beat, from the training split and the same events."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.timecode import encode_intervals


@dataclass(slots=True)
class ByteMarginal:
    """The training distribution of interval codes, byte by byte, without any history.

    Each byte is predicted from the bytes before it within the same code by its training counts,
    smoothed with the uniform distribution in Witten-Bell's manner, so that the probabilities of
    all codes sum to 1 and an unseen interval has a finite cost.

    Attributes:
        num_bytes: of the time code.
        prefixes: count of each code prefix of 0 to ``num_bytes`` bytes.
        followers: number of distinct bytes seen after each shorter prefix.
    """

    num_bytes: int
    prefixes: Counter[bytes] = field(default_factory=Counter)
    followers: Counter[bytes] = field(default_factory=Counter)

    def add(self, intervals: NDArray[np.float64]) -> None:
        """Count intervals, in the source's unit."""
        codes, counts = np.unique(self._encode(intervals), axis=0, return_counts=True)
        for code, count in zip(codes, counts.tolist(), strict=True):
            data = code.tobytes()
            for length in range(self.num_bytes + 1):
                if length and not self.prefixes[data[:length]]:
                    self.followers[data[: length - 1]] += 1
                self.prefixes[data[:length]] += count

    def nll(self, intervals: NDArray[np.float64]) -> NDArray[np.float64]:
        """(E,) nats of each interval."""
        codes, inverse = np.unique(self._encode(intervals), axis=0, return_inverse=True)
        values = np.array([self._nll(code.tobytes()) for code in codes])
        return values[inverse.ravel()]

    def _encode(self, intervals: NDArray[np.float64]) -> NDArray[np.uint8]:
        return encode_intervals(intervals, num_bytes=self.num_bytes)

    def _nll(self, code: bytes) -> float:
        total = 0.0
        for length in range(self.num_bytes):
            seen, distinct = self.prefixes[code[:length]], self.followers[code[:length]]
            novel = max(1, distinct)
            count = self.prefixes[code[: length + 1]]
            total -= np.log((count + novel / 256) / (seen + novel))
        return float(total)


@dataclass(slots=True)
class TrainingStatistics:
    """What the baselines know of the training split.

    Attributes:
        marginal: of the interval codes.
        type_counts: (256,) events of each type.
        num_events: counted.
    """

    marginal: ByteMarginal
    type_counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))
    num_events: int = 0

    def add(self, intervals: NDArray[np.float64], types: NDArray[np.int16]) -> None:
        """Count events that have a predecessor."""
        self.marginal.add(intervals)
        self.type_counts += np.bincount(types, minlength=256)
        self.num_events += len(types)
