"""Which files of a source hold events, and which are not read."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from pyarrow.fs import FileInfo

from mmtpp.core.errors import DataError
from mmtpp.data.encode.encode_settings import EncodeSettings
from mmtpp.data.sources.reader import SourceReader
from mmtpp.data.sources.tables import suffix_of
from mmtpp.storage.paths import join, list_source

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of a source.

    Attributes:
        events: Event files with their sizes in bytes, sorted by path.
        not_read: Number of other files by suffix; images and hidden files are not counted.
    """

    events: list[tuple[str, int]]
    not_read: dict[str, int]

    def warning(self) -> str:
        """A sentence on the files that are not read; empty where there are none."""
        if not self.not_read:
            return ""
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(self.not_read.items()))
        return f"{sum(self.not_read.values())} files are not read ({kinds})"


def listing(reader: SourceReader, files: Iterable[tuple[str, FileInfo]]) -> Listing:
    """Tell event files from others by their names."""
    events: list[tuple[str, int]] = []
    others: Counter[str] = Counter()
    for path, info in files:
        name = path.rpartition("/")[2]
        if reader.reads(path):
            events.append((path, info.size))
        elif not name.startswith((".", "_")) and suffix_of(path) not in IMAGE_SUFFIXES:
            others[suffix_of(path) or "without a suffix"] += 1
    return Listing(events, dict(others))


def list_events(settings: EncodeSettings, *, max_file_bytes: int) -> tuple[Listing, str]:
    """The files of a source, and a hash of their state, images included.

    Args:
        settings: The source.
        max_file_bytes: Larger event files are refused, since a process reads a file whole.

    Raises:
        DataError: no event files, or one that is too large.
    """
    reader = settings.reader()
    files = list_source(settings.source_uri, settings.source_file)
    state = hashlib.sha256()
    for path, info in files:
        state.update(f"{path}\0{info.size}\0{info.mtime_ns}\0".encode("utf-8", "surrogatepass"))
    found = listing(reader, files)
    if not found.events:
        raise DataError(
            f"no {' or '.join(reader.suffixes)} files",
            where=settings.source_uri,
            cause=found.warning(),
            setting=f"source.kind = {settings.source_kind}, source.uri = {settings.source_uri}",
        )
    path, size = max(found.events, key=lambda file: file[1])
    if size > max_file_bytes:
        raise DataError(
            f"a file of {size / 2**20:.0f} MiB; one process reads a file whole, and needs some ten "
            "times its size in memory",
            where=join(settings.source_uri, path),
            cause="split it by sequence into files of some 10 to 100 MiB",
            setting=f"source.max_file_mib = {max_file_bytes // 2**20}",
        )
    return found, state.hexdigest()
