"""Assemble: samples of a plan -> packed rows, in order; a Ray Data task in the training job.

What a batch of samples needs of the store is read ahead of it in parallel.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmtpp.core.row import Row
from mmtpp.core.template import Template
from mmtpp.core.tokens import TokenIds, Tokens
from mmtpp.data.plan import AssembleSettings
from mmtpp.data.store import Address, StoredEvents, StoreReader

ROW_SCHEMA = pa.schema(
    [
        ("sample_id", pa.int64()),
        ("input_ids", pa.list_(pa.int32())),
        ("modality", pa.list_(pa.uint8())),
        ("segment", pa.list_(pa.int32())),
        ("event", pa.list_(pa.int32())),
        ("scored", pa.list_(pa.bool_())),
        ("frames", pa.list_(pa.binary())),
        ("image_frame", pa.list_(pa.int32())),
        # one entry an event of the row, for evaluation
        ("event_sequence", pa.list_(pa.string())),
        ("event_time", pa.list_(pa.float64())),
        ("event_interval", pa.list_(pa.float64())),
        ("event_type", pa.list_(pa.int16())),
        ("event_previous_type", pa.list_(pa.int16())),
        ("event_is_target", pa.list_(pa.bool_())),
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
        self._template = Template(token_ids, settings.template)

    def __call__(self, samples: pa.Table) -> pa.Table:
        """Assemble samples in order.

        Args:
            samples: columns ``sample_id`` and ``windows``, a list of plan rows.

        Returns:
            One row a sample, ``ROW_SCHEMA``.
        """
        planned = [list(map(_PlannedWindow.of, each)) for each in samples["windows"].to_pylist()]
        every = [window for windows in planned for window in windows]
        self._reader.read_ahead_events([(each.address, each.start, each.end) for each in every])
        written = iter([self._write(window) for window in every])
        rows = [[next(written) for _ in windows] for windows in planned]
        self._reader.read_ahead_frames(
            (each.window.address.file, frame)
            for row in rows
            for each in row
            for frame in each.tokens.frames.tolist()
        )
        return _as_table(samples["sample_id"], [self._row(row) for row in rows])

    def _write(self, window: "_PlannedWindow") -> "_Written":
        stored = self._reader.events(window.address, window.start, window.end)
        events = replace(stored.events, similar=window.similar)
        return _Written(window, replace(stored, events=events), self._template.write(events))

    def _row(self, written: list["_Written"]) -> dict[str, Any]:
        """The columns of one row: arrays, and lists of what they are not."""
        tokens = [each.tokens for each in written]
        sizes = [len(each.window) for each in written]
        before = np.cumsum(sizes) - sizes
        frames: dict[bytes, int] = {}
        image_frame: list[int] = []
        for each in written:
            images = self._reader.frames(each.window.address.file, each.tokens.frames.tolist())
            image_frame += [frames.setdefault(image, len(frames)) for image in images]
        event = [
            np.where(each.event < 0, -1, each.event + first)
            for each, first in zip(tokens, before, strict=True)
        ]
        scored = [
            each.tokens.event >= each.window.first_scored - each.window.start for each in written
        ]
        return {
            "input_ids": np.concatenate([each.ids for each in tokens]),
            "modality": np.concatenate([each.modality for each in tokens]),
            "segment": np.repeat(np.arange(len(tokens)), [len(each.ids) for each in tokens]),
            "event": np.concatenate(event),
            "scored": np.concatenate(scored),
            "frames": list(frames),
            "image_frame": np.array(image_frame, dtype=np.int32),
            "event_sequence": [
                name for each in written for name in [each.window.sequence_id] * len(each.window)
            ],
            "event_time": np.concatenate([each.stored.times for each in written]),
            "event_interval": np.concatenate([each.stored.events.intervals for each in written]),
            "event_type": np.concatenate([each.stored.events.types for each in written]),
            "event_previous_type": np.concatenate([each.stored.previous_type for each in written]),
            "event_is_target": np.concatenate([self._is_target(each) for each in written]),
        }

    def _is_target(self, written: "_Written") -> NDArray[np.bool_]:
        window, events = written.window, written.stored.events
        gaps = np.abs(events.intervals - written.stored.previous_interval)
        place = np.arange(window.start, window.end)
        return (
            ~events.similar
            & (place >= window.first_scored)
            & ~(gaps < self._settings.targets_delta)
        )


@dataclass(frozen=True, slots=True)
class _PlannedWindow:
    """A row of ``WINDOW_SCHEMA``."""

    sequence_id: str
    address: Address
    start: int
    end: int
    first_scored: int
    similar: NDArray[np.bool_]

    def __len__(self) -> int:
        return self.end - self.start

    @classmethod
    def of(cls, row: dict) -> "_PlannedWindow":
        start, end = row["start"], row["end"]
        bits = np.frombuffer(row["similar"], dtype=np.uint8)
        similar = np.unpackbits(bits, count=end - start).astype(np.bool_)
        address = Address(row["file"], row["group"], row["row"])
        return cls(row["sequence_id"], address, start, end, row["first_scored"], similar)


@dataclass(frozen=True, slots=True)
class _Written:
    """A window, its events as stored but with similar marks, and its tokens."""

    window: _PlannedWindow
    stored: StoredEvents
    tokens: Tokens


def _as_table(sample_ids: pa.ChunkedArray, rows: list[dict[str, Any]]) -> pa.Table:
    """Rows of arrays and lists as ``ROW_SCHEMA``, without a Python object for a value."""
    columns: dict[str, object] = {"sample_id": sample_ids}
    for field in ROW_SCHEMA:
        if field.name == "sample_id":
            continue
        parts = [row[field.name] for row in rows]
        offsets = np.cumsum([0, *map(len, parts)])
        if isinstance(parts[0], list):
            flat = pa.array([value for part in parts for value in part], field.type.value_type)
        else:
            flat = pa.array(np.concatenate(parts)).cast(field.type.value_type)
        columns[field.name] = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat)
    return pa.table(columns, schema=ROW_SCHEMA)


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

    frames = batch["frames"][index].as_py()
    pixels = np.frombuffer(b"".join(frames), dtype=np.uint8)
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
    )
