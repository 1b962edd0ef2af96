"""Reading an event store: row groups by address, read ahead, kept in memory and on disk."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mmtpp.core.events import Events, intervals_from_times
from mmtpp.core.split import events_of_split
from mmtpp.data.encode.shard_columns import CUT_COLUMNS
from mmtpp.data.store.layout import (
    FRAMES,
    IMAGES_PER_BLOCK,
    PART_EVENTS,
    QUESTION_COLUMNS,
    SEQUENCES,
    block_file,
    frames_per_group,
)
from mmtpp.data.store.questions import AskedQuestion, read_questions
from mmtpp.storage.cache import DiskCache, default_cache_folder
from mmtpp.storage.parquet import list_offsets, list_values, load_file, open_file
from mmtpp.storage.paths import join, list_files, prefetch, storage_errors

MEMORY_BYTES = 512 * 2**20  # of row groups a process keeps besides those of the present batch
MAX_OPEN_FILES = 256
READS_IN_FLIGHT = 8
_EVENT_COLUMNS = ("times", "types", "text_ids", "text_lengths", "frame")
_GROUP_COLUMNS = [*_EVENT_COLUMNS, *QUESTION_COLUMNS]
_READING = "read the event store"
_NAME_COLUMNS = ("sequence_id", "split", "part", *CUT_COLUMNS)


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """Where a store is, and what may be kept of it on the local disk.

    Attributes:
        data_uri: its data folder.
        fingerprint: of its content.
        image_px: side of its frames.
        cache_bytes: limit of the disk cache, which is for stores on S3; 0 for none.
        cache_path: folder of the cache; empty for the user's own.
        machine_labels: of the machines where Ray Data reads it, as pairs; none for any machine.
        tick: tick of the clock of its times, in the source's unit; 0 where they have none.
    """

    data_uri: str
    fingerprint: str
    image_px: int
    cache_bytes: int
    cache_path: str
    machine_labels: tuple[tuple[str, str], ...] = ()
    tick: float = 0.0

    def cache(self) -> DiskCache | None:
        """The disk cache, where one is wanted."""
        if not self.cache_bytes or not self.data_uri.startswith("s3://"):
            return None
        folder = Path(self.cache_path).expanduser() if self.cache_path else default_cache_folder()
        return DiskCache(folder, max_bytes=self.cache_bytes)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a sequence begins: file name in the store, row group, row within the group."""

    file: str
    group: int
    row: int


@dataclass(frozen=True, slots=True)
class StoredSequence:
    """One whole sequence as read back, without its images.

    Attributes:
        address: where it begins.
        sequence_id: its name.
        split: train, validation or test, or ``time`` where it is cut in time.
        times: (E,) float64 in the source's unit.
        events: its tokenised columns, no event marked as similar; text ids are empty unless asked
            for, the text offsets are there.
        questions: about it; empty unless asked for.
        cuts: times from which it is for validation and for the test, where it is cut.
    """

    address: Address
    sequence_id: str
    split: str
    times: NDArray[np.float64]
    events: Events
    questions: tuple[AskedQuestion, ...] = ()
    cuts: tuple[float, float] = (np.inf, np.inf)

    def span(self, split: str) -> tuple[int, int]:
        """The first event of a part and the one after the last; equal where it has none.

        Args:
            split: train, validation, test or all. Events before the first are the past of a part
                that is held out: known, and not scored.
        """
        return events_of_split(self.split, split, self.times, self.cuts)


@dataclass(frozen=True, slots=True)
class StoredEvents:
    """Some events of a sequence.

    Attributes:
        times: (E,) float64 in the source's unit.
        previous_type: (E,) int16 type of the event before each; its own for a sequence's first.
        previous_interval: (E,) float64 interval of the event before each; infinite for the first.
        events: tokenised columns, no event marked as similar.
    """

    times: NDArray[np.float64]
    previous_type: NDArray[np.int16]
    previous_interval: NDArray[np.float64]
    events: Events


