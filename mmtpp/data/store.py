"""Reading an event store: row groups by address, with a bounded cache."""

from collections import OrderedDict
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mmtpp.core.compression import Compression, compress
from mmtpp.core.events import Events, intervals_from_times
from mmtpp.core.order import seed_from
from mmtpp.storage.paths import explained, filesystem_of, join, list_files

CACHE_BYTES = 256 * 2**20
PLAN_COLUMNS = ("sequence_id", "split", "times", "types", "text_ids", "text_offsets", "frame")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a sequence lies: file name below ``sequences/``, row group, row within the group."""

    file: str
    group: int
    row: int


@dataclass(frozen=True, slots=True)
class StoredSequence:
    """One sequence as read back.

    Attributes:
        sequence_id: its name.
        split: train, validation or test.
        times: (E,) float64 in the source's unit.
        intervals: (E,) float64.
        events: its tokenised columns, with the similar marks of the compression in force.
        frames: the distinct images, raw RGB; None when not asked for.
    """

    sequence_id: str
    split: str
    times: NDArray[np.float64]
    intervals: NDArray[np.float64]
    events: Events
    frames: pa.Array | None


@dataclass(frozen=True, slots=True)
class TimeRange:
    """Events at or after ``start`` and before ``end``, in the source's unit."""

    start: float
    end: float


class StoreReader:
    """Reads sequences of one store; keeps the row groups used last.

    Args:
        data_uri: the store's data folder.
        compression: which events are similar; its seed is mixed with the sequence's name.
        time_range: events outside are left out before intervals are compressed; the interval of
            the first event inside still counts from its real predecessor.
    """

    def __init__(self, data_uri: str, *, compression: Compression, time_range: TimeRange) -> None:
        self._uri = join(data_uri, "sequences")
        self._compression, self._range = compression, time_range
        self._files: dict[str, pq.ParquetFile] = {}
        self._groups: OrderedDict[tuple[str, int], pa.Table] = OrderedDict()
        self._cached_bytes = 0

    def files(self) -> list[str]:
        """Names of the store's files, sorted."""
        return [info.base_name for info in list_files(self._uri, ".parquet")]

    def num_groups(self, file: str) -> int:
        """Row groups of a file."""
        return self._open(file).num_row_groups

    def group(self, file: str, group: int) -> list[StoredSequence]:
        """All sequences of a row group without their images, uncached: for planning."""
        with explained(join(self._uri, file), "read the event store"):
            table = self._open(file).read_row_group(group, columns=list(PLAN_COLUMNS))
        return [self._sequence(table, row) for row in range(len(table))]

    def sequence(self, address: Address) -> StoredSequence:
        """One sequence with its images."""
        key = (address.file, address.group)
        if key in self._groups:
            self._groups.move_to_end(key)
        else:
            with explained(join(self._uri, address.file), "read the event store"):
                self._groups[key] = self._open(address.file).read_row_group(
                    address.group, columns=[*PLAN_COLUMNS, "frames"]
                )
            self._cached_bytes += self._groups[key].nbytes
            while self._cached_bytes > CACHE_BYTES and len(self._groups) > 1:
                self._cached_bytes -= self._groups.popitem(last=False)[1].nbytes
        return self._sequence(self._groups[key], address.row)

    def _open(self, file: str) -> pq.ParquetFile:
        if file not in self._files:
            uri = join(self._uri, file)
            with explained(uri, "open the event store"):
                filesystem, path = filesystem_of(uri)
                self._files[file] = pq.ParquetFile(filesystem.open_input_file(path))
        return self._files[file]

    def _sequence(self, table: pa.Table, row: int) -> StoredSequence:
        def values(name: str) -> np.ndarray:
            return table[name][row].values.to_numpy(zero_copy_only=False)

        times = values("times")
        intervals = intervals_from_times(times)
        start, end = np.searchsorted(times, [self._range.start, self._range.end], side="left")
        sequence_id = table["sequence_id"][row].as_py()
        whole = Events(
            intervals=intervals,
            types=values("types"),
            text_ids=values("text_ids"),
            text_offsets=values("text_offsets"),
            frames=values("frame"),
            similar=np.zeros(len(times), dtype=np.bool_),
        )
        seed = seed_from("drop", self._compression.seed, sequence_id) % 2**63
        events = compress(whole.slice(int(start), int(end)), replace(self._compression, seed=seed))
        frames = table["frames"][row].values if "frames" in table.column_names else None
        return StoredSequence(
            sequence_id=sequence_id,
            split=table["split"][row].as_py(),
            times=times[start:end],
            intervals=intervals[start:end],
            events=events,
            frames=frames,
        )
