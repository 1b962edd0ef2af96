"""List the files of a source: event files, and files that are not read."""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pyarrow.fs import FileInfo

from mmtpp.core.errors import DataError, MissingFileError
from mmtpp.data.encode.encode_settings import EncodeSettings
from mmtpp.data.encode.saved_datasets import files_without_events
from mmtpp.data.encode.source_files import SourceFiles
from mmtpp.data.sources import kinds_that_read
from mmtpp.data.sources.event_files import suffix_of
from mmtpp.data.sources.reader import SourceReader
from mmtpp.storage.paths import join, list_source

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")


@dataclass(frozen=True, slots=True)
class SourceListing:
    """The files of a source.

    Attributes:
        events: Paths and sizes in bytes of the event files, sorted by path.
        not_read: Number of files that are not read, by suffix; without images and hidden files.
    """

    events: list[tuple[str, int]]
    not_read: dict[str, int]

    @classmethod
    def from_files(
        cls, reader: SourceReader, files: Iterable[tuple[str, FileInfo]]
    ) -> "SourceListing":
        """Sort files into event files and files that are not read, by their names.

        Args:
            reader: Reader of the source, which knows the suffixes of event files.
            files: Paths relative to the source, sorted, with their sizes.
        """
        return cls._sort(reader, files, set(), set())

    @classmethod
    def from_source(
        cls, reader: SourceReader, uri: str, files: Sequence[tuple[str, FileInfo]]
    ) -> "SourceListing":
        """Sort the files of a source, whose saved data sets list their files themselves.

        Args:
            reader: Reader of the source, which knows the suffixes of event files.
            uri: URI of the source.
            files: Paths relative to the source, sorted, with their sizes.

        Raises:
            DataError: A saved data set is incomplete.
            StorageError: The description of a saved data set cannot be read.
        """
        if not reader.reads("data.arrow"):
            return cls.from_files(reader, files)
        descriptions, strays = files_without_events(uri, [path for path, _ in files])
        return cls._sort(reader, files, descriptions, strays)

    @classmethod
    def _sort(
        cls,
        reader: SourceReader,
        files: Iterable[tuple[str, FileInfo]],
        descriptions: set[str],
        strays: set[str],
    ) -> "SourceListing":
        events: list[tuple[str, int]] = []
        not_read: Counter[str] = Counter()
        for path, info in files:
            name = path.rpartition("/")[2]
            if path in descriptions:
                continue
            if reader.reads(path) and path not in strays:
                events.append((path, info.size))
            elif not name.startswith((".", "_")) and suffix_of(path) not in IMAGE_SUFFIXES:
                not_read[suffix_of(path) or "without a suffix"] += 1
        return cls(events, dict(not_read))

    def warning(self) -> str:
        """A sentence about the files that are not read; empty if all files are read."""
        if not self.not_read:
            return ""
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(self.not_read.items()))
        return f"{sum(self.not_read.values())} files are not read ({kinds})"


def list_event_files(
    settings: EncodeSettings, *, max_file_bytes: int
) -> tuple[SourceListing, SourceFiles]:
    """List the files of a source, and warn of files that are not read.

    Args:
        settings: Location and kind of the source.
        max_file_bytes: Largest event file, because a process reads a whole file into memory.

    Returns:
        The event files, and the state of all files, images included.

    Raises:
        DataError: There is no event file, or one is too large.
    """
    reader = settings.build_reader()
    files = list_files_of_source(settings.source_uri, settings.source_file)
    listing = SourceListing.from_source(reader, settings.source_uri, files)
    if not listing.events:
        raise no_files_error(
            reader,
            listing,
            where=settings.source_uri,
            setting=f"source.kind = {settings.source_kind}, source.uri = {settings.source_uri}",
        )
    if listing.not_read:
        logger.warning("%s: %s", settings.source_uri, listing.warning())
    path, size = max(listing.events, key=lambda file: file[1])
    if size > max_file_bytes:
        raise DataError(
            f"a file of {size / 2**20:.0f} MiB; a process reads a whole file, and needs about ten "
            "times its size in memory",
            where=join(settings.source_uri, path),
            cause="split the file by sequence into files of 10 to 100 MiB",
            setting=f"source.max_file_mib = {max_file_bytes // 2**20}",
        )
    return listing, SourceFiles.from_listing(files, (path for path, _ in listing.events))


def list_files_of_source(uri: str, file: str) -> list[tuple[str, FileInfo]]:
    """List the files of a source, with their paths relative to its folder.

    Args:
        uri: URI of the folder.
        file: Name of the only file of the source; empty for all files in the folder.

    Raises:
        StorageError: The folder is missing or unreachable.
    """
    try:
        return list_source(uri, file)
    except MissingFileError as error:
        raise missing_source_error(join(uri, file) if file else uri) from error


def missing_source_error(uri: str) -> MissingFileError:
    """The error of a source that does not exist.

    Args:
        uri: Location of the source.
    """
    return MissingFileError(
        "there is no such file or folder",
        where=uri,
        cause="the path is misspelt, or relative to another folder",
        setting=f"source.uri = {uri}",
    )


def no_files_error(
    reader: SourceReader, listing: SourceListing, *, where: str, setting: str
) -> DataError:
    """The error of a source without event files.

    Args:
        reader: Reader of the source.
        listing: Files that were found instead.
        where: Location of the source.
        setting: Settings that choose the source, with their values.
    """
    other_kinds = [
        f"source.kind = {' or '.join(kinds)} reads {suffix} files"
        for suffix in sorted(listing.not_read)
        if (kinds := kinds_that_read(suffix))
    ]
    return DataError(
        f"no {' or '.join(reader.suffixes)} files",
        where=where,
        cause="; ".join(filter(None, (listing.warning(), *other_kinds))),
        setting=setting,
    )
