"""Image files as events name them: a path, a whole URI, or the bytes of the file themselves."""

import base64
import binascii
from collections.abc import Sequence
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from mmtpp.core.errors import DataError, FileTooLargeError
from mmtpp.storage.paths import join_inside, read_bytes
from mmtpp.storage.web import public_part, read_https

_BYTES = "data:"  # begins the name of an image whose bytes are in the name, RFC 2397
_SHOWN = 200


def locate_image(image: str, *, source_uri: str, roots: Sequence[str] = ()) -> str:
    """Where the image of an event is: a URI for ``read_image``.

    Args:
        image: Path relative to the source, whole URI, or ``data:`` with the bytes of the file.
        source_uri: Root folder of the source.
        roots: Locations outside of the source whose images may be named by whole URIs.

    Raises:
        DataError: The image lies outside of the source and of all roots.
    """
    if image.startswith(_BYTES):
        return image
    for root in roots:
        base = f"{root.rstrip('/')}/"
        if image.startswith(base):
            return _join_root(root, image.removeprefix(base))
    if "://" in image:
        raise DataError(
            f"image {describe_image(image)[:_SHOWN]!r} is outside of the source folder",
            where=source_uri,
            setting=f"source.image_roots = {list(roots)}; add the location of such images",
        )
    return join_inside(source_uri, image)


def _join_root(root: str, relative: str) -> str:
    """The URI of an image below a root; refuses names that leave it."""
    if not root.startswith("https://"):
        return join_inside(root, relative)
    path = urlsplit(f"https://host/{relative}").path
    if ".." in PurePosixPath(path.replace("%2e", ".").replace("%2E", ".")).parts:
        raise DataError(f"path {path[:_SHOWN]!r} leaves the location", where=root)
    return f"{root.rstrip('/')}/{relative}"


def read_image(uri: str, *, max_bytes: int) -> bytes:
    """Read an image file.

    Args:
        uri: URI of ``locate_image``.
        max_bytes: Largest size; a larger file is refused.

    Raises:
        DataError: The name holds no bytes, or is no address of a public web server.
        FileTooLargeError: The file has more than ``max_bytes``.
        MissingFileError: There is no such file.
        StorageError: The file cannot be read.
    """
    if uri.startswith(_BYTES):
        return _bytes_of_name(uri, max_bytes)
    if uri.startswith("https://"):
        return read_https(uri, max_bytes=max_bytes)
    return read_bytes(uri, max_bytes=max_bytes)


def name_of_bytes(data: bytes) -> str:
    """The name of an image that is these bytes of a file."""
    return f"{_BYTES};base64,{base64.b64encode(data).decode()}"


def describe_image(image: str) -> str:
    """The name of an image for messages, without the bytes, password or signature it may hold."""
    if not image.startswith(_BYTES):
        return public_part(image)
    return f"{image.partition(',')[0]},... ({len(image):,} characters)"


def _bytes_of_name(name: str, max_bytes: int) -> bytes:
    head, _, content = name.partition(",")
    if not head.endswith(";base64"):
        raise DataError("the bytes of an image must be in base64", where=describe_image(name))
    if 3 * len(content) // 4 > max_bytes + 2:
        raise FileTooLargeError(f"more than {max_bytes} bytes", where=describe_image(name))
    try:
        return base64.b64decode(content, validate=True)
    except binascii.Error as error:
        raise DataError(f"not base64: {error}", where=describe_image(name)) from error
