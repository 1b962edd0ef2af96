"""Intervals as bytes: the leading bytes of the IEEE-754 float32 of the interval, big-endian.

Four bytes are the published code. Three or two bytes keep the leading bytes of the same float,
rounded to nearest, with a relative error of at most 2^-16 or 2^-8; measured times have more noise.
Codes of non-negative floats are ordered like their values, so every code is one bin of the
half-line, and the bins tile the half-line.
"""

import numpy as np
from numpy.typing import NDArray

MAX_BYTES = 4
TIME_BYTES = (2, 3, 4)
# The largest float32 that every code rounds to a finite value: 0x7F7F7FFF.
MAX_INTERVAL = float(np.uint32(0x7F7F7FFF).view(np.float32))


def encode_intervals(
    intervals: NDArray[np.floating], *, num_bytes: int = MAX_BYTES
) -> NDArray[np.uint8]:
    """Write each interval as the leading bytes of its float32, most significant first.

    Args:
        intervals: (E,) intervals in the source's time unit; finite, 0 to 3.39e38. Minus zero is
            encoded as zero.
        num_bytes: Number of bytes: 4, 3 or 2; fewer than 4 are rounded to nearest, ties to even.

    Returns:
        (E, num_bytes) uint8.

    Raises:
        ValueError: An interval is negative, not finite or too large, or ``num_bytes`` is none of
            4, 3 and 2.

    Source: MM-TPP, time tokens (after Language-TPP), with four bytes.
    """
    _check_num_bytes(num_bytes)
    with np.errstate(over="ignore", invalid="ignore"):
        singles = np.asarray(intervals).astype(np.float32)
        is_invalid = ~((singles >= 0) & (singles <= MAX_INTERVAL))
    if is_invalid.any():
        where = int(np.argmax(is_invalid))
        raise ValueError(
            f"interval {where} is {intervals[where]!r}; it must be finite, not negative and at "
            f"most {MAX_INTERVAL:.3g}"
        )
    singles += np.float32(0)  # minus zero becomes zero
    bits = singles.view(np.uint32)
    if num_bytes < MAX_BYTES:
        dropped = 8 * (MAX_BYTES - num_bytes)
        half = np.uint32((1 << (dropped - 1)) - 1)
        bits = bits + (half + ((bits >> np.uint32(dropped)) & np.uint32(1)))
    return bits.astype(">u4").view(np.uint8).reshape(-1, MAX_BYTES)[:, :num_bytes]


def decode_intervals(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Read intervals back; the exact inverse for floats whose trailing bytes are zero.

    Args:
        codes: (E, 4), (E, 3) or (E, 2) uint8 time codes.

    Returns:
        (E,) float32 in the unit of the encoded intervals. Every bit pattern decodes, so a code that
        a model generated may be negative, infinite or NaN.
    """
    _check_num_bytes(codes.shape[1])
    whole = np.zeros((len(codes), MAX_BYTES), dtype=np.uint8)
    whole[:, : codes.shape[1]] = codes
    return whole.view(">f4").reshape(-1).astype(np.float32)


def bin_edges(codes: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The range of values with each code, which turns a probability into a density.

    A bin reaches half-way to its neighbours' values; a value exactly on an edge belongs to the
    neighbour whose last bit is 0. With fewer than four bytes a value is rounded to a float32
    first, so edges are exact for float32 values.

    Args:
        codes: (E, 4), (E, 3) or (E, 2) uint8 codes of finite values that are not negative.

    Returns:
        low: (E,) float64, low edges; 0 for the code of zero.
        high: (E,) float64, high edges, above low; also the low edge of the next code.

    Raises:
        ValueError: A code stands for a negative value, an infinity or NaN.
    """
    num_bytes = codes.shape[1]
    _check_num_bytes(num_bytes)
    weights = np.uint64(256) ** np.arange(num_bytes - 1, -1, -1, dtype=np.uint64)
    order = (codes.astype(np.uint64) * weights).sum(axis=1)
    infinity = 0x7F80 << 8 * (num_bytes - 2)
    if (order >= infinity).any():
        where = int(np.argmax(order >= infinity))
        raise ValueError(f"code {codes[where].tolist()} is not that of an interval")
    value = _value_of(order, num_bytes)
    below = _value_of(np.maximum(order, 1) - 1, num_bytes)
    # the bin of the largest finite code ends as if a larger exponent existed
    above = np.where(
        order + 1 < infinity,
        _value_of(np.minimum(order + 1, infinity - 1), num_bytes),
        2 * value - below,
    )
    return (below + value) / 2, (value + above) / 2


def _value_of(order: NDArray[np.uint64], num_bytes: int) -> NDArray[np.float64]:
    bits = (order << np.uint64(8 * (MAX_BYTES - num_bytes))).astype(np.uint32)
    return bits.view(np.float32).astype(np.float64)


def _check_num_bytes(num_bytes: int) -> None:
    if num_bytes not in TIME_BYTES:
        raise ValueError(f"a time code has 2, 3 or 4 bytes, not {num_bytes}")
