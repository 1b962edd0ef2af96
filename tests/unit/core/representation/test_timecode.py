"""Byte codes of intervals, against struct and exact arithmetic on bit patterns."""

import struct
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mmtpp.core.representation.timecode import (
    MAX_INTERVAL,
    TIME_BYTES,
    bin_edges,
    decode_intervals,
    encode_intervals,
)

LARGEST = 0x7F7F7FFF  # bit pattern of MAX_INTERVAL
SUBNORMALS = st.integers(1, 0x7FFFFF)
NORMALS = st.integers(0x800000, LARGEST)
patterns = st.just(0) | SUBNORMALS | NORMALS | st.sampled_from([1, 0x7FFFFF, 0x800000, LARGEST])


def _float(pattern: int) -> float:
    return struct.unpack(">f", pattern.to_bytes(4, "big"))[0]


def _nearest(pattern: int, num_bytes: int) -> int:
    """The pattern rounded to its leading bytes, ties to even, in integers."""
    step = 256 ** (4 - num_bytes)
    quotient, remainder = divmod(pattern, step)
    rounds_up = 2 * remainder > step or (2 * remainder == step and quotient % 2)
    return quotient + bool(rounds_up)


@given(st.lists(patterns, min_size=1, max_size=50))
def test_four_bytes_are_those_of_struct_and_round_trip(bits: list[int]):
    values = [_float(pattern) for pattern in bits]
    codes = encode_intervals(np.array(values))
    assert codes.tolist() == [list(pattern.to_bytes(4, "big")) for pattern in bits]
    assert decode_intervals(codes).tolist() == values


@pytest.mark.parametrize("num_bytes", [2, 3])
@given(st.lists(patterns, min_size=1, max_size=50))
@example([0x3F808000, 0x3F818000, 0x3F80FFFF, 0x007FFFFF])  # ties to even, carries
def test_fewer_bytes_are_the_leading_ones_rounded_to_nearest(num_bytes: int, bits: list[int]):
    codes = encode_intervals(np.array([_float(pattern) for pattern in bits]), num_bytes=num_bytes)
    expected = [_nearest(pattern, num_bytes) for pattern in bits]
    assert codes.tolist() == [list(code.to_bytes(num_bytes, "big")) for code in expected]
    decoded = [_float(code << 8 * (4 - num_bytes)) for code in expected]
    assert decode_intervals(codes).tolist() == decoded


@given(st.integers(0, 2**32 - 1))
def test_every_bit_pattern_decodes_to_its_float(pattern: int):
    code = np.array([list(pattern.to_bytes(4, "big"))], dtype=np.uint8)
    (expected,) = struct.unpack(">f", pattern.to_bytes(4, "big"))
    actual = decode_intervals(code)[0]
    assert struct.pack(">f", actual) == struct.pack(">f", expected) or np.isnan(expected)


@pytest.mark.parametrize("num_bytes", TIME_BYTES)
@given(patterns)
def test_bins_tile_the_half_line_and_hold_their_values(num_bytes: int, pattern: int):
    value = _float(pattern)
    code = encode_intervals(np.array([value]), num_bytes=num_bytes)
    low, high = (float(edge[0]) for edge in bin_edges(code))
    assert low <= value <= high
    order = int.from_bytes(code.tobytes(), "big")
    trailing = 8 * (4 - num_bytes)
    middle = Fraction(_float(order << trailing))
    if order:
        below = Fraction(_float((order - 1) << trailing))
        assert Fraction(low) == (below + middle) / 2
    else:
        assert low == 0
    if (order + 1) << trailing < 0x7F800000:
        above = Fraction(_float((order + 1) << trailing))
        assert Fraction(high) == (middle + above) / 2


def test_a_two_byte_bin_is_at_most_a_128th_wide():
    low, high = bin_edges(encode_intervals(np.geomspace(1e-30, 1e30, 1000), num_bytes=2))
    assert ((high - low) / low < 1 / 127).all()
    assert ((high - low) / high > 1 / 257).all()


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf"), 1e39, -1e-45])
def test_invalid_intervals_are_refused(bad: float):
    with pytest.raises(ValueError, match="interval 1"):
        encode_intervals(np.array([1.0, bad]))


def test_minus_zero_is_zero_and_the_largest_interval_has_a_code_of_any_length():
    assert encode_intervals(np.array([-0.0])).tolist() == [[0, 0, 0, 0]]
    for num_bytes in TIME_BYTES:
        code = encode_intervals(np.array([MAX_INTERVAL]), num_bytes=num_bytes)
        assert np.isfinite(decode_intervals(code)).all()
    with pytest.raises(ValueError, match="interval 0"):
        encode_intervals(np.array([_float(LARGEST + 1)]))


def test_invalid_numbers_of_bytes_and_invalid_codes_are_refused():
    with pytest.raises(ValueError, match="2, 3 or 4 bytes"):
        encode_intervals(np.array([1.0]), num_bytes=1)
    with pytest.raises(ValueError, match="not that of an interval"):
        bin_edges(np.array([[0x7F, 0x80]], dtype=np.uint8))
