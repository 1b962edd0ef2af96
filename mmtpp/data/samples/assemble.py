"""Assemble: samples of a plan -> packed rows, in order; a Ray Data task in the training job.

What a batch of samples needs of the store is read ahead of it in parallel.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmtpp.core.branches import BranchedTokens, lay_out_branches, lay_out_questions
from mmtpp.core.row import HISTORY, Branches, Questions, Row
from mmtpp.core.text_truncation import truncate_texts, truncate_texts_to_fit
from mmtpp.core.tokens import TokenIds, Tokens
from mmtpp.data.samples.plan import AssembleSettings
from mmtpp.data.store.store_reader import Address, StoredEvents, StoreReader

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
ROW_SCHEMA = pa.schema(
    [
        ("sample_id", pa.int64()),
        ("input_ids", pa.list_(pa.int32())),
        ("modality", pa.list_(pa.uint8())),
        ("segment", pa.list_(pa.int32())),
        ("event", pa.list_(pa.int32())),
        ("scored", pa.list_(pa.bool_())),
        ("frames", pa.list_(pa.large_binary())),
        ("image_frame", pa.list_(pa.int32())),
        ("sequences", pa.list_(pa.string())),  # name behind each segment
        # one entry an event of the row, for evaluation
        ("event_segment", pa.list_(pa.int32())),
        ("event_time", pa.list_(pa.float64())),
        ("event_interval", pa.list_(pa.float64())),
        ("event_type", pa.list_(pa.int16())),
        ("event_previous_type", pa.list_(pa.int16())),
        ("event_previous_interval", pa.list_(pa.float64())),
        ("event_position", pa.list_(pa.int32())),  # within the sequence, from 0
        ("event_is_scored", pa.list_(pa.bool_())),  # predicted here, compressed or not
        ("event_is_target", pa.list_(pa.bool_())),
        # null in rows without questions: one entry a token, then one a question
        *[(name, pa.list_(kind)) for name, kind in BRANCH_COLUMNS.items()],
        *[(f"question_{name}", pa.list_(kind)) for name, kind in QUESTION_COLUMNS.items()],
    ]
)


class Assembler:
    """Turns samples of a plan into packed rows.

    Args:
        settings: what the plan was made with.
        token_ids: of the vocabulary.
    """

    def __init__(self, settings: AssembleSettings, token_ids: TokenIds) -> None:
        self._settings = settings
        self._reader = StoreReader(settings.store)
        self._template = settings.writer(token_ids)

    def __call__(self, samples: pa.Table) -> pa.Table:
        """Assemble samples in order.

        Args:
            samples: columns ``sample_id`` and ``windows``, a list of plan rows.

        Returns:
            One row a sample, ``ROW_SCHEMA``.
        """
        planned = [list(map(_PlannedWindow.of, each)) for each in samples["windows"].to_pylist()]
        every = [window for windows in planned for window in windows]
        wanted = [(each.address, each.start, each.end) for each in every]
        wanted += [(each.address, 0, 1) for each in every if each.end_question]  # they stand there
        self._reader.read_ahead_events(wanted)
        written = iter([self._write(window) for window in every])
        rows = [[next(written) for _ in windows] for windows in planned]
        self._reader.read_ahead_frames(
            (each.window.address.file, each.tokens.frames) for row in rows for each in row
        )
        return self._table(samples["sample_id"], rows)

    def _write(self, window: "_PlannedWindow") -> "_Written":
        stored = self._reader.events(window.address, window.start, window.end)
        events = replace(stored.events, similar=window.similar)
        events = truncate_texts(events, self._settings.max_text_tokens or None)
        events = truncate_texts_to_fit(
            events, window.longest_text, max_tokens=self._settings.max_tokens
        )
        stored = replace(stored, events=events)
        asking = self._settings.asking
        if asking is None:
            return _Written(window, stored, self._template.write(events), None)
        if window.end_question:
            asked = self._reader.questions(window.address)
            asked = asked[window.first_question : window.end_question]
            pairs = [(each.question_ids, each.answer_ids) for each in asked]
            laid = lay_out_questions(self._template, events, pairs)
            return _Written(window, stored, laid.tokens, laid)
        laid = lay_out_branches(
            self._template,
            events,
            [len(window)]
            if asking.ahead
            else range(window.first_scored - window.start, len(window)),
            tasks=asking.event_tasks,
            expansions=asking.expansions,
        )
        return _Written(window, stored, laid.tokens, laid)

    def _table(self, sample_ids: pa.ChunkedArray, rows: list[list["_Written"]]) -> pa.Table:
        """``ROW_SCHEMA``: every column in one piece, without a Python object for a value."""
        every = [window for row in rows for window in row]
        windows, tokens = [each.window for each in every], [each.tokens for each in every]
        stored = [each.stored for each in every]
        num_tokens = np.array([len(each.ids) for each in tokens])
        num_events = np.array([len(each) for each in windows])
        segment = np.concatenate([np.arange(len(row), dtype=np.int32) for row in rows])
        row_of_window = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
        row_tokens = np.bincount(row_of_window, num_tokens, len(rows)).astype(np.int64)
        row_events = np.bincount(row_of_window, num_events, len(rows)).astype(np.int64)
        before = _before(num_events, row_of_window)
        event = np.concatenate([each.event for each in tokens])
        first = np.array([each.first_scored - each.start for each in windows])
        interval = np.concatenate([each.events.intervals for each in stored])
        previous_interval = np.concatenate([each.previous_interval for each in stored])
        gap = np.abs(interval - previous_interval)
        similar = np.concatenate([each.similar for each in windows])
        place = np.arange(len(similar)) - np.repeat(np.cumsum(num_events) - num_events, num_events)
        is_scored = place >= np.repeat(first, num_events)
        is_target = ~similar & is_scored
        is_target &= ~(gap < self._settings.targets_delta)
        scored = event >= np.repeat(first.astype(np.int32), num_tokens)
        if self._settings.asking is not None:
            is_target = is_scored & ~(gap < self._settings.targets_delta)
            scored = self._labels(every, scored)
        num_frames, frames, image_frame, num_images = self._frames(rows)

        columns = {
            "sample_id": sample_ids,
            "input_ids": _lists(np.concatenate([each.ids for each in tokens]), row_tokens),
            "modality": _lists(np.concatenate([each.modality for each in tokens]), row_tokens),
            "segment": _lists(np.repeat(segment, num_tokens), row_tokens),
            "event": _lists(
                np.where(event < 0, event, event + np.repeat(before.astype(np.int32), num_tokens)),
                row_tokens,
            ),
            "scored": _lists(scored, row_tokens),
            "frames": _lists(frames, num_frames),
            "image_frame": _lists(image_frame, num_images),
            "sequences": [[each.window.sequence_id for each in row] for row in rows],
            "event_segment": _lists(np.repeat(segment, num_events), row_events),
            "event_time": _lists(np.concatenate([each.times for each in stored]), row_events),
            "event_interval": _lists(interval, row_events),
            "event_type": _lists(
                np.concatenate([each.events.types for each in stored]), row_events
            ),
            "event_previous_type": _lists(
                np.concatenate([each.previous_type for each in stored]), row_events
            ),
            "event_previous_interval": _lists(previous_interval, row_events),
            "event_position": _lists(
                place + np.repeat([each.start for each in windows], num_events), row_events
            ),
            "event_is_scored": _lists(is_scored, row_events),
            "event_is_target": _lists(is_target, row_events),
        }
        columns |= self._questions(every, row_of_window, len(rows))
        return pa.table(columns, schema=ROW_SCHEMA)

    def _questions(
        self, windows: list["_Written"], row_of_window: NDArray[np.int64], num_rows: int
    ) -> dict[str, pa.Array]:
        """The columns of branches and questions; null where nothing is asked."""
        if self._settings.asking is None:
            names = (*BRANCH_COLUMNS, *(f"question_{each}" for each in QUESTION_COLUMNS))
            return {name: pa.nulls(num_rows, ROW_SCHEMA.field(name).type) for name in names}
        laid = [each.laid for each in windows if each.laid is not None]
        num_tokens = np.array([len(each.tokens.ids) for each in windows])
        num_asked = np.array([len(each.questions.at) for each in laid])
        of_row = [
            np.bincount(row_of_window, sizes, num_rows).astype(np.int64)
            for sizes in (num_tokens, num_asked)
        ]
        columns = {
            name: _lists(np.concatenate([getattr(each.branches, name) for each in laid]), of_row[0])
            for name in BRANCH_COLUMNS
        }
        tokens = _before(num_tokens, row_of_window)
        events = _before(np.array([len(each.window) for each in windows]), row_of_window)
        shift = {"at": tokens, "event": events, "expansion": tokens}
        for name in QUESTION_COLUMNS:
            values = np.concatenate([getattr(each.questions, name) for each in laid])
            if name in shift:
                moved = values + np.repeat(shift[name], num_asked).astype(np.int32)
                values = np.where(values < 0, values, moved)
            columns[f"question_{name}"] = _lists(values, of_row[1])
        return columns

    def _labels(self, windows: list["_Written"], scored: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Answers, and the history's own tokens where they are labels too."""
        laid = [each.laid for each in windows if each.laid is not None]
        answers = np.concatenate([each.is_answer for each in laid])
        if self._settings.asking is None or not self._settings.asking.history_is_scored:
            return answers
        in_history = np.concatenate([each.branches.branch for each in laid]) == HISTORY
        return answers | (in_history & scored)

    def _frames(
        self, rows: list[list["_Written"]]
    ) -> tuple[list[int], pa.LargeBinaryArray, NDArray[np.int32], list[int]]:
        """How many distinct frames each row has, all of them, the frame of each image within its
        row, and how many images each row has."""
        pixels: list[NDArray[np.uint8]] = []
        num_frames: list[int] = []
        index_of_images: list[NDArray[np.int32]] = [np.zeros(0, dtype=np.int32)]
        for row in rows:
            places: dict[bytes, int] = {}
            for each in row:
                distinct, place = np.unique(each.tokens.frames, return_inverse=True)
                index = np.empty(len(distinct), dtype=np.int32)
                found = self._reader.frames(each.window.address.file, distinct)
                for at, (digest, image) in enumerate(found):
                    if digest not in places:
                        places[digest] = len(places)
                        pixels.append(image)
                    index[at] = places[digest]
                index_of_images.append(index[place])
            num_frames.append(len(places))
        num_images = [sum(len(each.tokens.frames) for each in row) for row in rows]
        return num_frames, _binary(pixels), np.concatenate(index_of_images), num_images


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
    def of(cls, row: dict) -> "_PlannedWindow":
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
            row.get("longest_text"),  # plans of earlier versions have none
        )


