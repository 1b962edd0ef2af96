"""Labels of intervals, spread over neighbouring time codes."""

import numpy as np
import pytest

from mmtpp.core.representation.row import PackedRow
from mmtpp.core.representation.time_smoothing import TimeSmoothing
from mmtpp.core.representation.timecode import decode_intervals, encode_intervals
from mmtpp.core.representation.tokens import Modality

BASE = 1000
BYTES = range(BASE, BASE + 256)


def _row(intervals: list[float], *, num_bytes: int) -> PackedRow:
    """Events with a marker, a time code and a type; every token is a label."""
    codes = encode_intervals(np.array(intervals), num_bytes=num_bytes)
    ids, modality, event = [7], [Modality.CONTROL], [-1]
    for index, code in enumerate(codes):
        ids += [8, *(BASE + code.astype(int)).tolist(), BASE + 3]
        modality += [Modality.CONTROL, *[Modality.TIME] * num_bytes, Modality.TYPE]
        event += [index] * (num_bytes + 2)
    size = len(ids)
    return PackedRow(
        sample_id=0,
        input_ids=np.array(ids, dtype=np.int32),
        modality=np.array(modality, dtype=np.uint8),
        segment=np.zeros(size, dtype=np.int32),
        event=np.array(event, dtype=np.int32),
        may_be_label=np.ones(size, dtype=np.bool_),
        frames=np.zeros((0, 56, 56, 3), dtype=np.uint8),
        image_frame=np.zeros(0, dtype=np.int32),
        event_type=np.zeros(len(intervals), dtype=np.int16),
        event_is_target=np.ones(len(intervals), dtype=np.bool_),
    )


@pytest.mark.parametrize("num_bytes", [2, 3, 4])
def test_the_second_byte_of_every_code_is_spread_and_nothing_else(num_bytes):
    row = _row([1.5, 40.0, 0.0], num_bytes=num_bytes)
    smoothing = TimeSmoothing(0.125, tick=1e-9, num_bytes=num_bytes, byte_ids=BYTES)
    chosen, weights = smoothing(row)
    size = num_bytes + 2
    assert chosen.tolist() == [1 + 1 + index * size for index in range(3)]
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=1e-6)
    codes = encode_intervals(np.array([1.5, 40.0]), num_bytes=2)
    assert weights[:2].argmax(axis=1).tolist() == codes[:, 1].tolist()
    assert weights[2, 0] == 1.0  # an interval of zero keeps its label


def test_the_kernel_is_normal_in_octaves():
    """For continuous times half of the weight lies within 0.674 standard deviations."""
    middle = encode_intervals(np.array([1.5]), num_bytes=2)[0]  # middle of the octave from 1 to 2
    smoothing = TimeSmoothing(0.125, tick=1e-9, num_bytes=2, byte_ids=BYTES)
    _, (weights,) = smoothing(_row([1.5], num_bytes=2))
    steps = np.abs(np.arange(256) - int(middle[1]))
    assert weights[steps <= 16 * 0.6745].sum() == pytest.approx(0.5, abs=0.04)
    assert weights[steps <= 16 * 1.96].sum() == pytest.approx(0.95, abs=0.01)


def test_only_codes_that_hold_a_tick_get_weight():
    """Minutes: between 8 and 16 a step is 1/16 minute, so one in 16 codes is a whole number."""
    smoothing = TimeSmoothing(0.125, tick=1.0, num_bytes=2, byte_ids=BYTES)
    _, weights = smoothing(_row([11.0, 300.0], num_bytes=2))
    first = int(encode_intervals(np.array([11.0]), num_bytes=2)[0, 0])
    codes = np.stack([np.full(256, first), np.arange(256)], axis=1).astype(np.uint8)
    values = decode_intervals(codes)
    possible = values[weights[0] > 0]
    np.testing.assert_array_equal(possible, np.rint(possible))
    # the kernel's weight one tick away: 16 steps, one standard deviation
    by_value = dict(zip(values.tolist(), weights[0].tolist(), strict=True))
    assert by_value[12.0] / by_value[11.0] == pytest.approx(np.exp(-0.5), rel=1e-5)
    assert (weights[1] > 0).sum() > 50  # from 256 on every code is a whole number
