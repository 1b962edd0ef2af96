"""Files by URI, a local path or any storage of ``filesystems``: read, write, list, copy, delete."""

import os
import re
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TypeVar

import pyarrow as pa
import pyarrow.fs as pafs

from mmtpp.core.errors import DataError, FileTooLargeError, StorageError
from mmtpp.storage.client_errors import storage_errors
from mmtpp.storage.filesystems import filesystem_of, is_remote
from mmtpp.storage.remote import STREAM_BYTES, RemoteFiles, check_size

Item = TypeVar("Item")
Result = TypeVar("Result")
COPY_THREADS = 16
READS_IN_FLIGHT = 16  # of small files, by one process
MAX_PATH = 1024  # bytes of a whole path; the limit of S3 for a key


def as_uri(place: str | os.PathLike[str]) -> str:
    """Convert a path or URI to text.

    Raises:
        DataError: The object is neither a path nor text, or ``pathlib`` has damaged the URI.
    """
    if not isinstance(place, str | os.PathLike):
        raise DataError(
            f"expected a path or a URI, but got a {type(place).__name__}",
            cause="pass a local path or a URI such as s3://bucket/folder",
        )
    uri = os.fspath(place)
    if isinstance(place, os.PathLike) and re.match(r"[a-z0-9]{2,}:/[^/]", uri):
        raise DataError(
            f"{uri!r} is not a URI: pathlib removes one of two slashes",
            cause="pass URIs as text, such as 's3://bucket/folder'",
        )
    return uri


def join(uri: str, *parts: str) -> str:
    """Append path parts to a URI."""
    return "/".join([uri.rstrip("/"), *(part.strip("/") for part in parts)])


def join_inside(uri: str, relative: str) -> str:
    """Append a path taken from user data, which must stay below ``uri``.

    Raises:
        DataError: The path is absolute, has a drive, a scheme or "..", or is too long for a file
            or an object.
    """
    pure = PurePosixPath(relative.replace("\\", "/"))
    if pure.is_absolute() or ".." in pure.parts or ":" in relative or "\0" in relative:
        raise DataError(f"path {relative[:200]!r} leaves the source folder", where=uri)
    joined = join(uri, str(pure))
    size = len(joined.encode("utf-8", "surrogatepass"))
    if size > MAX_PATH:
        raise DataError(f"path {relative[:100]!r}... has {size} bytes", where=uri)
    return joined


def read_bytes(uri: str, *, max_bytes: int | None = None) -> bytes:
    """Read a whole file.

    Raises:
        StorageError: The file is missing or unreachable.
        FileTooLargeError: The file has more than ``max_bytes``; it is not read.
    """
    with storage_errors(uri, "read the file"):
        filesystem, path = filesystem_of(uri)
        try:
            if remote := _remote(filesystem):
                return remote.read(path, max_bytes=max_bytes)
            with filesystem.open_input_file(path) as file:
                check_size(file.size(), max_bytes)
                return file.read()
        except FileTooLargeError as error:
            raise FileTooLargeError(error.problem, where=uri) from None


def read_range(uri: str, start: int, end: int) -> bytes:
    """Read the bytes of a file from ``start`` to ``end``, exclusive.

    Raises:
        StorageError: The file is missing, unreachable or shorter than ``end``.
    """
    if start == end:
        return b""
    with storage_errors(uri, "read a part of the file"):
        filesystem, path = filesystem_of(uri)
        if remote := _remote(filesystem):
            data = remote.read_range(path, start, end)
        else:
            with filesystem.open_input_file(path) as file:
                data = file.read_at(end - start, start)
    if len(data) != end - start:
        raise StorageError(
            f"read {len(data)} of {end - start} bytes from byte {start}",
            where=uri,
            cause="the file was replaced or cut short while it was read",
        )
    return data


def _remote(filesystem: pafs.FileSystem) -> RemoteFiles | None:
    """The files of a filesystem that is not local."""
    return filesystem.handler if isinstance(filesystem, pafs.PyFileSystem) else None


