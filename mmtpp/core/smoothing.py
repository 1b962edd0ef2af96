"""Labels of intervals spread to their neighbours among the time codes.

Tokens know no order: of 256 second bytes each is learnt by itself, from few events, although nearby
ones mean nearly the same interval. A label that is a kernel over its neighbours, instead of one
token, lets every event teach the whole neighbourhood, as a kernel density does a histogram.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.row import Row
from mmtpp.core.timecode import MAX_INTERVAL, bin_edges, encode_intervals
from mmtpp.core.tokens import Modality

STEPS_PER_OCTAVE = 128  # of the second byte, in time codes of any length
_ON_EDGE = 1e-6  # of a tick
_LAST_FIRST_BYTE = int(encode_intervals(np.array([MAX_INTERVAL]))[0, 0]) - 1


class TimeSmoothing:
    """Spreads labels of second bytes of time codes, which hold the lowest bit of the exponent and
    seven of the mantissa; an interval of zero keeps its label.

    Args:
        octaves: standard deviation of the normal kernel, in factors of two of the interval.
        tick: of the clock that the times were read from (``core.clock``), in the source's unit:
            codes that hold no whole number of ticks get nothing, the others in proportion to
            theirs. 0 where the times have no tick: codes weigh in proportion to their widths.
        num_bytes: of a time code.
        byte_ids: (256,) ids of the byte tokens.
    """

    def __init__(
        self, octaves: float, *, tick: float, num_bytes: int, byte_ids: Sequence[int]
    ) -> None:
        self._steps = octaves * STEPS_PER_OCTAVE
        self._tick, self._num_bytes = tick, num_bytes
        self.byte_ids = np.asarray(byte_ids, dtype=np.int64)
        self._byte_of = np.zeros(1 + self.byte_ids.max(), dtype=np.int64)
        self._byte_of[self.byte_ids] = np.arange(256)
        self._of_first: dict[int, NDArray[np.float32]] = {}

    def __call__(self, row: Row) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Which labels of a row are spread, and over what.

        Returns:
            chosen: (M,) indices into ``row.label_positions()``.
            weights: (M, 256) of the bytes; each row sums to 1.
        """
        labels = row.label_positions()
        chosen = np.flatnonzero(self._is_second_byte(row)[labels])
        places = labels[chosen]
        first, second = (self._byte_of[row.input_ids[each]] for each in (places - 1, places))
        weights = np.empty((len(chosen), 256), dtype=np.float32)
        for byte in np.unique(first).tolist():
            of_byte = first == byte
            weights[of_byte] = self._weights(byte)[second[of_byte]]
        return chosen, weights

    def _is_second_byte(self, row: Row) -> NDArray[np.bool_]:
        """(T,) within each code of bytes in a row of time tokens."""
        is_time = row.modality == Modality.TIME
        goes_on = np.zeros(len(is_time), dtype=np.bool_)
        same = (row.event[1:] == row.event[:-1]) & (row.segment[1:] == row.segment[:-1])
        if row.branches is not None:
            same &= row.branches.branch[1:] == row.branches.branch[:-1]
        goes_on[1:] = is_time[1:] & is_time[:-1] & same
        place = np.arange(len(is_time))
        start = np.maximum.accumulate(np.where(goes_on, 0, place))
        return is_time & ((place - start) % self._num_bytes == 1)

    def _weights(self, first: int) -> NDArray[np.float32]:
        """(256, 256) of the bytes that may follow the first, for each that does."""
        if first not in self._of_first:
            self._of_first[first] = self._spread(first)
        return self._of_first[first]

    def _spread(self, first: int) -> NDArray[np.float32]:
        if not 0 < first <= _LAST_FIRST_BYTE:
            return np.eye(256, dtype=np.float32)
        codes = np.zeros((256, 2), dtype=np.uint8)
        codes[:, 0], codes[:, 1] = first, np.arange(256)
        low, high = bin_edges(codes)
        if self._tick:
            low, high = (np.floor(edge / self._tick + _ON_EDGE) for edge in (low, high))
        ticks = np.maximum(high - low, 0.0)
        apart = np.arange(256)[:, None] - np.arange(256)
        kernel = np.exp(-0.5 * (apart / self._steps) ** 2)
        # the label's own code holds a tick, whatever rounding says
        own = np.maximum(ticks, 1.0) if self._tick else ticks
        weights = kernel * np.where(apart == 0, own, ticks)
        return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
