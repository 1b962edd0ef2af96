"""Intervals as bytes: the leading bytes of the IEEE-754 float32 of the waiting time, big-endian.

Four bytes are the published code. Three or two keep the leading bytes of the same float, rounded
to nearest: a relative error of at most 2^-16 or 2^-8, which for measured times is below the noise.
The codes of the non-negative floats are in the order of their values, so every code stands for one
bin of the half-line, and the bins tile it.
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
        intervals: (E,) in the source's time unit; finite, 0 to 3.39e38. Minus zero is zero.
        num_bytes: 4, 3 or 2; fewer than 4 round to nearest, ties to even.

    Returns:
        (E, num_bytes) uint8.

    Raises:
        ValueError: an interval is negative, not finite or too large, or another number of bytes.

    Source: MM-TPP, time tokens (after Language-TPP), which are the four bytes.
    """
    _check_num_bytes(num_bytes)
    with np.errstate(over="ignore", invalid="ignore"):
        singles = np.asarray(intervals).astype(np.float32)
        bad = ~((singles >= 0) & (singles <= MAX_INTERVAL))
    if bad.any():
        where = int(np.argmax(bad))
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
        codes: (E, 4), (E, 3) or (E, 2) uint8.

    Returns:
        (E,) float32 in the unit they were written in; any bit pattern decodes, so a code made by
        a model may be negative, infinite or NaN.
    """
    _check_num_bytes(codes.shape[1])
    whole = np.zeros((len(codes), MAX_BYTES), dtype=np.uint8)
    whole[:, : codes.shape[1]] = codes
    return whole.view(">f4").reshape(-1).astype(np.float32)


def bin_edges(codes: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The interval of values that are written as each code, to turn probabilities into densities.

    A bin reaches half-way to its neighbours' values; a value exactly on an edge belongs to the
    neighbour whose last bit is 0. With fewer than four bytes a value is rounded to a float32
    first, so edges are exact for float32 values.

    Args:
        codes: (E, 4), (E, 3) or (E, 2) uint8, of finite values that are not negative.

    Returns:
        low: (E,) float64; 0 for the code of zero.
        high: (E,) float64, above low; the low edge of the next code.

    Raises:
        ValueError: the code of a negative value, an infinity or NaN.
    """
    num_bytes = codes.shape[1]
    _check_num_bytes(num_bytes)
    place = np.uint64(256) ** np.arange(num_bytes - 1, -1, -1, dtype=np.uint64)
    order = (codes.astype(np.uint64) * place).sum(axis=1)
    infinity = 0x7F80 << 8 * (num_bytes - 2)
    if (order >= infinity).any():
        where = int(np.argmax(order >= infinity))
        raise ValueError(f"code {codes[where].tolist()} is not that of an interval")
    value = _value_of(order, num_bytes)
    below = _value_of(np.maximum(order, 1) - 1, num_bytes)
    # beyond the largest finite code the grid goes on as if the exponent did
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
