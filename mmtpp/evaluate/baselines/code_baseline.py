"""Baselines for likelihoods, counted on the training split: interval codes and types."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.events import MAX_TYPES
from mmtpp.core.representation.timecode import encode_intervals


@dataclass(slots=True)
class IntervalCodeBaseline:
    """The training distribution of interval codes, byte by byte, without any history.

    Each byte is predicted from the earlier bytes of the same code, by training counts. Witten-Bell
    smoothing with the uniform distribution makes the probabilities of all codes sum to 1 and gives
    an unseen interval a finite cost.

    Attributes:
        num_bytes: Number of bytes of a time code.
        prefixes: Count of each code prefix of 0 to ``num_bytes`` bytes.
        followers: Number of distinct bytes that follow each shorter prefix.
    """

    num_bytes: int
    prefixes: Counter[bytes] = field(default_factory=Counter)
    followers: Counter[bytes] = field(default_factory=Counter)

    def add(self, intervals: NDArray[np.float64]) -> None:
        """Count (E,) intervals, in the source's unit."""
        codes, counts = np.unique(self._encode(intervals), axis=0, return_counts=True)
        for code, count in zip(codes, counts.tolist(), strict=True):
            data = code.tobytes()
            for length in range(self.num_bytes + 1):
                if length and not self.prefixes[data[:length]]:
                    self.followers[data[: length - 1]] += 1
                self.prefixes[data[:length]] += count

    def nll(self, intervals: NDArray[np.float64]) -> NDArray[np.float64]:
        """(E,) nats of (E,) intervals, in the source's unit."""
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
class BaselineCounts:
    """Counts over the training split, from which the baselines predict.

    Attributes:
        interval_codes: Distribution of the interval codes.
        type_counts: (MAX_TYPES,) number of events of each type.
        num_events: Number of counted events.
    """

    interval_codes: IntervalCodeBaseline
    type_counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(MAX_TYPES, np.int64))
    num_events: int = 0

    def add(self, intervals: NDArray[np.float64], types: NDArray[np.int16]) -> None:
        """Count events that have a predecessor."""
        self.interval_codes.add(intervals)
        self.type_counts += np.bincount(types, minlength=MAX_TYPES)
        self.num_events += len(types)
