"""Assembling: samples of a plan in, packed rows out, in order; a Ray Data task of the training job.

The events and frames that a batch of samples needs are read from the store in parallel, ahead of
the batch.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmtpp.core.events import Events
from mmtpp.core.representation.branches import BranchedTokens, lay_out_branches, lay_out_questions
from mmtpp.core.representation.row import HISTORY
from mmtpp.core.representation.soft_tokens import SoftTokens
from mmtpp.core.representation.text_truncation import truncate_texts, truncate_texts_to_fit
from mmtpp.core.representation.tokens import TokenIds, Tokens
from mmtpp.data.samples.past_memory import PastMemory
from mmtpp.data.samples.row_table import (
    BRANCH_COLUMNS,
    QUESTION_COLUMNS,
    ROW_SCHEMA,
    SOFT_COLUMNS,
    binary_array,
    list_array,
)
from mmtpp.data.samples.sample_settings import SampleSettings
from mmtpp.data.store.store_reader import StoreReader
from mmtpp.data.store.stored_sequence import Address, StoredEvents


class Assembler:
    """Turns samples of a plan into packed rows.

    Args:
        settings: The settings of the plan.
        token_ids: Token ids of the vocabulary.
    """

    def __init__(self, settings: SampleSettings, token_ids: TokenIds) -> None:
        self._settings = settings
        self._reader = StoreReader(settings.store)
        self._template = settings.build_template(token_ids)
        self._memory: PastMemory | None = None
        if self._template.is_soft:
            assert settings.memory is not None
            self._memory = PastMemory(settings.memory, self._reader)

    def __call__(self, samples: pa.Table) -> pa.Table:
        """Assemble samples in order.

        Args:
            samples: Columns ``sample_id`` and ``windows``, a list of rows of the plan.

        Returns:
            One row per sample, ``ROW_SCHEMA``.
        """
        planned = [
            list(map(_PlannedWindow.from_plan, sample)) for sample in samples["windows"].to_pylist()
        ]
        windows = [window for sample in planned for window in sample]
        ranges = [(window.address, window.start, window.end) for window in windows]
        # the first part of a sequence holds its questions
        ranges += [(window.address, 0, 1) for window in windows if window.end_question]
        self._reader.read_ahead_events(ranges)
        written = iter([self._write(window) for window in windows])
        rows = [[next(written) for _ in sample] for sample in planned]
        self._reader.read_ahead_frames(
            (written.planned.address.file, written.tokens.frames) for row in rows for written in row
        )
        return self._table(samples["sample_id"], rows)

    def _write(self, window: "_PlannedWindow") -> "_WrittenWindow":
        stored = self._reader.events(window.address, window.start, window.end)
        events = replace(stored.events, similar=window.similar)
        events = truncate_texts(events, self._settings.max_text_tokens or None)
        events = truncate_texts_to_fit(
            events, window.longest_text, max_tokens=self._settings.max_tokens
        )
        stored = replace(stored, events=events)
        supervision = self._settings.supervision
        if not supervision.asks_questions:
            tokens = self._template.write(events)
            soft = self._soft_tokens(window, events)
            return _WrittenWindow(window, stored, tokens, None, soft)
        if window.end_question:
            questions = self._reader.questions(window.address)
            questions = questions[window.first_question : window.end_question]
            pairs = [(question.question_ids, question.answer_ids) for question in questions]
            branched = lay_out_questions(self._template, events, pairs)
        else:
            first, end = window.first_scored - window.start, len(window)
            if supervision.asks_ahead:
                first, end = len(window), len(window) + 1
            branched = lay_out_branches(
                self._template,
                events,
                range(first, end),
                tasks=supervision.event_tasks,
                expansions=supervision.first_bytes,
            )
        return _WrittenWindow(window, stored, branched.tokens, branched)

    def _soft_tokens(self, window: "_PlannedWindow", events: Events) -> SoftTokens | None:
        """The content of the soft tokens of a window; None without soft tokens."""
        if self._memory is None:
            return None
        memory = self._memory.rows(window.address, window.start, window.end)
        return SoftTokens.from_events(memory, events, self._template.shows_image(events))

    def _table(self, sample_ids: pa.ChunkedArray, rows: list[list["_WrittenWindow"]]) -> pa.Table:
        """``ROW_SCHEMA``: every column in one piece, without a Python object per value."""
        windows = [window for row in rows for window in row]
        layout = _RowLayout.from_rows(rows)
        num_frames, frames, image_frame, num_images = self._frames(rows)
        columns = {
            "sample_id": sample_ids,
            **self._token_columns(windows, layout),
            "frames": list_array(frames, num_frames),
            "image_frame": list_array(image_frame, num_images),
            "sequences": [[window.planned.sequence_id for window in row] for row in rows],
            **self._event_columns(windows, layout),
            **self._questions(windows, layout.row_of_window, len(rows)),
            **_soft_columns(windows, layout),
        }
        return pa.table(columns, schema=ROW_SCHEMA)

    def _token_columns(
        self, windows: list["_WrittenWindow"], layout: "_RowLayout"
    ) -> dict[str, pa.Array]:
        """The columns with one value per token, except those of branches."""
        tokens, num_tokens = [window.tokens for window in windows], layout.num_tokens
        row_tokens = layout.per_row(num_tokens)
        event = np.concatenate([window_tokens.event for window_tokens in tokens])
        event_offset = _offset_in_row(layout.num_events, layout.row_of_window).astype(np.int32)
        token_is_scored = event >= np.repeat(layout.first_scored.astype(np.int32), num_tokens)
        token_is_label = (
            self._labels(windows, token_is_scored)
            if self._settings.supervision.asks_questions
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
            "scored": list_array(token_is_label, row_tokens),
        }

    def _event_columns(
        self, windows: list["_WrittenWindow"], layout: "_RowLayout"
    ) -> dict[str, pa.Array]:
        """The columns with one value per event."""
        stored, num_events = [window.stored for window in windows], layout.num_events
        starts = [window.planned.start for window in windows]
        interval = np.concatenate([events.events.intervals for events in stored])
        previous_interval = np.concatenate([events.previous_interval for events in stored])
        gap = np.abs(interval - previous_interval)
        index = np.arange(len(interval)) - np.repeat(np.cumsum(num_events) - num_events, num_events)
        event_is_scored = index >= np.repeat(layout.first_scored, num_events)
        event_is_target = event_is_scored & ~(gap < self._settings.targets_delta)
        if not self._settings.supervision.asks_questions:
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

    def _questions(
        self, windows: list["_WrittenWindow"], row_of_window: NDArray[np.int64], num_rows: int
    ) -> dict[str, pa.Array]:
        """The columns of branches and questions; null where nothing is asked."""
        if not self._settings.supervision.asks_questions:
            names = (*BRANCH_COLUMNS, *(f"question_{name}" for name in QUESTION_COLUMNS))
            return {name: pa.nulls(num_rows, ROW_SCHEMA.field(name).type) for name in names}
        branched = [window.branched for window in windows if window.branched is not None]
        num_tokens = np.array([len(window.tokens.ids) for window in windows])
        num_questions = np.array([len(part.questions.at) for part in branched])
        row_tokens, row_questions = (
            np.bincount(row_of_window, sizes, num_rows).astype(np.int64)
            for sizes in (num_tokens, num_questions)
        )
        columns = {
            name: list_array(
                np.concatenate([getattr(part.branches, name) for part in branched]), row_tokens
            )
            for name in BRANCH_COLUMNS
        }
        tokens = _offset_in_row(num_tokens, row_of_window)
        events = _offset_in_row(
            np.array([len(window.planned) for window in windows]), row_of_window
        )
        shift = {"at": tokens, "event": events, "expansion": tokens}
        for name in QUESTION_COLUMNS:
            values = np.concatenate([getattr(part.questions, name) for part in branched])
            if name in shift:
                shifted = values + np.repeat(shift[name], num_questions).astype(np.int32)
                values = np.where(values < 0, values, shifted)
            columns[f"question_{name}"] = list_array(values, row_questions)
        return columns

    def _labels(
        self, windows: list["_WrittenWindow"], token_is_scored: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Tokens that are labels: the answers, and the history where training scores it too."""
        branched = [window.branched for window in windows if window.branched is not None]
        answers = np.concatenate([part.is_answer for part in branched])
        if not self._settings.supervision.labels_history:
            return answers
        in_history = np.concatenate([part.branches.branch for part in branched]) == HISTORY
        return answers | (in_history & token_is_scored)

    def _frames(
        self, rows: list[list["_WrittenWindow"]]
    ) -> tuple[list[int], pa.LargeBinaryArray, NDArray[np.int32], list[int]]:
        """The number of distinct frames in each row, all frames, the frame of each image within its
        row, and the number of images in each row."""
        pixels: list[NDArray[np.uint8]] = []
        num_frames: list[int] = []
        index_of_images: list[NDArray[np.int32]] = [np.zeros(0, dtype=np.int32)]
        for row in rows:
            index_of_digest: dict[bytes, int] = {}
            for window in row:
                distinct, distinct_of_image = np.unique(window.tokens.frames, return_inverse=True)
                index_of_distinct = np.empty(len(distinct), dtype=np.int32)
                frames = self._reader.frames(window.planned.address.file, distinct)
                for distinct_index, (digest, image) in enumerate(frames):
                    if digest not in index_of_digest:
                        index_of_digest[digest] = len(index_of_digest)
                        pixels.append(image)
                    index_of_distinct[distinct_index] = index_of_digest[digest]
                index_of_images.append(index_of_distinct[distinct_of_image])
            num_frames.append(len(index_of_digest))
        num_images = [sum(len(window.tokens.frames) for window in row) for row in rows]
        return num_frames, binary_array(pixels), np.concatenate(index_of_images), num_images


