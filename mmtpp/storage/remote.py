"""The files of an fsspec filesystem, in the form of pyarrow, which Ray and Parquet readers use."""

import io
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
from fsspec import AbstractFileSystem

from mmtpp.core.errors import FileTooLargeError

# Stores without folders: a file appears when it is complete, and its name may hold any folders.
OBJECT_STORES = frozenset({"s3", "gs", "gcs", "az", "abfs", "abfss", "memory"})
CONNECT_S, SILENCE_S = 10.0, 20.0  # seconds after which a request is tried again
STREAM_BYTES = 8 * 2**20  # of one request, when a file is read from start to end


class RangeFile(io.RawIOBase):
    """A file of which each read is one request for exactly the bytes that are read."""

    def __init__(self, read_range: Callable[[int, int], bytes], size: int) -> None:
        """Open a file.

        Args:
            read_range: Reads the bytes from a start to an end, exclusive.
            size: Size of the file, in bytes.
        """
        self._read_range = read_range
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        """Whether the file can be read."""
        return True

    def seekable(self) -> bool:
        """Whether the position can be changed."""
        return True

    def tell(self) -> int:
        """Position of the next read, in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Change the position of the next read.

        Args:
            offset: Distance, in bytes.
            whence: Place from which the distance counts, as in ``io``.
        """
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """Read bytes from the position; fewer at the end of the file.

        Args:
            size: Number of bytes; negative or None for all that are left.
        """
        left = max(0, self._size - self._position)
        count = left if size is None or size < 0 else min(size, left)
        data = self._read_range(self._position, self._position + count) if count else b""
        self._position += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        """Read bytes from the position into a buffer; return their number."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class RemoteFiles(pafs.FSSpecHandler):
    """The files of a bucket, container or server, by paths as the fsspec client writes them.

    pyarrow's own handler of fsspec has no times, expands patterns in the names that it deletes, and
    lets clients create buckets; those are replaced here.
    """

    def __init__(self, fs: AbstractFileSystem, rebuild: tuple[Callable, tuple]) -> None:
        """Use a client.

        Args:
            fs: Client, without a cache of listings.
            rebuild: Function and arguments that make these files in another process. They hold no
                credentials.
        """
        super().__init__(fs)
        self._rebuild = rebuild

    def __reduce__(self) -> tuple[Callable, tuple]:
        return self._rebuild

    @staticmethod
    def client_settings() -> dict[str, Any]:
        """Arguments of the client besides those of the URI: the times of its requests."""
        return {}

    @property
    def _is_object_store(self) -> bool:
        protocol = self.fs.protocol
        names = {protocol} if isinstance(protocol, str) else set(protocol)
        return not names.isdisjoint(OBJECT_STORES)

    def path_of(self, uri: str) -> str:
        """Path of a URI within these files."""
        return type(self.fs)._strip_protocol(uri)

    # what pyarrow calls

    def get_file_info(self, paths: list[str]) -> list[pafs.FileInfo]:
        """Kind, size and time of files; ``NotFound`` for paths that do not exist."""
        return [self._info(path) for path in paths]

    def _info(self, path: str) -> pafs.FileInfo:
        try:
            return file_info(path, self.fs.info(path))
        except FileNotFoundError:
            return pafs.FileInfo(path, pafs.FileType.NotFound)

    def get_file_info_selector(self, selector: pafs.FileSelector) -> list[pafs.FileInfo]:
        """Files and folders in a folder and, if asked for, in its subfolders."""
        base = selector.base_dir.rstrip("/")
        infos = {
            path.rstrip("/"): file_info(path.rstrip("/"), entry)
            for path, entry in self._entries(base, recursive=selector.recursive).items()
            if path.strip("/") != base.strip("/")
        }
        if not infos and not selector.allow_not_found and not self._is_folder(base):
            raise FileNotFoundError(base)
        if selector.recursive:
            for folder in _parents(infos, base):
                infos.setdefault(folder, pafs.FileInfo(folder, pafs.FileType.Directory))
        return list(infos.values())

    def _entries(self, folder: str, *, recursive: bool) -> dict[str, dict[str, Any]]:
        """What fsspec says of the files, and without ``recursive`` of the folders, in a folder."""
        try:
            if not recursive:
                return {entry["name"]: entry for entry in self.fs.ls(folder, detail=True)}
            found = self.fs.find(folder, detail=True)
        except FileNotFoundError:
            return {}
        return found if isinstance(found, dict) else {}  # adlfs: a list for the path of a file

    def _is_folder(self, path: str) -> bool:
        return self._info(path).type == pafs.FileType.Directory

    def create_dir(self, path: str, recursive: bool) -> None:
        """Create a folder; object stores have none, and no bucket is created."""
        if not self._is_object_store:
            self.fs.makedirs(path, exist_ok=True) if recursive else self.fs.mkdir(path)

    def delete_dir(self, path: str) -> None:
        """Delete a folder with everything in it."""
        self.delete_dir_contents(path, missing_dir_ok=False)
        if not self._is_object_store:
            self.fs.rm(path, recursive=True)

    def delete_dir_contents(self, path: str, missing_dir_ok: bool) -> None:
        """Delete everything in a folder."""
        if not path.strip("/"):
            raise ValueError("the path of the folder to delete is empty")
        files = self.fs.find(path)
        if not files and not missing_dir_ok and not self._is_folder(path):
            raise FileNotFoundError(path)
        for file in files:
            self.fs.rm_file(file)

    def delete_file(self, path: str) -> None:
        """Delete a file."""
        if not self._info(path).is_file:
            raise FileNotFoundError(path)
        self.fs.rm_file(path)

    def copy_file(self, src: str, dest: str) -> None:
        """Copy a file within these files."""
        self.fs.cp_file(src, dest)

    def open_input_file(self, path: str) -> pa.PythonFile:
        """Open a file for reads at any position."""
        return pa.PythonFile(self._open(path), mode="r")

    def open_input_stream(self, path: str) -> pa.PythonFile:
        """Open a file for reading from start to end."""
        return pa.PythonFile(io.BufferedReader(self._open(path), STREAM_BYTES), mode="r")

    def _open(self, path: str) -> RangeFile:
        return RangeFile(lambda start, end: self.read_range(path, start, end), self.size(path))

    # what this package calls

    def size(self, path: str) -> int:
        """Size of a file in bytes; raises FileNotFoundError if it is missing or a folder."""
        info = self._info(path)
        if not info.is_file:
            raise FileNotFoundError(path)
        return info.size

    def read_range(self, path: str, start: int, end: int) -> bytes:
        """Read the bytes from ``start`` to ``end``, exclusive."""
        return self.fs.cat_file(path, start=start, end=end)

    def read(self, path: str, *, max_bytes: int | None) -> bytes:
        """Read a whole file; raises FileTooLargeError, without reading, over ``max_bytes``."""
        if max_bytes is not None:
            check_size(self.size(path), max_bytes)
        return self.fs.cat_file(path)

    def write(self, path: str, data: bytes) -> None:
        """Write a whole file, and its folders; other processes see it complete or not at all."""
        if self._is_object_store:
            self.fs.pipe_file(path, data)
            return
        self.fs.makedirs(str(PurePosixPath(path).parent), exist_ok=True)
        pending = f"{path}.{os.getpid()}.pending"
        self.fs.pipe_file(pending, data)
        self.fs.mv(pending, path)

    def create(self, path: str, data: bytes) -> bool:
        """Write a whole file unless it exists, and its folders; returns whether it was written."""
        if not self._is_object_store:
            self.fs.makedirs(str(PurePosixPath(path).parent), exist_ok=True)
        try:
            self.fs.pipe_file(path, data, mode="create")
        except FileExistsError:
            return False
        return True

    def upload(self, source: Path, path: str) -> None:
        """Write a local file to a path, and its folders."""
        if not self._is_object_store:
            self.fs.makedirs(str(PurePosixPath(path).parent), exist_ok=True)
        self.fs.put_file(str(source), path)

    def download(self, path: str, target: Path) -> None:
        """Write a file to a local path, which appears when it is complete."""
        pending = target.with_name(f"{target.name}.{os.getpid()}.pending")
        file = self._open(path)
        with pending.open("wb") as sink:
            while data := file.read(STREAM_BYTES):
                sink.write(data)
        pending.replace(target)

    def has_bucket(self, bucket: str) -> bool:
        """Whether a bucket exists; True for stores that have none."""
        del bucket
        return True


def check_size(size: int, max_bytes: int | None) -> None:
    """Raise FileTooLargeError for a file of more than ``max_bytes``; None allows any size."""
    if max_bytes is not None and size > max_bytes:
        raise FileTooLargeError(f"the file has {size} bytes")


def file_info(path: str, info: dict[str, Any]) -> pafs.FileInfo:
    """Convert what fsspec says of a file; clients have different names for the time of a file."""
    is_file = info["type"] == "file"
    times = (info.get(name) for name in ("mtime", "LastModified", "last_modified", "updated"))
    time = next((time for time in (*times, info.get("created")) if time is not None), None)
    return pafs.FileInfo(
        path,
        pafs.FileType.File if is_file else pafs.FileType.Directory,
        size=info.get("size") if is_file else None,
        mtime_ns=None if time is None else _nanoseconds(time),
    )


def _nanoseconds(time: float | str | datetime) -> int:
    if isinstance(time, str):
        time = datetime.fromisoformat(time)
    if isinstance(time, datetime):
        aware = time if time.tzinfo else time.replace(tzinfo=UTC)
        return round(aware.timestamp() * 1_000_000) * 1_000
    return int(time * 1e9)


def _parents(files: dict[str, pafs.FileInfo], base: str) -> set[str]:
    """Folders between a folder and the files below it."""
    folders: set[str] = set()
    for path in files:
        folder = path.rpartition("/")[0]
        while len(folder) > len(base) and folder not in folders:
            folders.add(folder)
            folder = folder.rpartition("/")[0]
    return folders
