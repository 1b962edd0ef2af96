"""Rows of one window."""

import numpy as np

from mmtpp.core.representation.row import Row
from mmtpp.core.representation.tokens import Modality, Tokens


def test_images_of_a_window_are_counted_from_zero():
    """Frames 2 and 5 of a sequence are shown, frame 5 twice."""
    shown = np.array([5, 2, 5], dtype=np.int32)
    tokens = Tokens(
        ids=np.arange(6, dtype=np.int32),
        modality=np.full(6, Modality.TEXT, dtype=np.uint8),
        event=np.array([-1, 0, 0, 1, 1, 1], dtype=np.int32),
        frames=shown,
    )
    pixels = {frame: np.full((28, 28, 3), frame, dtype=np.uint8) for frame in (2, 5)}
    row = Row.from_window(tokens, np.array([3, 4], np.int16), np.array(list(pixels.values())))
    for frame, index in zip(shown.tolist(), row.image_frame.tolist(), strict=True):
        np.testing.assert_array_equal(row.frames[index], pixels[frame])
    assert row.segment.tolist() == [0] * 6
    assert row.is_label.tolist() == [False] * 6
    assert row.event_is_target.tolist() == [False] * 2
