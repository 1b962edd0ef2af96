"""Files by URI: a local path or s3://, through pyarrow.

The S3 endpoint, region and credentials come from the standard AWS environment variables
(``AWS_ENDPOINT_URL``, ``AWS_ACCESS_KEY_ID``, ...), read by pyarrow itself.
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
MAX_PATH = 1024  # bytes of a whole path; the bound of an S3 key


def filesystem_of(uri: str) -> tuple[pafs.FileSystem, str]:
    """The filesystem of a URI and the path within it.

    Raises:
        StorageError: empty, or a scheme other than s3:// and file://.
    """
    if not uri:
        raise StorageError("an empty URI names no place")
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return pafs.LocalFileSystem(), str(Path(uri).expanduser().absolute())
    if scheme == "file":
        return pafs.LocalFileSystem(), rest
    if scheme == "s3":
        settings = tuple(sorted(item for item in os.environ.items() if item[0].startswith("AWS_")))
        return _s3(rest.partition("/")[0], settings), rest.rstrip("/")
    raise StorageError(f"{uri}: only local paths and s3:// are supported")


@lru_cache(maxsize=8)
def _s3(bucket: str, settings: tuple[tuple[str, str], ...]) -> pafs.FileSystem:
    """One client, with its connections, for a bucket and a state of the AWS environment.

    It tries again after server errors, resets and silence, with growing pauses: up to a minute.
    """
    environment = dict(settings)
    endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
    region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")
    if not endpoint:
        region = pafs.resolve_s3_region(bucket)  # the bucket's own, wherever this runs
    return pafs.S3FileSystem(
        endpoint_override=endpoint,
        region=region,
        retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=S3_ATTEMPTS),
        connect_timeout=S3_CONNECT_S,
        request_timeout=S3_SILENCE_S,
        allow_delayed_open=True,  # a small file is one request instead of three
    )


def as_uri(place: str | os.PathLike[str]) -> str:
    """A path or URI as text.

    Raises:
        DataError: an object that is neither; a URI that ``pathlib`` has damaged.
    """
    if not isinstance(place, str | os.PathLike):
        raise DataError(
            f"a path or a URI is expected, not a {type(place).__name__}",
            cause="give a local path or a URI such as s3://bucket/folder",
        )
    uri = os.fspath(place)
    if isinstance(place, os.PathLike) and re.match(r"[a-z0-9]{2,}:/[^/]", uri):
        raise DataError(
            f"{uri!r} is no URI: pathlib keeps one of two slashes",
            cause="give URIs as text, such as 's3://bucket/folder'",
        )
    return uri


def join(uri: str, *parts: str) -> str:
    """Append path parts to a URI."""
    return "/".join([uri.rstrip("/"), *(part.strip("/") for part in parts)])


def join_inside(uri: str, relative: str) -> str:
    """Append a path taken from user data, which must stay below ``uri``.

    Raises:
        DataError: the path is absolute, has a drive or scheme, climbs out with "..", or is too
            long for a file or an object.
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
def explained(uri: str, doing: str) -> Iterator[None]:
    """Turn storage failures into a ``StorageError`` that names the URI and the likely cause."""
    try:
        yield
    except FileNotFoundError as error:
        raise MissingFileError(f"cannot {doing}: it does not exist", where=uri) from error
    except PermissionError as error:
        raise StorageError(f"cannot {doing}: access denied", where=uri, cause=_ACCESS) from error
    except pa.ArrowException as error:
        raise StorageError(f"cannot {doing}: {_first_line(error)}", where=uri) from error
    except OSError as error:
        message = str(error)
        if error.errno in _NO_FILE or message.endswith("is a directory"):
            raise MissingFileError(f"cannot {doing}: it is no file", where=uri) from error
        if "ACCESS_DENIED" in message or "INVALID_ACCESS_KEY" in message or "403" in message:
            cause = _ACCESS
        elif "NO_SUCH_BUCKET" in message or "does not exist" in message:
            cause = "the bucket does not exist; create it or correct the URI"
        elif "NETWORK_CONNECTION" in message or "curlCode" in message:
            cause = "the endpoint does not answer; check the network and AWS_ENDPOINT_URL"
        else:
            cause = "see the message"
        raise StorageError(
            f"cannot {doing}: {_first_line(error)}", where=uri, cause=cause
        ) from error


_NO_FILE = (errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG)
_ACCESS = (
    "wrong or missing credentials; check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the "
    "instance profile, and the bucket policy"
)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:500]


