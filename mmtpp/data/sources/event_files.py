"""Names and content of event files: suffixes, packed files, encodings."""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from typing import Protocol

import pyarrow as pa

MAX_UNPACKED_BYTES = 2**31
MAX_UNPACKER_BYTES = 2**28  # memory of the decoder of a .xz file; "xz -9" needs 65 MiB
_CHUNK_BYTES = 2**20


class MalformedFileError(ValueError):
    """A file that cannot be read as events.

    Attributes:
        num_events: Estimated number of events in the file; None if it is unknown.
    """

    def __init__(self, message: str, *, num_events: int | None = None) -> None:
        super().__init__(message)
        self.num_events = num_events


def suffix_of(path: str) -> str:
    """The suffix of a file name in lower case, without that of a packed file such as ``.gz``.

    The suffix is empty if the name has none.
    """
    name = unpacked_path(path).rpartition("/")[2].lower()
    return f".{name.rpartition('.')[2]}" if "." in name else ""


def whole_suffix(path: str) -> str:
    """The suffix of a file name with that of a packed file, such as ``.csv.gz``."""
    return suffix_of(path) + packed_suffix(path)


def unpacked_path(path: str) -> str:
    """The path without the suffix of a packed file; the path itself if the file is not packed."""
    return path[: len(path) - len(packed_suffix(path))]


def packed_suffix(path: str) -> str:
    """The suffix of a packed file, such as ``.gz``, in lower case; empty for any other file."""
    return next((suffix for suffix in UNPACKERS if path.lower().endswith(suffix)), "")


def stem(path: str) -> str:
    """The path without its suffixes: the sequence id of a file with one sequence."""
    folder, slash, name = unpacked_path(path).rpartition("/")
    return f"{folder}{slash}{name.rpartition('.')[0] or name}"


def unpack(path: str, data: bytes) -> bytes:
    """Unpack the content of a packed file; return other content unchanged.

    Args:
        path: Path of the file, whose suffix is a key of ``UNPACKERS`` if it is packed.
        data: Content of the file.

    Raises:
        MalformedFileError: The content is in another format than the suffix says, damaged,
            truncated, or larger than 2 GiB unpacked.
    """
    suffix = packed_suffix(path)
    if not suffix or not data:
        return data
    name, unpacker = UNPACKERS[suffix]
    try:
        content = unpacker(data, MAX_UNPACKED_BYTES + 1)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise MalformedFileError(f"{path}: not {name}, or damaged: {error}") from error
    if len(content) > MAX_UNPACKED_BYTES:
        raise MalformedFileError(f"{path}: more than {MAX_UNPACKED_BYTES} bytes unpacked")
    return content


class _Decompressor(Protocol):
    """What ``bz2.BZ2Decompressor`` and ``lzma.LZMADecompressor`` have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def _unpack_gzip(data: bytes, max_bytes: int) -> bytes:
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
        return file.read(max_bytes)


def _unpack_zstd(data: bytes, max_bytes: int) -> bytes:
    with pa.CompressedInputStream(pa.BufferReader(data), "zstd") as file:
        return file.read(max_bytes)


def _unpack_bzip2(data: bytes, max_bytes: int) -> bytes:
    return _unpack_streams(bz2.BZ2Decompressor, data, max_bytes)


def _unpack_xz(data: bytes, max_bytes: int) -> bytes:
    def new_decompressor() -> _Decompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_UNPACKER_BYTES)

    return _unpack_streams(new_decompressor, data, max_bytes)


def _unpack_streams(
    new_decompressor: Callable[[], _Decompressor], data: bytes, max_bytes: int
) -> bytes:
    """Unpack the streams of a file, one after the other, as parallel packers write them.

    The file objects of ``bz2`` and ``lzma`` ignore everything after the first damaged stream; here
    it is an error.

    Args:
        new_decompressor: Function that builds the decompressor of one stream.
        data: Content of the file.
        max_bytes: Number of bytes after which unpacking stops.

    Raises:
        EOFError: The last stream is truncated.
        OSError, lzma.LZMAError: A stream is damaged.
    """
    content = io.BytesIO()
    decompressor: _Decompressor | None = None
    for start in range(0, len(data), _CHUNK_BYTES):
        chunk = data[start : start + _CHUNK_BYTES]
        while chunk:
            if decompressor is None:
                chunk = chunk.lstrip(b"\0") if start or content.tell() else chunk  # padding
                if not chunk:
                    break
                decompressor = new_decompressor()
            content.write(decompressor.decompress(chunk, max_bytes - content.tell()))
            if content.tell() >= max_bytes:
                return content.getvalue()
            chunk = b""
            if decompressor.eof:
                chunk, decompressor = decompressor.unused_data, None
    if decompressor is not None:
        raise EOFError("the file ends before the end of its last stream")
    return content.getvalue()


UNPACKERS: dict[str, tuple[str, Callable[[bytes, int], bytes]]] = {
    ".gz": ("gzip", _unpack_gzip),
    ".zst": ("zstd", _unpack_zstd),
    ".bz2": ("bzip2", _unpack_bzip2),
    ".xz": ("xz", _unpack_xz),
}
"""Names and unpackers of packed files by suffix. An unpacker takes the content of a file and the
number of bytes after which it may stop."""


def decode_text(path: str, data: bytes, *, encoding: str = "utf-8") -> str:
    """Decode text. A byte order mark takes precedence over ``encoding``.

    An invalid byte becomes a lone surrogate, so that only the records with such a byte are
    rejected.

    Args:
        path: Path of the file, for messages.
        data: Content of the file.
        encoding: Name of the encoding in Python.

    Raises:
        MalformedFileError: The encoding is unknown or not a text encoding.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    if encoding.lower().replace("_", "-") in ("utf-8", "utf8"):
        encoding = "utf-8-sig"
    try:
        return data.decode(encoding, "surrogateescape")
    except (UnicodeError, LookupError) as error:
        raise MalformedFileError(f"{path}: not {encoding}: {error}") from error