@dataclass(frozen=True, slots=True)
class _Written:
    """A window, its events as stored but with similar marks, its tokens and what is asked."""

    window: _PlannedWindow
    stored: StoredEvents
    tokens: Tokens
    laid: BranchedTokens | None


def _lists(values: Any, sizes: NDArray[np.integer] | list[int]) -> pa.ListArray:
    """Flat values as lists of these sizes."""
    offsets = np.cumsum([0, *sizes])
    flat = values if isinstance(values, pa.Array) else pa.array(values)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat)


def _before(sizes: NDArray[np.int64], row_of_window: NDArray[np.int64]) -> NDArray[np.int64]:
    """How much of its row stands before each window."""
    starts = np.cumsum(sizes) - sizes
    is_first = np.diff(row_of_window, prepend=-1) != 0
    return starts - np.maximum.accumulate(np.where(is_first, starts, 0))


def _binary(values: list[NDArray[np.uint8]]) -> pa.LargeBinaryArray:
    """Arrays of bytes as one Arrow array, copied once."""
    if not values:
        return pa.array([], pa.large_binary())
    offsets = np.cumsum([0, *map(len, values)], dtype=np.int64)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(np.concatenate(values))]
    return pa.Array.from_buffers(pa.large_binary(), len(values), buffers)


