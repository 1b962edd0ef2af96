"""Rows of one window, and the token that predicts each token."""

import inspect
import re

import numpy as np

from mmtpp.core.representation.row import HISTORY, Branches, PackedRow
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
    row = PackedRow.from_window(tokens, np.array([3, 4], np.int16), np.array(list(pixels.values())))
    for frame, index in zip(shown.tolist(), row.image_frame.tolist(), strict=True):
        np.testing.assert_array_equal(row.frames[index], pixels[frame])
    assert row.segment.tolist() == [0] * 6
    assert row.may_be_label.tolist() == [False] * 6
    assert row.event_is_target.tolist() == [False] * 2


def test_the_example_of_predecessors_is_right():
    """The table in the docstring of ``PackedRow.predecessors``."""
    text = (inspect.getdoc(PackedRow.predecessors) or "").replace("HISTORY", "H")
    table = {
        name: np.array([HISTORY if value == "H" else int(value) for value in values.split()])
        for name, values in re.findall(r"^ +(\w+)((?: +(?:H|-?\d))+)$", text, re.MULTILINE)
    }
    size = len(table["position"])
    assert size == 9
    tokens = Tokens(
        ids=np.zeros(size, np.int32),
        modality=np.zeros(size, np.uint8),
        event=np.zeros(size, np.int32),
        frames=np.zeros(0, np.int32),
    )
    columns = (table[name].astype(np.int32) for name in ("branch", "parent", "visible"))
    row = PackedRow.from_window(
        tokens,
        np.zeros(1, np.int16),
        np.zeros((0, 28, 28, 3), np.uint8),
        branches=Branches(*columns, task=np.zeros(size, np.uint8)),
    )
    assert row.predecessors().tolist() == table["predecessors"].tolist()
