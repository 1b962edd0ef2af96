"""The columns of packed rows, from the windows in them.

Axes: R rows, W windows of all rows, one after the other.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmtpp.core.events import NO_FRAME
from mmtpp.core.representation.compression import similar_intervals
from mmtpp.core.representation.row import HISTORY
from mmtpp.core.representation.supervision import Supervision
from mmtpp.data.samples.row_table import (
    BRANCH_COLUMNS,
    OLDER_COLUMNS,
    QUESTION_COLUMNS,
    ROW_SCHEMA,
    SOFT_COLUMNS,
    list_array,
)
from mmtpp.data.samples.window_writer import WrittenWindow


@dataclass(frozen=True, slots=True)
class RowLayout:
    """Sizes and positions of the windows of all rows, one after the other.

    Attributes:
        num_rows: Number of rows.
        row_of_window: (W,) index of the row of each window.
        segment: (W,) int32 index of each window in its row.
        num_tokens: (W,) number of tokens of each window.
        num_events: (W,) number of events of each window.
        first_scored: (W,) index of the first scored event in each window.
    """

    num_rows: int
    row_of_window: NDArray[np.int64]
    segment: NDArray[np.int32]
    num_tokens: NDArray[np.int64]
    num_events: NDArray[np.int64]
    first_scored: NDArray[np.int64]

    @classmethod
    def from_rows(cls, rows: list[list[WrittenWindow]]) -> "RowLayout":
        """Measure the windows of rows."""
        windows = [window for row in rows for window in row]
        planned = [window.planned for window in windows]
        return cls(
            num_rows=len(rows),
            row_of_window=np.repeat(np.arange(len(rows)), [len(row) for row in rows]),
            segment=np.concatenate([np.arange(len(row), dtype=np.int32) for row in rows]),
            num_tokens=np.array([len(window.tokens.ids) for window in windows]),
            num_events=np.array([len(window) for window in planned]),
            first_scored=np.array([window.first_scored - window.start for window in planned]),
        )

    def per_row(self, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
        """(R,) sum of the sizes of the windows of each row."""
        return np.bincount(self.row_of_window, sizes, self.num_rows).astype(np.int64)

    def offset_in_row(self, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
        """(W,) sum of the sizes of the windows before each window in its row."""
        starts = np.cumsum(sizes) - sizes
        is_first = np.diff(self.row_of_window, prepend=-1) != 0
        return starts - np.maximum.accumulate(np.where(is_first, starts, 0))


def token_columns(
    windows: list[WrittenWindow], layout: RowLayout, supervision: Supervision
) -> dict[str, pa.Array]:
    """The columns with one value per token, except those of branches."""
    tokens, num_tokens = [window.tokens for window in windows], layout.num_tokens
    row_tokens = layout.per_row(num_tokens)
    event = np.concatenate([window_tokens.event for window_tokens in tokens])
    event_offset = layout.offset_in_row(layout.num_events).astype(np.int32)
    token_is_scored = event >= np.repeat(layout.first_scored.astype(np.int32), num_tokens)
    token_may_be_label = (
        _labels(windows, token_is_scored, supervision)
        if supervision.asks_questions
        else token_is_scored
    )
    return {
        "input_ids": list_array(
            np.concatenate([window_tokens.ids for window_tokens in tokens]), row_tokens
        ),
        "modality": list_array(
            np.concatenate([window_tokens.modality for window_tokens in tokens]), row_tokens
        ),
        "segment": list_array(np.repeat(layout.segment, num_tokens), row_tokens),
        "event": list_array(
            np.where(event < 0, event, event + np.repeat(event_offset, num_tokens)), row_tokens
        ),
        "may_be_label": list_array(token_may_be_label, row_tokens),
    }


def packed_event_columns(
    windows: list[WrittenWindow], layout: RowLayout, supervision: Supervision, targets_delta: float
) -> dict[str, pa.Array]:
    """The columns with one value per event.

    Args:
        windows: The windows of all rows.
        layout: Their positions in the rows.
        supervision: Which tokens are labels and which questions are asked.
        targets_delta: Smallest difference of the intervals of a target and of the event before it.
    """
    stored, num_events = [window.stored for window in windows], layout.num_events
    starts = [window.planned.start for window in windows]
    interval = np.concatenate([events.events.intervals for events in stored])
    previous_interval = np.concatenate([events.previous_interval for events in stored])
    index = np.arange(len(interval)) - np.repeat(np.cumsum(num_events) - num_events, num_events)
    event_is_scored = index >= np.repeat(layout.first_scored, num_events)
    is_left_out = similar_intervals(interval, previous_interval, targets_delta)
    event_is_target = event_is_scored & ~is_left_out
    if not supervision.asks_questions:
        event_is_target &= ~np.concatenate([window.planned.similar for window in windows])
    columns = {
        "event_segment": np.repeat(layout.segment, num_events),
        "event_time": np.concatenate([events.times for events in stored]),
        "event_interval": interval,
        "event_type": np.concatenate([events.events.types for events in stored]),
        "event_previous_type": np.concatenate([events.previous_type for events in stored]),
        "event_previous_interval": previous_interval,
        "event_position": index + np.repeat(starts, num_events),
        "event_is_scored": event_is_scored,
        "event_is_target": event_is_target,
    }
    row_events = layout.per_row(num_events)
    return {name: list_array(values, row_events) for name, values in columns.items()}


def question_columns(
    windows: list[WrittenWindow], layout: RowLayout, supervision: Supervision
) -> dict[str, pa.Array]:
    """The columns of branches and questions; null where nothing is asked."""
    if not supervision.asks_questions:
        names = (*BRANCH_COLUMNS, *(f"question_{name}" for name in QUESTION_COLUMNS))
        return {name: pa.nulls(layout.num_rows, ROW_SCHEMA.field(name).type) for name in names}
    branched = [window.branched for window in windows if window.branched is not None]
    num_questions = np.array([len(part.questions.at) for part in branched])
    row_tokens, row_questions = map(layout.per_row, (layout.num_tokens, num_questions))
    columns = {
        name: list_array(
            np.concatenate([getattr(part.branches, name) for part in branched]), row_tokens
        )
        for name in BRANCH_COLUMNS
    }
    tokens = layout.offset_in_row(layout.num_tokens)
    events = layout.offset_in_row(layout.num_events)
    shift = {"at": tokens, "event": events, "expansion": tokens}
    for name in QUESTION_COLUMNS:
        values = np.concatenate([getattr(part.questions, name) for part in branched])
        if name in shift:
            shifted = values + np.repeat(shift[name], num_questions).astype(np.int32)
            values = np.where(values < 0, values, shifted)
        columns[f"question_{name}"] = list_array(values, row_questions)
    return columns


def _labels(
    windows: list[WrittenWindow], token_is_scored: NDArray[np.bool_], supervision: Supervision
) -> NDArray[np.bool_]:
    """Tokens that are labels: the answers, and the history where training scores it too."""
    branched = [window.branched for window in windows if window.branched is not None]
    answers = np.concatenate([part.is_answer for part in branched])
    if not supervision.labels_history:
        return answers
    in_history = np.concatenate([part.branches.branch for part in branched]) == HISTORY
    return answers | (in_history & token_is_scored)


def soft_columns(windows: list[WrittenWindow], layout: RowLayout) -> dict[str, pa.Array]:
    """The columns of soft tokens; null without soft tokens."""
    parts = [window.soft for window in windows if window.soft is not None]
    if not parts:
        return {
            f"soft_{name}": pa.nulls(layout.num_rows, pa.list_(kind))
            for name, kind in SOFT_COLUMNS.items()
        }
    lengths = [np.diff(part.text_offsets).astype(np.int32) for part in parts]
    values = {
        "memory": [part.memory.ravel() for part in parts],
        "intervals": [part.intervals for part in parts],
        "text_ids": [part.text_ids for part in parts],
        "text_lengths": lengths,
        "has_image": [part.has_image for part in parts],
    }
    return {
        f"soft_{name}": list_array(
            np.concatenate(columns), layout.per_row(np.array(list(map(len, columns))))
        )
        for name, columns in values.items()
    }


def image_columns(
    windows: list[WrittenWindow], layout: RowLayout, frame_of_images: list[NDArray[np.int32]]
) -> dict[str, pa.Array]:
    """The columns of images and of older events; the latter are null where windows have none.

    Args:
        windows: The windows of all rows.
        layout: Their positions in the rows.
        frame_of_images: For each window the frames within its row of ``images_of``.
    """
    num_shown = [len(window.tokens.frames) for window in windows]
    shown = [frames[:num] for frames, num in zip(frame_of_images, num_shown, strict=True)]
    image_frame = np.concatenate([np.zeros(0, dtype=np.int32), *shown])
    columns = {"image_frame": list_array(image_frame, layout.per_row(np.array(num_shown)))}
    parts = [window.older for window in windows if window.older is not None]
    if not parts:
        nulls = {
            name: pa.nulls(layout.num_rows, pa.list_(kind)) for name, kind in OLDER_COLUMNS.items()
        }
        return columns | {f"older_{name}": values for name, values in nulls.items()}
    tokens = layout.offset_in_row(layout.num_tokens).astype(np.int32)
    frames = [part.frames.copy() for part in parts]
    for part, images, num in zip(frames, frame_of_images, num_shown, strict=True):
        part[part != NO_FRAME] = images[num:]
    values = {
        "at": [part.at + start for part, start in zip(parts, tokens.tolist(), strict=True)],
        "code_ids": [part.code_ids.ravel() for part in parts],
        "text_ids": [part.text_ids for part in parts],
        "text_lengths": [np.diff(part.text_offsets).astype(np.int32) for part in parts],
        "frames": frames,
    }
    return columns | {
        f"older_{name}": list_array(
            np.concatenate(column), layout.per_row(np.array(list(map(len, column))))
        )
        for name, column in values.items()
    }
