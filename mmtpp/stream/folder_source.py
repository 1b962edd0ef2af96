"""A folder whose files appear over time; a file is complete when it appears."""

from collections import deque
from pathlib import PurePosixPath

from pyarrow.fs import FileInfo

from mmtpp.core.errors import DataError, MissingFileError
from mmtpp.storage.paths import join, list_source, read_bytes
from mmtpp.stream.arrivals import Arrival
from mmtpp.stream.event_parser import EventParser
from mmtpp.stream.source_positions import Positions

PARTITION = ""  # a folder has one part
_HIDDEN = (".", "_")


class FolderSource:
    """Reads the new files of a folder, the oldest first.

    Attributes:
        positions: Size in bytes and time of each file that was read, by path.

    Args:
        uri: The folder.
        parser: Parser of the files.
        positions: Files that an earlier job has read.
        max_file_bytes: Largest file, because a file is read whole.
    """

    def __init__(
        self, uri: str, parser: EventParser, positions: Positions, *, max_file_bytes: int
    ) -> None:
        self.positions = positions
        self._uri, self._parser, self._max_file_bytes = uri, parser, max_file_bytes
        self._waiting: deque[tuple[str, list[int | None]]] = deque()
        self._is_drained = False

    def read(self, room: int) -> list[Arrival]:
        """Read one file, whatever its size; nothing if there is no new one.

        Raises:
            DataError: A file changed after it was read, or is malformed or too large.
            StorageError: The folder or a file cannot be read.
        """
        del room
        if not self._waiting:
            self._waiting.extend(self._new_files())
        self._is_drained = not self._waiting
        if self._is_drained:
            return []
        path, state = self._waiting.popleft()
        content = read_bytes(join(self._uri, path), max_bytes=self._max_file_bytes)
        if len(content) != state[0]:
            raise self._changed(path)
        arrival = self._parser.parse(PARTITION, path, content)
        self.positions.set(path, state)
        return [arrival]

    def pause(self) -> None:
        """Read nothing."""
        self._is_drained = False

    def partitions(self) -> list[str]:
        """The only partition."""
        return [PARTITION]

    def drained(self) -> set[str]:
        """The only partition, if the last listing had no new file."""
        return {PARTITION} if self._is_drained else set()

    def lost(self) -> int:
        """No file is deleted unseen: 0."""
        return 0

    def close(self) -> None:
        """Nothing is open."""

    def _new_files(self) -> list[tuple[str, list[int | None]]]:
        """Path, size and time of the files that were not read, the oldest first."""
        try:
            files = list_source(self._uri, "")
        except MissingFileError as error:
            raise MissingFileError(
                "there is no such folder",
                where=self._uri,
                cause="the path is misspelt, or nothing has been written yet",
                setting=f"stream.input = {self._uri}",
            ) from error
        found = [(path, _state(info)) for path, info in files if self._is_read(path)]
        for path, state in found:
            if self.positions.values.get(path, state) != state:
                raise self._changed(path)
        new = [file for file in found if file[0] not in self.positions.values]
        return sorted(new, key=lambda file: (file[1][1] or 0, file[0]))

    def _is_read(self, path: str) -> bool:
        hidden = any(part.startswith(_HIDDEN) for part in PurePosixPath(path).parts)
        return self._parser.reader.reads(path) and not hidden

    def _changed(self, path: str) -> DataError:
        return DataError(
            "a file changed after it was listed or read",
            where=join(self._uri, path),
            cause="its events were landed, or it was still being written; write files under "
            "another name and rename them, and put changed events into a new file; remove this one",
            setting=f"stream.input = {self._uri}",
        )


def _state(info: FileInfo) -> list[int | None]:
    """Size and time of a file as JSON keeps them."""
    return [info.size, info.mtime_ns]
