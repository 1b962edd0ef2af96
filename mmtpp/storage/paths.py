"""Files by URI, a local path or s3://, through pyarrow.

pyarrow reads the S3 endpoint, region and credentials from the standard AWS environment variables
(``AWS_ENDPOINT_URL``, ``AWS_ACCESS_KEY_ID``, ...).
"""

import errno
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TypeVar

import pyarrow as pa
import pyarrow.fs as pafs

from mmtpp.core.errors import (
    DataError,
    FileTooLargeError,
    MissingFileError,
    StorageError,
)

Item = TypeVar("Item")
Result = TypeVar("Result")
S3_ATTEMPTS = 8
S3_CONNECT_S, S3_SILENCE_S = 10.0, 20.0
MAX_PATH = 1024  # bytes of a whole path; the limit of S3 for a key


def filesystem_of(uri: str) -> tuple[pafs.FileSystem, str]:
    """Return the filesystem of a URI and the path within it.

    Raises:
        StorageError: The URI is empty, or its scheme is not s3:// or file://.
    """
    if not uri:
        raise StorageError("the URI is empty")
    scheme, separator, path = uri.partition("://")
    if not separator:
        return pafs.LocalFileSystem(), str(Path(uri).expanduser().absolute())
    if scheme == "file":
        return pafs.LocalFileSystem(), path
    if scheme == "s3":
        settings = tuple(sorted(item for item in os.environ.items() if item[0].startswith("AWS_")))
        return _s3(path.partition("/")[0], settings), path.rstrip("/")
    raise StorageError(f"{uri}: only local paths and s3:// are supported")


@lru_cache(maxsize=8)
def _s3(bucket: str, settings: tuple[tuple[str, str], ...]) -> pafs.FileSystem:
    """Build one S3 client, with its connections, for a bucket and the AWS environment variables.

    The client retries after server errors, resets and timeouts, for up to a minute.
    """
    environment = dict(settings)
    endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
    region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")
    if not endpoint:
        region = pafs.resolve_s3_region(bucket)  # region of the bucket, not of this machine
    return pafs.S3FileSystem(
        endpoint_override=endpoint,
        region=region,
        retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=S3_ATTEMPTS),
        connect_timeout=S3_CONNECT_S,
        request_timeout=S3_SILENCE_S,
        allow_delayed_open=True,  # write a small file in one request instead of three
    )


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


@contextmanager
def storage_errors(uri: str, action: str) -> Iterator[None]:
    """Convert errors of filesystems to a ``StorageError`` with the URI and the likely cause.

    Args:
        uri: URI that is read or written.
        action: Action that failed, for the message "cannot ACTION".
    """
    try:
        yield
    except FileNotFoundError as error:
        raise MissingFileError(f"cannot {action}: it does not exist", where=uri) from error
    except PermissionError as error:
        raise StorageError(f"cannot {action}: access denied", where=uri, cause=_ACCESS) from error
    except pa.ArrowException as error:
        raise StorageError(f"cannot {action}: {_first_line(error)}", where=uri) from error
    except OSError as error:
        message = str(error)
        if error.errno in _NO_FILE or message.endswith("is a directory"):
            raise MissingFileError(f"cannot {action}: it is not a file", where=uri) from error
        if "ACCESS_DENIED" in message or "INVALID_ACCESS_KEY" in message or "403" in message:
            cause = _ACCESS
        elif "NO_SUCH_BUCKET" in message or "does not exist" in message:
            cause = "the bucket does not exist; create it or correct the URI"
        elif "NETWORK_CONNECTION" in message or "curlCode" in message:
            cause = "the endpoint does not answer; check the network and AWS_ENDPOINT_URL"
        else:
            cause = "see the message"
        raise StorageError(
            f"cannot {action}: {_first_line(error)}", where=uri, cause=cause
        ) from error


_NO_FILE = (errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG)
_ACCESS = (
    "wrong or missing credentials; check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the "
    "instance profile, and the bucket policy"
)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:500]


def read_bytes(uri: str, *, max_bytes: int | None = None) -> bytes:
    """Read a whole file.

    Raises:
        StorageError: The file is missing or unreachable.
        FileTooLargeError: The file has more than ``max_bytes``; it is not read.
    """
    with storage_errors(uri, "read the file"):
        filesystem, path = filesystem_of(uri)
        with filesystem.open_input_file(path) as file:
            size = file.size()
            if max_bytes is not None and size > max_bytes:
                raise FileTooLargeError(f"the file has {size} bytes", where=uri)
            return file.read()


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
        if isinstance(filesystem, pafs.LocalFileSystem):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            pending = f"{path}.{os.getpid()}.pending"
            Path(pending).write_bytes(memoryview(data))
            Path(pending).replace(path)
            return
        with filesystem.open_output_stream(path) as stream:
            stream.write(data)


def exists(uri: str) -> bool:
    """Whether a file or folder exists.

    Raises:
        StorageError: The bucket is missing or cannot be reached.
    """
    with storage_errors(uri, "check the path"):
        filesystem, path = filesystem_of(uri)
        check_bucket(uri)
        return filesystem.get_file_info(path).type != pafs.FileType.NotFound


def check_bucket(uri: str) -> None:
    """Check that the bucket of an s3:// URI exists and can be listed.

    Raises:
        StorageError: The bucket is missing, or the credentials are refused.
    """
    bucket = uri.partition("://")[2].partition("/")[0]
    with storage_errors(uri, f"reach the bucket {bucket}"):
        filesystem, _ = filesystem_of(uri)
        if isinstance(filesystem, pafs.LocalFileSystem):
            return
        if filesystem.get_file_info(bucket).type == pafs.FileType.NotFound:
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
    """Copy a file; source and target may be local or on S3, and the target's folder must exist.

    Raises:
        StorageError: The source cannot be read, or the target cannot be written.
    """
    with storage_errors(f"{source} -> {target}", "copy the file"):
        source_filesystem, source_path = filesystem_of(source)
        target_filesystem, target_path = filesystem_of(target)
        pafs.copy_files(
            source_path,
            target_path,
            source_filesystem=source_filesystem,
            destination_filesystem=target_filesystem,
        )


def copy_folder(source: str, target: str) -> None:
    """Copy all files in ``source`` and its subfolders to ``target``; both may be local or on S3.

    Raises:
        StorageError: The source cannot be read, or the target cannot be written.
    """
    with storage_errors(f"{source} -> {target}", "copy the folder"):
        source_filesystem, source_path = filesystem_of(source)
        target_filesystem, target_path = filesystem_of(target)
        if isinstance(target_filesystem, pafs.LocalFileSystem):
            Path(target_path).mkdir(parents=True, exist_ok=True)
        pafs.copy_files(
            source_path,
            target_path,
            source_filesystem=source_filesystem,
            destination_filesystem=target_filesystem,
            use_threads=True,
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
