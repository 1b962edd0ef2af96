"""Read an event store: row groups by address, read ahead, kept in memory and on disk."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from threading import Lock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mmtpp.core.events import Events, intervals_from_times
from mmtpp.data.store.layout import (
    CUT_COLUMNS,
    EVENT_COLUMNS,
    FRAMES,
    IMAGES_PER_BLOCK,
    PART_EVENTS,
    QUESTION_COLUMNS,
    SEQUENCES,
    block_file,
    frames_per_group,
)
from mmtpp.data.store.questions import AskedQuestion
from mmtpp.data.store.row_groups import (
    EventGroup,
    FrameGroup,
    RowGroup,
    RowGroupKey,
    RowGroupMemory,
    concatenate_columns,
)
from mmtpp.data.store.store_settings import StoreSettings
from mmtpp.data.store.stored_sequence import (
    Address,
    StoredEvents,
    StoredSequence,
    sequences_in_table,
)
from mmtpp.storage.cache import DiskCache
from mmtpp.storage.client_errors import storage_errors
from mmtpp.storage.parquet import load_file, open_file
from mmtpp.storage.paths import join, list_files, prefetch

MEMORY_BYTES = 512 * 2**20  # row groups in the memory of a process, without the present batch
MAX_OPEN_FILES = 256
READS_IN_FLIGHT = 8
_GROUP_COLUMNS = [*EVENT_COLUMNS, *QUESTION_COLUMNS]
_SEQUENCE_COLUMNS = ("sequence_id", "split", "part", *CUT_COLUMNS)
_ACTION = "read the event store"  # for errors


class StoreReader:
    """Reads sequences, parts of sequences, and frames.

    Args:
        settings: Settings of the store.
    """

    def __init__(self, settings: StoreSettings) -> None:
        self._settings = settings
        self._files: OrderedDict[str, pq.ParquetFile] = OrderedDict()
        self._memory = RowGroupMemory(MEMORY_BYTES)
        self._frames_per_group = frames_per_group(settings.image_px)
        self._lock = Lock()

    @cached_property
    def _cache(self) -> DiskCache | None:
        """The disk cache, opened at first use because opening it lists its whole folder."""
        return self._settings.open_cache()

    def files(self) -> list[str]:
        """Names of the store's files, sorted."""
        uri = join(self._settings.data_uri, SEQUENCES)
        return [info.base_name for info in list_files(uri, ".parquet")]

    def longest_text(self, file: str) -> int:
        """Number of tokens of the longest text of a file, from the index of the file alone."""
        with storage_errors(join(self._settings.data_uri, SEQUENCES, file), _ACTION):
            metadata = self._open(SEQUENCES, file).metadata
            groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
            columns = [
                group.column(place) for group in groups for place in range(group.num_columns)
            ]
            lengths = [
                column.statistics.max
                for column in columns
                if column.path_in_schema.startswith("text_lengths.")
            ]
            return max(lengths, default=0)  # a file without a sequence has no row group

    def sequences(
        self, files: Iterable[str], *, with_text: bool = False, with_questions: bool = False
    ) -> Iterator[StoredSequence]:
        """Iterate over all sequences of files, in order, without keeping them in memory.

        The next file is read while the caller works on the sequences of the present one.

        Args:
            files: Names of the files.
            with_text: Whether the text ids are read.
            with_questions: Whether the questions are read.
        """
        columns = [*_SEQUENCE_COLUMNS, *EVENT_COLUMNS]
        if not with_text:
            columns.remove("text_ids")
        if with_questions:
            columns += QUESTION_COLUMNS

        def read(file: str) -> tuple[str, pa.Table, pq.FileMetaData]:
            uri = join(self._settings.data_uri, SEQUENCES, file)
            parquet = load_file(uri)
            with storage_errors(uri, _ACTION):
                # one thread per column takes 1.5 times as long
                table = parquet.read(columns=columns, use_threads=False)
            return file, table.combine_chunks(), parquet.metadata

        # more threads would slow down the caller, which needs the interpreter too
        with ThreadPoolExecutor(1) as pool:
            for file, table, metadata in prefetch(pool, read, files, depth=1):
                yield from sequences_in_table(file, table, metadata)

    def events(self, address: Address, start: int, end: int) -> StoredEvents:
        """Read the events of a sequence from ``start`` to before ``end``."""
        first = _first_event_to_read(start)
        parts = []
        for part in _parts_with_events(first, end):
            offset = part * PART_EVENTS
            group = self._group(RowGroupKey(SEQUENCES, address.file, address.group + part))
            assert isinstance(group, EventGroup)
            row = address.row if part == 0 else 0
            parts.append(group.events(row, max(0, first - offset), min(PART_EVENTS, end - offset)))
        columns = concatenate_columns(parts)
        skip = start - first
        times, types = columns.times, columns.types
        intervals = intervals_from_times(times)
        events = Events(
            intervals=intervals,
            types=types,
            text_ids=columns.text_ids,
            text_offsets=columns.text_offsets,
            frames=columns.frames,
            similar=np.zeros(len(times), dtype=np.bool_),
            times=times,
        )
        return StoredEvents(
            times=times[skip:],
            previous_type=np.concatenate([types[:1], types[:-1]])[skip:],
            previous_interval=np.concatenate([[np.inf], intervals[:-1]])[skip:],
            events=events.slice(skip, len(times)),
        )

    def questions(self, address: Address) -> tuple[AskedQuestion, ...]:
        """Read the questions about a sequence."""
        group = self._group(RowGroupKey(SEQUENCES, address.file, address.group))
        assert isinstance(group, EventGroup)
        return group.questions(address.row)

    def frames(
        self, file: str, frames: NDArray[np.integer]
    ) -> list[tuple[bytes, NDArray[np.uint8]]]:
        """Read frames.

        Args:
            file: Name of the file of the sequences that show the frames.
            frames: Values of the column ``frame``.

        Returns:
            Digest and (image_px * image_px * 3,) pixels of each frame.
        """
        images = []
        last_index, group = -1, None
        for frame in frames.tolist():
            index, row = divmod(frame, self._frames_per_group)
            if group is None or index != last_index:
                last_index, group = index, self._group(self._frame_group_key(file, index))
            assert isinstance(group, FrameGroup)
            images.append((group.digests[row], group.images[row]))
        return images

    def read_ahead_events(self, ranges: Iterable[tuple[Address, int, int]]) -> None:
        """Read row groups that ``events`` will need, in parallel.

        The row groups of earlier calls may be dropped from memory from now on.

        Args:
            ranges: Address, start and end of the later calls of ``events``.
        """
        self._memory.start_batch()
        self._read_ahead(
            RowGroupKey(SEQUENCES, address.file, address.group + part)
            for address, start, end in ranges
            for part in _parts_with_events(_first_event_to_read(start), end)
        )

    def read_ahead_frames(self, frames: Iterable[tuple[str, NDArray[np.integer]]]) -> None:
        """Read row groups that ``frames`` will need, in parallel.

        Args:
            frames: File and values of the later calls of ``frames``.
        """
        self._read_ahead(
            self._frame_group_key(file, index)
            for file, values in frames
            for index in np.unique(values // self._frames_per_group).tolist()
        )

    def _frame_group_key(self, file: str, index: int) -> RowGroupKey:
        """Key of the row group whose first frame is ``index * frames_per_group``."""
        block, group = divmod(index, IMAGES_PER_BLOCK // self._frames_per_group)
        return RowGroupKey(FRAMES, block_file(file, block), group)

    def _read_ahead(self, keys: Iterable[RowGroupKey]) -> None:
        unique = list(dict.fromkeys(keys))
        self._memory.protect(unique)
        missing_by_file: dict[tuple[str, str], list[RowGroupKey]] = {}
        for key in unique:
            if key not in self._memory:
                missing_by_file.setdefault((key.folder, key.file), []).append(key)
        if not missing_by_file:
            return
        # one thread per file, because a Parquet reader serves one thread at a time
        with ThreadPoolExecutor(min(READS_IN_FLIGHT, len(missing_by_file))) as pool:
            for loaded in pool.map(
                lambda keys: [(key, self._load(key)) for key in keys], missing_by_file.values()
            ):
                for key, group in loaded:
                    self._memory.add(key, group)

    def _group(self, key: RowGroupKey) -> RowGroup:
        if key not in self._memory:
            self._memory.add(key, self._load(key))
        return self._memory.get(key)

    def _load(self, key: RowGroupKey) -> RowGroup:
        """Load a row group from the disk cache or from the store."""

        def read() -> pa.Table:
            parquet = self._open(key.folder, key.file)
            with storage_errors(join(self._settings.data_uri, key.folder, key.file), _ACTION):
                columns = _GROUP_COLUMNS if key.folder == SEQUENCES else None
                return parquet.read_row_group(key.group, columns=columns).combine_chunks()

        if self._cache is None:
            table = read()
        else:
            name = f"{self._settings.data_uri} {self._settings.fingerprint} {key.cache_name}"
            table = self._cache.table(name, read)
        return EventGroup(table) if key.folder == SEQUENCES else FrameGroup(table)

    def _open(self, folder: str, file: str) -> pq.ParquetFile:
        name = f"{folder}/{file}"
        with self._lock:
            if name in self._files:
                self._files.move_to_end(name)
                return self._files[name]
        parquet = open_file(join(self._settings.data_uri, name))
        with self._lock:
            self._files[name] = parquet
            if len(self._files) > MAX_OPEN_FILES:
                self._files.popitem(last=False)
        return parquet


def _first_event_to_read(start: int) -> int:
    """The event two before ``start``: it gives the interval of the event before ``start``."""
    return max(0, start - 2)


def _parts_with_events(start: int, end: int) -> range:
    """The parts of a sequence that contain its events from ``start`` to before ``end``."""
    return range(start // PART_EVENTS, max(start, end - 1) // PART_EVENTS + 1)