def prefetch(
    pool: Executor, function: Callable[[Item], Result], items: Iterable[Item], *, depth: int
) -> Iterator[Result]:
    """Yield the results of ``function`` in order, computing up to ``depth`` of them ahead.

    Args:
        pool: Threads that compute results.
        function: Function of one item.
        items: Items, in order.
        depth: Maximum number of results that are computed before they are needed.
    """
    futures: deque[Future[Result]] = deque()
    for item in items:
        futures.append(pool.submit(function, item))
        if len(futures) > depth:
            yield futures.popleft().result()
    while futures:
        yield futures.popleft().result()


def write_bytes(uri: str, data: bytes | pa.Buffer) -> None:
    """Write a whole file, and create its folders. The write is atomic.

    Raises:
        StorageError: The file cannot be written.
    """
    with storage_errors(uri, "write the file"):
        filesystem, path = filesystem_of(uri)
        if remote := _remote(filesystem):
            remote.write(path, bytes(memoryview(data)))
            return
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        pending = f"{path}.{os.getpid()}.pending"
        Path(pending).write_bytes(memoryview(data))
        Path(pending).replace(path)


def create_bytes(uri: str, data: bytes) -> bool:
    """Write a whole file unless it exists. Of two processes that create it, one succeeds.

    S3, Google Cloud Storage and Azure refuse the second write themselves; some servers of other
    makers ignore the condition and replace the file.

    Returns:
        Whether the file was written; False if it existed.

    Raises:
        StorageError: The file cannot be written.
    """
    with storage_errors(uri, "create the file"):
        filesystem, path = filesystem_of(uri)
        if remote := _remote(filesystem):
            return remote.create(path, data)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        pending = Path(f"{path}.{os.getpid()}.pending")
        pending.write_bytes(data)
        try:
            Path(path).hardlink_to(pending)  # unlike a rename, it fails if the name is taken
        except FileExistsError:
            return False
        finally:
            pending.unlink()
        return True


def remove_file(uri: str) -> None:
    """Delete a file, if it exists.

    Raises:
        StorageError: The file cannot be deleted or reached.
    """
    with storage_errors(uri, "delete the file"):
        filesystem, path = filesystem_of(uri)
        with suppress(FileNotFoundError):
            filesystem.delete_file(path)


def exists(uri: str) -> bool:
    """Whether a file or folder exists.

    Raises:
        StorageError: The bucket is missing or cannot be reached.
    """
    check_bucket(uri)
    with storage_errors(uri, "check the path"):
        filesystem, path = filesystem_of(uri)
        return filesystem.get_file_info(path).type != pafs.FileType.NotFound


def check_bucket(uri: str) -> None:
    """Check that the bucket or container of a remote URI exists; other URIs pass.

    Raises:
        StorageError: The bucket is missing, or the credentials are refused.
    """
    if not is_remote(uri):
        return
    bucket = uri.partition("://")[2].partition("/")[0]
    with storage_errors(uri, f"reach the bucket {bucket}"):
        filesystem, path = filesystem_of(uri)
        remote = _remote(filesystem)
        has_bucket = remote is None or remote.has_bucket(path.partition("/")[0])
    if not has_bucket:
        raise StorageError(
            f"the bucket {bucket} does not exist",
            where=uri,
            cause="create it or correct the URI; mmtpp does not create buckets",
        )


def list_files(uri: str, suffix: str | tuple[str, ...]) -> list[pafs.FileInfo]:
    """Files in a folder and its subfolders whose names end in a suffix, sorted by path.

    Args:
        uri: URI of the folder.
        suffix: One suffix, or several.

    Raises:
        StorageError: The folder is missing or unreachable.
    """
    check_bucket(uri)
    with storage_errors(uri, "list the folder"):
        filesystem, path = filesystem_of(uri)
        infos = filesystem.get_file_info(pafs.FileSelector(path, recursive=True))
    files = [info for info in infos if info.is_file and info.path.endswith(suffix)]
    return sorted(files, key=lambda info: info.path)


def split_file(uri: str) -> tuple[str, str]:
    """Split the URI of a file into folder and name; a folder has an empty name.

    Raises:
        StorageError: The URI cannot be reached.
    """
    with storage_errors(uri, "check the path"):
        filesystem, path = filesystem_of(uri)
        if not filesystem.get_file_info(path).is_file:
            return uri, ""
    folder, separator, name = uri.rpartition("/")
    return (folder if separator else ".") or "/", name