def read_bytes(uri: str, *, max_bytes: int | None = None) -> bytes:
    """The whole content of a file.

    Raises:
        StorageError: missing or unreachable.
        FileTooLargeError: it has more than ``max_bytes``; it is not read.
    """
    with explained(uri, "read the file"):
        filesystem, path = filesystem_of(uri)
        with filesystem.open_input_file(path) as file:
            size = file.size()
            if max_bytes is not None and size > max_bytes:
                raise FileTooLargeError(f"the file has {size} bytes", where=uri)
            return file.read()


def ahead(
    pool: Executor, function: Callable[[Item], Result], items: Iterable[Item], *, depth: int
) -> Iterator[Result]:
    """Results in order, computed in a pool at most ``depth`` before they are asked for."""
    waiting: deque[Future[Result]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > depth:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def write_bytes(uri: str, data: bytes | pa.Buffer) -> None:
    """Write a whole file, its folders included. On S3 it appears at once or not at all.

    Raises:
        StorageError: not writable.
    """
    with explained(uri, "write the file"):
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
    """Whether a file or folder is there.

    Raises:
        StorageError: the bucket is missing or cannot be reached.
    """
    with explained(uri, "look at the path"):
        filesystem, path = filesystem_of(uri)
        check_bucket(uri)
        return filesystem.get_file_info(path).type != pafs.FileType.NotFound


def check_bucket(uri: str) -> None:
    """Check that the bucket of an s3:// URI is there and may be listed.

    Raises:
        StorageError: it is missing, or the credentials are refused.
    """
    bucket = uri.partition("://")[2].partition("/")[0]
    with explained(uri, f"reach the bucket {bucket}"):
        filesystem, _ = filesystem_of(uri)
        if isinstance(filesystem, pafs.LocalFileSystem):
            return
        if filesystem.get_file_info(bucket).type == pafs.FileType.NotFound:
            raise StorageError(
                f"the bucket {bucket} does not exist",
                where=uri,
                cause="create it or correct the URI; buckets are never created for you",
            )


def list_files(uri: str, suffix: str | tuple[str, ...]) -> list[pafs.FileInfo]:
    """Files below a folder whose names end in ``suffix`` or one of them, sorted by path.

    Raises:
        StorageError: the folder is missing or unreachable.
    """
    check_bucket(uri)
    with explained(uri, "list the folder"):
        filesystem, path = filesystem_of(uri)
        infos = filesystem.get_file_info(pafs.FileSelector(path, recursive=True))
    files = [info for info in infos if info.is_file and info.path.endswith(suffix)]
    return sorted(files, key=lambda info: info.path)


def split_file(uri: str) -> tuple[str, str]:
    """The folder and the name of a file; anything else is a folder, with an empty name.

    Raises:
        StorageError: the place cannot be reached.
    """
    with explained(uri, "look at the path"):
        filesystem, path = filesystem_of(uri)
        if not filesystem.get_file_info(path).is_file:
            return uri, ""
    folder, separator, name = uri.rpartition("/")
    return (folder if separator else ".") or "/", name


def list_source(uri: str, file: str) -> list[tuple[str, pafs.FileInfo]]:
    """The files of a source with their paths below its root; only ``file`` where one is named.

    Raises:
        StorageError: the folder is missing or unreachable.
    """
    if not file:
        _, root = filesystem_of(uri)
        return [(info.path.removeprefix(root).lstrip("/"), info) for info in list_files(uri, "")]
    with explained(join(uri, file), "look at the file"):
        filesystem, path = filesystem_of(join(uri, file))
        return [(file, filesystem.get_file_info(path))]


def copy_folder(source: str, target: str) -> None:
    """Copy every file below ``source`` to ``target``; either may be local or on S3.

    Raises:
        StorageError: one side cannot be read or written.
    """
    with explained(f"{source} -> {target}", "copy the folder"):
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
    """Delete a folder and everything below it; nothing happens when it is not there.

    Raises:
        StorageError: not allowed or unreachable.
    """
    with explained(uri, "delete the folder"):
        filesystem, path = filesystem_of(uri)
        filesystem.delete_dir_contents(path, missing_dir_ok=True)
        if isinstance(filesystem, pafs.LocalFileSystem) and Path(path).is_dir():
            filesystem.delete_dir(path)


def folder_bytes(uri: str) -> int:
    """Size of all files below a folder.

    Raises:
        StorageError: the folder is missing or unreachable.
    """
    return sum(info.size for info in list_files(uri, ""))