def assemble_samples(
    samples: pa.Table, settings: AssembleSettings, token_ids: TokenIds
) -> pa.Table:
    """``Assembler`` as a Ray Data task; the process keeps it, with what it read, between tasks."""
    return _assembler(settings, token_ids)(samples)


@lru_cache(maxsize=2)
def _assembler(settings: AssembleSettings, token_ids: TokenIds) -> Assembler:
    return Assembler(settings, token_ids)


def row_from_arrow(batch: pa.Table | pa.RecordBatch, index: int, *, image_px: int) -> Row:
    """One packed row in numpy."""

    def values(name: str) -> np.ndarray:
        return batch[name][index].values.to_numpy(zero_copy_only=False)

    is_asked = batch["branch"][index].is_valid
    frames = batch["frames"][index].values
    edges = np.frombuffer(frames.buffers()[1], dtype=np.int64)[frames.offset :]
    data = frames.buffers()[2] if len(frames) else b""
    pixels = np.frombuffer(data, dtype=np.uint8)[edges[0] : edges[len(frames)]]
    return Row(
        sample_id=batch["sample_id"][index].as_py(),
        input_ids=values("input_ids"),
        modality=values("modality"),
        segment=values("segment"),
        event=values("event"),
        scored=values("scored"),
        frames=pixels.reshape(len(frames), image_px, image_px, 3),
        image_frame=values("image_frame"),
        event_type=values("event_type"),
        event_is_target=values("event_is_target"),
        branches=Branches(*map(values, BRANCH_COLUMNS)) if is_asked else None,
        questions=Questions(*(values(f"question_{name}") for name in QUESTION_COLUMNS))
        if is_asked
        else None,
    )