def list_source(uri: str, file: str) -> list[tuple[str, pafs.FileInfo]]:
    """List the files of a source, with their paths relative to its folder.

    Args:
        uri: URI of the folder.
        file: Name of the only file of the source; empty for all files in the folder.

    Raises:
        StorageError: The folder is missing or unreachable.
    """
    if not file:
        _, root = filesystem_of(uri)
        return [(info.path.removeprefix(root).lstrip("/"), info) for info in list_files(uri, "")]
    with storage_errors(join(uri, file), "check the file"):
        filesystem, path = filesystem_of(join(uri, file))
        return [(file, filesystem.get_file_info(path))]


def copy_file(source: str, target: str) -> None:
    """Copy a file; either side may be local or remote. The target's folder is created.

    Raises:
        StorageError: The source cannot be read, or the target cannot be written.
    """
    with storage_errors(f"{source} -> {target}", "copy the file"):
        source_filesystem, source_path = filesystem_of(source)
        target_filesystem, target_path = filesystem_of(target)
        _copy(source_filesystem, source_path, target_filesystem, target_path)


def copy_folder(source: str, target: str) -> None:
    """Copy all files in ``source`` and its subfolders to ``target``; both may be local or remote.

    Raises:
        StorageError: The source cannot be read, or the target cannot be written.
        DataError: The name of an object would leave the target.
    """
    with storage_errors(f"{source} -> {target}", "copy the folder"):
        source_filesystem, root = filesystem_of(source)
        target_filesystem, target_root = filesystem_of(target)
        infos = source_filesystem.get_file_info(pafs.FileSelector(root, recursive=True))
    names = [info.path.removeprefix(root).lstrip("/") for info in infos if info.is_file]
    for name in names:
        if ".." in PurePosixPath(name).parts or "\0" in name:  # an object may have any name
            raise DataError(f"file {name[:200]!r} leaves the target folder", where=target)
    with storage_errors(f"{source} -> {target}", "copy the folder"):
        if _remote(target_filesystem) is None:
            Path(target_root).mkdir(parents=True, exist_ok=True)

        def copy(name: str) -> None:
            source_path, target_path = join(root, name), join(target_root, name)
            _copy(source_filesystem, source_path, target_filesystem, target_path)

        with ThreadPoolExecutor(COPY_THREADS) as pool:
            list(pool.map(copy, names))


def _copy(
    source_filesystem: pafs.FileSystem,
    source: str,
    target_filesystem: pafs.FileSystem,
    target: str,
) -> None:
    """Copy a file in the way that is best for the two sides."""
    reader, writer = _remote(source_filesystem), _remote(target_filesystem)
    if writer is None:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
    if reader is not None and writer is None:
        reader.download(source, Path(target))
    elif reader is None and writer is not None:
        writer.upload(Path(source), target)
    elif reader is not None and reader is writer:
        reader.copy_file(source, target)
    elif reader is not None and writer is not None:
        with tempfile.TemporaryDirectory() as folder:
            reader.download(source, local := Path(folder) / "copy")
            writer.upload(local, target)
    else:
        pafs.copy_files(
            source,
            target,
            source_filesystem=source_filesystem,
            destination_filesystem=target_filesystem,
            chunk_size=STREAM_BYTES,
        )


def remove_folder(uri: str) -> None:
    """Delete a folder with everything in it, if it exists.

    Raises:
        StorageError: The folder cannot be deleted or reached.
    """
    with storage_errors(uri, "delete the folder"):
        filesystem, path = filesystem_of(uri)
        filesystem.delete_dir_contents(path, missing_dir_ok=True)
        if isinstance(filesystem, pafs.LocalFileSystem) and Path(path).is_dir():
            filesystem.delete_dir(path)


def folder_bytes(uri: str) -> int:
    """Total size of the files in a folder and its subfolders, in bytes.

    Raises:
        StorageError: The folder is missing or unreachable.
    """
    return sum(info.size for info in list_files(uri, ""))