@dataclass(frozen=True, slots=True)
class _PlannedWindow:
    """A row of ``WINDOW_SCHEMA``."""

    sequence_id: str
    address: Address
    start: int
    end: int
    first_scored: int
    similar: NDArray[np.bool_]
    first_question: int
    end_question: int
    longest_text: int | None

    def __len__(self) -> int:
        return self.end - self.start

    @classmethod
    def from_plan(cls, row: dict) -> "_PlannedWindow":
        start, end = row["start"], row["end"]
        bits = np.frombuffer(row["similar"], dtype=np.uint8)
        similar = np.unpackbits(bits, count=end - start).astype(np.bool_)
        address = Address(row["file"], row["group"], row["row"])
        return cls(
            row["sequence_id"],
            address,
            start,
            end,
            row["first_scored"],
            similar,
            row["first_question"],
            row["end_question"],
            row.get("longest_text"),  # plans of earlier versions have no such column
        )


@dataclass(frozen=True, slots=True)
class _WrittenWindow:
    """A window as tokens.

    Attributes:
        planned: The window of the plan.
        stored: Its events as stored, with their similar marks.
        tokens: Its tokens, those of the questions included.
        branched: The tokens with the layout of the questions; None where nothing is asked.
        soft: The content of the soft tokens; None without soft tokens.
    """

    planned: _PlannedWindow
    stored: StoredEvents
    tokens: Tokens
    branched: BranchedTokens | None
    soft: SoftTokens | None = None


@dataclass(frozen=True, slots=True)
class _RowLayout:
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
    def from_rows(cls, rows: list[list[_WrittenWindow]]) -> "_RowLayout":
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


def _soft_columns(windows: list[_WrittenWindow], layout: _RowLayout) -> dict[str, pa.Array]:
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


def _offset_in_row(sizes: NDArray[np.int64], row_of_window: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number of tokens or events that precede each window in its row."""
    starts = np.cumsum(sizes) - sizes
    is_first = np.diff(row_of_window, prepend=-1) != 0
    return starts - np.maximum.accumulate(np.where(is_first, starts, 0))


def assemble_samples(samples: pa.Table, settings: SampleSettings, token_ids: TokenIds) -> pa.Table:
    """Assemble samples in a Ray Data task; the process keeps its ``Assembler`` between tasks."""
    return _assembler(settings, token_ids)(samples)


@lru_cache(maxsize=2)
def _assembler(settings: SampleSettings, token_ids: TokenIds) -> Assembler:
    return Assembler(settings, token_ids)
