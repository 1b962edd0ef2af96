"""Row groups of a store in memory."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmtpp.data.store.layout import EVENT_COLUMNS, QUESTION_COLUMNS
from mmtpp.data.store.questions import AskedQuestion, read_questions
from mmtpp.storage.parquet import list_offsets, list_values


class RowGroupKey(NamedTuple):
    """The folder of a table of the store, the file and the row group."""

    folder: str
    file: str
    group: int

    @property
    def cache_name(self) -> str:
        """The name in the disk cache. Another name would make the tables there unreachable."""
        return f"_Key(folder={self.folder!r}, file={self.file!r}, group={self.group})"


@dataclass(frozen=True, slots=True)
class EventColumns:
    """The columns of consecutive events of a sequence.

    Attributes:
        times: (E,) float64 times.
        types: (E,) int16 type codes.
        frames: (E,) int32 values of the column ``frame``.
        text_ids: (X,) int32 token ids of all texts, one text after the other.
        text_offsets: (E + 1,) int64 start of each event's text in ``text_ids``, and the end of the
            last text.
    """

    times: NDArray[np.float64]
    types: NDArray[np.int16]
    frames: NDArray[np.int32]
    text_ids: NDArray[np.int32]
    text_offsets: NDArray[np.int64]


class EventGroup:
    """A row group of the table of sequences, its lists as flat arrays.

    Args:
        table: Rows of the group, one chunk per column. The table is not copied: it may be
            memory-mapped.
    """

    def __init__(self, table: pa.Table) -> None:
        self.num_bytes = table.nbytes
        self._edges = list_offsets(table, "times")
        self._columns = {name: list_values(table, name) for name in EVENT_COLUMNS}
        text_lengths = self._columns.pop("text_lengths")
        self._text_offsets = np.append(0, np.cumsum(text_lengths, dtype=np.int64))
        self._questions = table.select(list(QUESTION_COLUMNS))

    def questions(self, row: int) -> tuple[AskedQuestion, ...]:
        """The questions about the sequence that begins in a row."""
        return read_questions(self._questions.slice(row, 1))[0]

    def events(self, row: int, start: int, end: int) -> EventColumns:
        """The events of a row from ``start`` to before ``end``, or to the last event of the row."""
        row_start, row_end = self._edges[row : row + 2].tolist()
        first, last = row_start + start, min(row_start + end, row_end)
        offsets = self._text_offsets[first : last + 1]
        return EventColumns(
            times=self._columns["times"][first:last],
            types=self._columns["types"][first:last],
            frames=self._columns["frame"][first:last],
            text_ids=self._columns["text_ids"][offsets[0] : offsets[-1]],
            text_offsets=offsets - offsets[0],
        )


class FrameGroup:
    """A row group of the table of frames.

    Args:
        table: Rows of the group. The pixels are not copied: they may be memory-mapped.
    """

    def __init__(self, table: pa.Table) -> None:
        self.num_bytes = table.nbytes
        self.digests: list[bytes] = table["digest"].to_pylist()
        pixels = table["image"].combine_chunks().buffers()[2]
        self.images = np.frombuffer(pixels, dtype=np.uint8).reshape(len(table), -1)


RowGroup = EventGroup | FrameGroup


class RowGroupMemory:
    """The row groups that a process keeps, up to a limit of their total size.

    Above the limit, the least recently used row groups are dropped, but never the row groups that
    the present batch needs.

    Args:
        max_bytes: Limit of the total size.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._groups: OrderedDict[RowGroupKey, RowGroup] = OrderedDict()
        self._needed: set[RowGroupKey] = set()

    def __contains__(self, key: RowGroupKey) -> bool:
        return key in self._groups

    def __len__(self) -> int:
        return len(self._groups)

    def start_batch(self) -> None:
        """Allow the row groups of the last batch to be dropped."""
        self._needed.clear()

    def protect(self, keys: Sequence[RowGroupKey]) -> None:
        """Keep row groups until the next batch starts."""
        self._needed.update(keys)

    def add(self, key: RowGroupKey, group: RowGroup) -> None:
        """Add a row group, and drop others if the total size exceeds the limit."""
        self._groups[key] = group
        self._num_bytes += group.num_bytes
        if self._num_bytes <= self._max_bytes:
            return
        for old in list(self._groups):
            if old == key or old in self._needed:
                continue
            self._num_bytes -= self._groups.pop(old).num_bytes
            if self._num_bytes <= self._max_bytes:
                break

    def get(self, key: RowGroupKey) -> RowGroup:
        """Return a row group that was added, and mark it as used."""
        self._groups.move_to_end(key)
        return self._groups[key]


def concatenate_columns(parts: Sequence[EventColumns]) -> EventColumns:
    """Concatenate the columns of consecutive parts of a sequence."""
    if len(parts) == 1:
        return parts[0]
    text_lengths = np.concatenate([np.diff(part.text_offsets) for part in parts])
    return EventColumns(
        times=np.concatenate([part.times for part in parts]),
        types=np.concatenate([part.types for part in parts]),
        frames=np.concatenate([part.frames for part in parts]),
        text_ids=np.concatenate([part.text_ids for part in parts]),
        text_offsets=np.append(0, np.cumsum(text_lengths)),
    )
