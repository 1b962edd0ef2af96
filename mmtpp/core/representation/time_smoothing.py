"""Label smoothing of intervals: a label is spread over neighbouring time codes.

Tokens have no order: the model learns each of the 256 second bytes separately and from few events,
although neighbouring bytes mean nearly the same interval. With a kernel over the neighbours as the
label, instead of one token, every event trains the whole neighbourhood, as in a kernel density
estimate.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.representation.row import PackedRow
from mmtpp.core.representation.timecode import MAX_INTERVAL, bin_edges, encode_intervals
from mmtpp.core.representation.tokens import Modality

STEPS_PER_OCTAVE = 128  # steps of the second byte, in time codes of any length
_EDGE_TOLERANCE = 1e-6  # ticks
_LAST_FIRST_BYTE = int(encode_intervals(np.array([MAX_INTERVAL]))[0, 0]) - 1


class TimeSmoothing:
    """Spreads the labels of the second bytes of time codes.

    The second byte holds the lowest bit of the exponent and seven bits of the mantissa. An interval
    of zero keeps its label.

    Args:
        octaves: Standard deviation of the normal kernel, in octaves (factors of two) of the
            interval.
        tick: Tick of the clock that the times were read from (``core.times.clock``), in the
            source's unit. A code's weight is proportional to the number of ticks in it, so a code
            without ticks gets none. 0 if the times have no tick: weights are then proportional to
            the widths of the codes.
        num_bytes: Number of bytes of a time code.
        byte_ids: (256,) ids of the byte tokens.
    """

    def __init__(
        self, octaves: float, *, tick: float, num_bytes: int, byte_ids: Sequence[int]
    ) -> None:
        self._steps = octaves * STEPS_PER_OCTAVE
        self._tick, self._num_bytes = tick, num_bytes
        self.byte_ids = np.asarray(byte_ids, dtype=np.int64)
        self._byte_of_id = np.zeros(1 + self.byte_ids.max(), dtype=np.int64)
        self._byte_of_id[self.byte_ids] = np.arange(256)
        self._weights_of_first: dict[int, NDArray[np.float32]] = {}

    def __call__(self, row: PackedRow) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Choose the labels of a row that are spread, and compute their weights.

        Returns:
            chosen: (M,) indices into ``row.label_positions()``.
            weights: (M, 256) weights of the bytes; each row sums to 1.
        """
        labels = row.label_positions()
        chosen = np.flatnonzero(self._is_second_byte(row)[labels])
        positions = labels[chosen]
        first = self._byte_of_id[row.input_ids[positions - 1]]
        second = self._byte_of_id[row.input_ids[positions]]
        weights = np.empty((len(chosen), 256), dtype=np.float32)
        for byte in np.unique(first).tolist():
            has_byte = first == byte
            weights[has_byte] = self._weights(byte)[second[has_byte]]
        return chosen, weights

    def _is_second_byte(self, row: PackedRow) -> NDArray[np.bool_]:
        """(T,) True at the second byte of each time code."""
        is_time = row.modality == Modality.TIME
        continues = np.zeros(len(is_time), dtype=np.bool_)
        same = (row.event[1:] == row.event[:-1]) & (row.segment[1:] == row.segment[:-1])
        if row.branches is not None:
            same &= row.branches.branch[1:] == row.branches.branch[:-1]
        continues[1:] = is_time[1:] & is_time[:-1] & same
        position = np.arange(len(is_time))
        start = np.maximum.accumulate(np.where(continues, 0, position))
        return is_time & ((position - start) % self._num_bytes == 1)

    def _weights(self, first: int) -> NDArray[np.float32]:
        """(256, 256) weights of all second bytes for each true one, after a first byte."""
        if first not in self._weights_of_first:
            self._weights_of_first[first] = self._compute_weights(first)
        return self._weights_of_first[first]

    def _compute_weights(self, first: int) -> NDArray[np.float32]:
        if not 0 < first <= _LAST_FIRST_BYTE:
            return np.eye(256, dtype=np.float32)
        codes = np.zeros((256, 2), dtype=np.uint8)
        codes[:, 0], codes[:, 1] = first, np.arange(256)
        low, high = bin_edges(codes)
        if self._tick:
            low, high = (np.floor(edge / self._tick + _EDGE_TOLERANCE) for edge in (low, high))
        ticks = np.maximum(high - low, 0.0)
        distance = np.arange(256)[:, None] - np.arange(256)
        kernel = np.exp(-0.5 * (distance / self._steps) ** 2)
        # the label's own code always holds a tick, whatever the rounding
        label_ticks = np.maximum(ticks, 1.0) if self._tick else ticks
        weights = kernel * np.where(distance == 0, label_ticks, ticks)
        return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
