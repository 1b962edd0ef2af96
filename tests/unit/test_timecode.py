"""Byte codes of intervals, against struct."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmtpp.core.timecode import decode_intervals, encode_intervals


@given(st.lists(st.floats(min_value=0, allow_infinity=False, width=32), min_size=1, max_size=50))
def test_bytes_are_those_of_struct_and_round_trip(values: list[float]):
    codes = encode_intervals(np.array(values, dtype=np.float64))
    expected = [list(struct.pack(">f", value)) for value in values]
    assert expected == codes.tolist()
    assert values == decode_intervals(codes).tolist()


@given(st.integers(0, 2**32 - 1))
def test_every_bit_pattern_decodes_to_its_float(pattern: int):
    code = np.array([list(pattern.to_bytes(4, "big"))], dtype=np.uint8)
    (expected,) = struct.unpack(">f", pattern.to_bytes(4, "big"))
    actual = decode_intervals(code)[0]
    assert struct.pack(">f", expected) == struct.pack(">f", actual) or np.isnan(expected)


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf"), 1e39])
def test_what_no_interval_can_be_is_refused(bad: float):
    with pytest.raises(ValueError, match="interval 1"):
        encode_intervals(np.array([1.0, bad]))