class _Key(NamedTuple):
    """A row group of one of the store's tables."""

    folder: str
    file: str
    group: int


class StoreReader:
    """Reads sequences, parts of them and frames.

    Args:
        settings: of the store.
    """

    def __init__(self, settings: StoreSettings) -> None:
        self._settings = settings
        self._files: OrderedDict[str, pq.ParquetFile] = OrderedDict()
        self._groups: OrderedDict[_Key, _Group] = OrderedDict()
        self._held_bytes = 0
        self._wanted: set[_Key] = set()  # by the batch that was read ahead: not forgotten
        self._frames_per_group = frames_per_group(settings.image_px)
        self._lock = Lock()

    @cached_property
    def _cache(self) -> DiskCache | None:
        """Made when it is first wanted: it looks at all of its folder then."""
        return self._settings.cache()

    def files(self) -> list[str]:
        """Names of the store's files, sorted."""
        uri = join(self._settings.data_uri, SEQUENCES)
        return [info.base_name for info in list_files(uri, ".parquet")]

    def sequences(
        self, files: Iterable[str], *, with_text: bool = False, with_questions: bool = False
    ) -> Iterator[StoredSequence]:
        """All sequences of files in order, for planning and statistics; nothing is kept.

        Args:
            files: their names; the next one is read meanwhile.
            with_text: also read the text ids.
            with_questions: also read the questions.
        """
        columns = [*_NAME_COLUMNS, *_EVENT_COLUMNS]
        if not with_text:
            columns.remove("text_ids")
        if with_questions:
            columns += QUESTION_COLUMNS

        def read(file: str) -> tuple[str, pa.Table, pq.FileMetaData]:
            uri = join(self._settings.data_uri, SEQUENCES, file)
            parquet = load_file(uri)
            with storage_errors(uri, _READING):
                # threads for columns cost half as much again
                table = parquet.read(columns=columns, use_threads=False)
            return file, table.combine_chunks(), parquet.metadata

        # one thread: more of them contend for the interpreter with the one that counts
        with ThreadPoolExecutor(1) as pool:
            for file, table, metadata in prefetch(pool, read, files, depth=1):
                yield from _sequences(file, table, metadata)

    def events(self, address: Address, start: int, end: int) -> StoredEvents:
        """Events ``start`` to before ``end`` of a sequence."""
        before = max(0, start - 2)  # the interval before the first one's
        parts = []
        for part in _parts_of(before, end):
            first = part * PART_EVENTS
            group = self._group(_Key(SEQUENCES, address.file, address.group + part))
            row = address.row if part == 0 else 0
            parts.append(group.events(row, max(0, before - first), min(PART_EVENTS, end - first)))
        columns = parts[0] if len(parts) == 1 else _joined(parts)
        skip = start - before
        times, types = columns["times"], columns["types"]
        intervals = intervals_from_times(times)
        previous_type = np.concatenate([types[:1], types[:-1]])[skip:]
        previous_interval = np.concatenate([[np.inf], intervals[:-1]])[skip:]
        whole = Events(
            intervals=intervals,
            types=types,
            text_ids=columns["text_ids"],
            text_offsets=columns["text_offsets"],
            frames=columns["frame"],
            similar=np.zeros(len(times), dtype=np.bool_),
        )
        return StoredEvents(
            times[skip:], previous_type, previous_interval, whole.slice(skip, len(times))
        )

    def questions(self, address: Address) -> tuple[AskedQuestion, ...]:
        """The questions about a sequence."""
        return self._group(_Key(SEQUENCES, address.file, address.group)).questions(address.row)

    def frames(
        self, file: str, frames: NDArray[np.integer]
    ) -> list[tuple[bytes, NDArray[np.uint8]]]:
        """Digest and pixels, (image_px * image_px * 3,), behind each value of ``frame``."""
        found = []
        last, held = -1, None
        for frame in frames.tolist():
            group, row = divmod(frame, self._frames_per_group)
            if held is None or group != last:
                last, held = group, self._group(self._frame_group(file, group))
            found.append((held.digests[row], held.images[row]))
        return found

    def read_ahead_events(self, windows: Iterable[tuple[Address, int, int]]) -> None:
        """Read what ``events`` will need for these addresses, starts and ends, in parallel.

        What was read ahead before may be forgotten from now on.
        """
        self._wanted.clear()
        self._read_ahead(
            _Key(SEQUENCES, address.file, address.group + part)
            for address, start, end in windows
            for part in _parts_of(max(0, start - 2), end)
        )

    def read_ahead_frames(self, frames: Iterable[tuple[str, NDArray[np.integer]]]) -> None:
        """Read what ``frames`` will need for these files and values, in parallel."""
        self._read_ahead(
            self._frame_group(file, group)
            for file, values in frames
            for group in np.unique(values // self._frames_per_group).tolist()
        )

    def _frame_group(self, file: str, group: int) -> _Key:
        """Row group of the frames ``group * frames_per_group`` and following of a file."""
        block, group = divmod(group, IMAGES_PER_BLOCK // self._frames_per_group)
        return _Key(FRAMES, block_file(file, block), group)

    def _read_ahead(self, keys: Iterable[_Key]) -> None:
        by_file: dict[tuple[str, str], list[_Key]] = {}
        wanted = dict.fromkeys(keys)
        self._wanted.update(wanted)
        for key in wanted:
            if key not in self._groups:
                by_file.setdefault((key.folder, key.file), []).append(key)
        if not by_file:
            return
        # one thread a file: a Parquet reader serves one at a time
        with ThreadPoolExecutor(min(READS_IN_FLIGHT, len(by_file))) as pool:
            for groups in pool.map(
                lambda keys: [self._load(key) for key in keys], by_file.values()
            ):
                for key, group in groups:
                    self._hold(key, group)

    def _group(self, key: _Key) -> "_Group":
        if key not in self._groups:
            self._hold(*self._load(key))
        self._groups.move_to_end(key)
        return self._groups[key]

    def _hold(self, key: _Key, group: "_Group") -> None:
        self._groups[key] = group
        self._held_bytes += group.num_bytes
        if self._held_bytes > MEMORY_BYTES:
            kept = self._wanted | {key}
            for old in [each for each in self._groups if each not in kept]:
                self._held_bytes -= self._groups.pop(old).num_bytes
                if self._held_bytes <= MEMORY_BYTES:
                    break

    def _load(self, key: _Key) -> tuple[_Key, "_Group"]:
        def read() -> pa.Table:
            parquet = self._open(key.folder, key.file)
            with storage_errors(join(self._settings.data_uri, key.folder, key.file), _READING):
                columns = _GROUP_COLUMNS if key.folder == SEQUENCES else None
                return parquet.read_row_group(key.group, columns=columns).combine_chunks()

        if self._cache is None:
            return key, _Group(read())
        name = f"{self._settings.data_uri} {self._settings.fingerprint} {key}"
        return key, _Group(self._cache.table(name, read))

    def _open(self, folder: str, file: str) -> pq.ParquetFile:
        name = f"{folder}/{file}"
        with self._lock:
            if name in self._files:
                self._files.move_to_end(name)
                return self._files[name]
        opened = open_file(join(self._settings.data_uri, name))
        with self._lock:
            self._files[name] = opened
            if len(self._files) > MAX_OPEN_FILES:
                self._files.popitem(last=False)
        return opened


def _sequences(file: str, table: pa.Table, metadata: pq.FileMetaData) -> Iterator[StoredSequence]:
    """The sequences of a file of the store."""
    sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    groups = np.repeat(np.arange(len(sizes)), sizes)
    first_row = (np.cumsum(sizes) - sizes)[groups] if sizes else groups
    heads = np.flatnonzero(table["part"].to_numpy() == 0)
    event_edges = list_offsets(table, "times")[[*heads, len(table)]]
    columns_of = {
        name: list_values(table, name) for name in table.column_names if name in _EVENT_COLUMNS
    }
    questions: list[tuple[AskedQuestion, ...]] = [()] * len(heads)
    if QUESTION_COLUMNS[0] in table.column_names:
        questions = read_questions(table.take(heads))
    offsets = np.append(0, np.cumsum(columns_of["text_lengths"], dtype=np.int64))
    text_ids = columns_of.get("text_ids", np.zeros(0, dtype=np.int32))
    names, splits = table["sequence_id"].take(heads), table["split"].take(heads)
    cuts = np.stack([table[name].take(heads).to_numpy() for name in CUT_COLUMNS], axis=1)
    for place, (head, name, split) in enumerate(
        zip(heads.tolist(), names.to_pylist(), splits.to_pylist(), strict=True)
    ):
        start, end = int(event_edges[place]), int(event_edges[place + 1])
        times = columns_of["times"][start:end]
        text = offsets[start : end + 1]
        yield StoredSequence(
            Address(file, int(groups[head]), head - int(first_row[head])),
            name,
            split,
            times,
            Events(
                intervals=intervals_from_times(times),
                types=columns_of["types"][start:end],
                text_ids=text_ids[text[0] : text[-1]],
                text_offsets=text - text[0],
                frames=columns_of["frame"][start:end],
                similar=np.zeros(end - start, dtype=np.bool_),
            ),
            questions[place],
            (float(cuts[place, 0]), float(cuts[place, 1])),
        )


class _Group:
    """A row group in memory, its lists as flat arrays.

    Args:
        table: without copies of its own: it may be mapped from a file.
    """

    def __init__(self, table: pa.Table) -> None:
        self.num_bytes = table.nbytes
        self.digests: list[bytes] = []
        self._edges: dict[str, np.ndarray] = {}
        if "image" in table.column_names:
            self.digests = table["digest"].to_pylist()
            pixels = table["image"].combine_chunks().buffers()[2]
            self.images = np.frombuffer(pixels, dtype=np.uint8).reshape(len(table), -1)
        else:
            self._edges = {name: list_offsets(table, name) for name in _EVENT_COLUMNS}
            self._questions = table.select(list(QUESTION_COLUMNS))
        self._values = {name: list_values(table, name) for name in self._edges}
        if self._edges:
            lengths = self._values.pop("text_lengths")
            self._text_offsets = np.append(0, np.cumsum(lengths, dtype=np.int64))
            self._text_ids = self._values.pop("text_ids")

    def questions(self, row: int) -> tuple[AskedQuestion, ...]:
        """The questions about the sequence that begins in a row."""
        return read_questions(self._questions.slice(row, 1))[0]

    def events(self, row: int, start: int, end: int) -> dict[str, np.ndarray]:
        """The columns of events ``start`` to before ``end`` of a row, or to its last event."""
        first, last = self._edges["times"][row : row + 2].tolist()
        first, last = first + start, min(first + end, last)
        columns = {name: values[first:last] for name, values in self._values.items()}
        offsets = self._text_offsets[first : last + 1]
        columns["text_offsets"] = offsets - offsets[0]
        columns["text_ids"] = self._text_ids[offsets[0] : offsets[-1]]
        return columns


def _joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The columns of ``_Group.events`` of parts that follow each other."""
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    lengths = np.concatenate([np.diff(part["text_offsets"]) for part in parts])
    return columns | {"text_offsets": np.append(0, np.cumsum(lengths))}


def _parts_of(start: int, end: int) -> range:
    """Parts of a sequence that events ``start`` to before ``end`` lie in."""
    return range(start // PART_EVENTS, (max(start, end - 1)) // PART_EVENTS + 1)
