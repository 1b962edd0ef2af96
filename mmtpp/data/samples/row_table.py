"""Packed rows as Arrow tables, and back to numpy."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmtpp.core.representation.older_events import OlderEvents
from mmtpp.core.representation.row import Branches, PackedRow, QuestionColumns
from mmtpp.core.representation.soft_tokens import SoftTokens

BRANCH_COLUMNS = {
    "branch": pa.int32(),
    "parent": pa.int32(),
    "visible": pa.int32(),
    "task": pa.uint8(),
}
QUESTION_COLUMNS = {
    "at": pa.int32(),
    "event": pa.int32(),
    "task": pa.uint8(),
    "expansion": pa.int32(),
}
# content of the soft tokens; all memory rows of a row of tokens follow each other
SOFT_COLUMNS = {
    "memory": pa.float32(),
    "intervals": pa.float64(),
    "text_ids": pa.int32(),
    "text_lengths": pa.int32(),
    "has_image": pa.bool_(),
}
# content of the older events
OLDER_COLUMNS = {
    "at": pa.int32(),
    "code_ids": pa.int32(),
    "text_ids": pa.int32(),
    "text_lengths": pa.int32(),
    "frames": pa.int32(),
}
ROW_SCHEMA = pa.schema(
    [
        ("sample_id", pa.int64()),
        ("input_ids", pa.list_(pa.int32())),
        ("modality", pa.list_(pa.uint8())),
        ("segment", pa.list_(pa.int32())),
        ("event", pa.list_(pa.int32())),
        ("may_be_label", pa.list_(pa.bool_())),
        ("frames", pa.list_(pa.large_binary())),
        ("image_frame", pa.list_(pa.int32())),
        ("sequences", pa.list_(pa.string())),  # sequence id of each segment
        # one entry per event of the row, for evaluation
        ("event_segment", pa.list_(pa.int32())),
        ("event_time", pa.list_(pa.float64())),
        ("event_interval", pa.list_(pa.float64())),
        ("event_type", pa.list_(pa.int16())),
        ("event_previous_type", pa.list_(pa.int16())),
        ("event_previous_interval", pa.list_(pa.float64())),
        ("event_position", pa.list_(pa.int32())),  # position in the sequence, from 0
        ("event_is_scored", pa.list_(pa.bool_())),  # predicted in this row, compressed or not
        ("event_is_target", pa.list_(pa.bool_())),
        # one entry per token, then one per question; null in rows without questions
        *[(name, pa.list_(kind)) for name, kind in BRANCH_COLUMNS.items()],
        *[(f"question_{name}", pa.list_(kind)) for name, kind in QUESTION_COLUMNS.items()],
        # null in rows without soft tokens
        *[(f"soft_{name}", pa.list_(kind)) for name, kind in SOFT_COLUMNS.items()],
        # null in rows without older events
        *[(f"older_{name}", pa.list_(kind)) for name, kind in OLDER_COLUMNS.items()],
    ]
)


def list_array(values: Any, sizes: NDArray[np.integer] | list[int]) -> pa.ListArray:
    """Flat values as an Arrow array of lists.

    Args:
        values: All values, one list after the other.
        sizes: Number of values in each list.
    """
    offsets = np.cumsum([0, *sizes])
    flat = values if isinstance(values, pa.Array) else pa.array(values)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat)


def binary_array(values: list[NDArray[np.uint8]]) -> pa.LargeBinaryArray:
    """Arrays of bytes as one Arrow array, copied once."""
    if not values:
        return pa.array([], pa.large_binary())
    offsets = np.cumsum([0, *map(len, values)], dtype=np.int64)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(np.concatenate(values))]
    return pa.Array.from_buffers(pa.large_binary(), len(values), buffers)


def row_from_arrow(batch: pa.Table | pa.RecordBatch, index: int, *, image_px: int) -> PackedRow:
    """One packed row in numpy.

    Args:
        batch: Rows of ``ROW_SCHEMA``.
        index: Index of the row in the batch.
        image_px: Side of the images in pixels.
    """

    def values(name: str) -> np.ndarray:
        return batch[name][index].values.to_numpy(zero_copy_only=False)

    is_asked = batch["branch"][index].is_valid
    frames = batch["frames"][index].values
    edges = np.frombuffer(frames.buffers()[1], dtype=np.int64)[frames.offset :]
    data = frames.buffers()[2] if len(frames) else b""
    pixels = np.frombuffer(data, dtype=np.uint8)[edges[0] : edges[len(frames)]]
    return PackedRow(
        sample_id=batch["sample_id"][index].as_py(),
        input_ids=values("input_ids"),
        modality=values("modality"),
        segment=values("segment"),
        event=values("event"),
        may_be_label=values("may_be_label"),
        frames=pixels.reshape(len(frames), image_px, image_px, 3),
        image_frame=values("image_frame"),
        event_type=values("event_type"),
        event_is_target=values("event_is_target"),
        branches=Branches(*map(values, BRANCH_COLUMNS)) if is_asked else None,
        questions=QuestionColumns(*(values(f"question_{name}") for name in QUESTION_COLUMNS))
        if is_asked
        else None,
        soft=_soft_tokens(values) if batch["soft_memory"][index].is_valid else None,
        older=_older_events(values) if batch["older_at"][index].is_valid else None,
    )


def _older_events(values: Callable[[str], np.ndarray]) -> OlderEvents:
    """The older events of a row.

    Args:
        values: Returns the values of a column.
    """
    at, lengths = values("older_at"), values("older_text_lengths")
    return OlderEvents(
        at,
        values("older_code_ids").reshape(len(at), -1 if len(at) else 0),
        values("older_text_ids"),
        np.append(0, np.cumsum(lengths, dtype=np.int64)),
        values("older_frames"),
    )


def _soft_tokens(values: Callable[[str], np.ndarray]) -> SoftTokens:
    """The soft tokens of a row.

    Args:
        values: Returns the values of a column.
    """
    intervals = values("soft_intervals")
    lengths = values("soft_text_lengths")
    return SoftTokens(
        values("soft_memory").reshape(len(intervals), -1),
        intervals,
        values("soft_text_ids"),
        np.append(0, np.cumsum(lengths, dtype=np.int64)),
        values("soft_has_image"),
    )
