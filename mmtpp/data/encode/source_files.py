"""The state of a source's files: how a later ``encode`` sees which of them are new or changed."""

import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow.fs import FileInfo

SOURCE_FILES_SCHEMA = pa.schema(
    [
        ("path", pa.string()),  # relative to the source
        ("size", pa.int64()),  # in bytes
        ("mtime_ns", pa.int64()),  # null where the storage has no times
        ("has_events", pa.bool_()),
    ]
)


@dataclass(frozen=True, slots=True)
class SourceFiles:
    """All files of a source, images included, sorted by path.

    Attributes:
        table: A row per file, ``SOURCE_FILES_SCHEMA``.
    """

    table: pa.Table

    @classmethod
    def from_listing(
        cls, files: Iterable[tuple[str, FileInfo]], event_paths: Iterable[str]
    ) -> "SourceFiles":
        """The state of listed files.

        Args:
            files: Paths relative to the source, sorted, with their sizes and times.
            event_paths: Paths of the event files among them.
        """
        with_events = set(event_paths)
        rows = [
            (path.encode("utf-8", "replace").decode(), info.size, info.mtime_ns)
            for path, info in files
        ]
        paths, sizes, times = zip(*rows, strict=True) if rows else ((), (), ())
        columns = [paths, sizes, times, [path in with_events for path, _ in files]]
        return cls(pa.table(list(map(list, columns)), schema=SOURCE_FILES_SCHEMA))

    @classmethod
    def from_bytes(cls, content: bytes) -> "SourceFiles":
        """The state that ``as_bytes`` wrote."""
        return cls(pq.read_table(io.BytesIO(content)))

    def as_bytes(self) -> bytes:
        """The state as a Parquet file."""
        sink = io.BytesIO()
        pq.write_table(self.table, sink, compression="zstd")
        return sink.getvalue()

    @property
    def digest(self) -> str:
        """Hash of names, sizes and times of all files."""
        state = hashlib.sha256()
        columns = self.table.select(["path", "size", "mtime_ns"]).to_pydict().values()
        for path, size, mtime_ns in zip(*columns, strict=True):
            state.update(f"{path}\0{size}\0{mtime_ns}\0".encode())
        return state.hexdigest()

    def event_files(self) -> list[tuple[str, int]]:
        """Paths and sizes of the event files, sorted by path."""
        events = self.table.filter(self.table["has_events"])
        return list(zip(events["path"].to_pylist(), events["size"].to_pylist(), strict=True))

    def unchanged_in(self, newer: "SourceFiles") -> set[str]:
        """Paths of the files that a newer state of the source has, too, with size and time."""
        names = ["path", "size", "mtime_ns"]
        before, after = (
            set(zip(*files.table.select(names).to_pydict().values(), strict=True))
            for files in (self, newer)
        )
        return {path for path, _, _ in before & after}

    def others_are_unchanged_in(self, newer: "SourceFiles") -> bool:
        """Whether a newer state of the source has all files without events unchanged."""
        others = self.table.filter(~pc.field("has_events"))
        return set(others["path"].to_pylist()) <= self.unchanged_in(newer)
