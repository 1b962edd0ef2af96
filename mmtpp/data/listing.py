"""Which files of a source hold events, and which are not read."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from pyarrow.fs import FileInfo

from mmtpp.data.sources.reader import SourceReader
from mmtpp.data.sources.tables import suffix_of

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
