"""Intervals as bytes: the big-endian IEEE-754 float32 of the waiting time, one symbol a byte."""

import numpy as np
from numpy.typing import NDArray

NUM_BYTES = 4


def encode_intervals(intervals: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Write each interval as the four bytes of its float32, most significant first.

    Args:
        intervals: (E,) in the source's time unit; finite, not negative, below 3.4e38.

    Returns:
        (E, 4) uint8.

    Raises:
        ValueError: an interval is negative, not finite, or too large for a float32.

    Source: MM-TPP, time tokens (after Language-TPP); round trip tested in
        tests/unit/test_timecode.py.
    """
    with np.errstate(over="ignore"):
        singles = np.asarray(intervals).astype(">f4")
    bad = ~np.isfinite(singles) | (singles < 0)
    if bad.any():
        where = int(np.argmax(bad))
        raise ValueError(
            f"interval {where} is {intervals[where]!r}; it must be finite and not negative"
        )
    return singles.view(np.uint8).reshape(-1, NUM_BYTES)


def decode_intervals(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Read intervals back: the exact inverse of ``encode_intervals`` for float32 values.

    Args:
        codes: (E, 4) uint8.

    Returns:
        (E,) float32 in the unit they were written in; any bit pattern decodes, so a code made by
        a model may be negative, infinite or NaN.
    """
    return np.ascontiguousarray(codes, dtype=np.uint8).view(">f4").reshape(-1).astype(np.float32)
