"""Load single images by name: image files, and the frames of an event store."""

from functools import lru_cache
from os import PathLike

import numpy as np
from numpy.typing import NDArray

from mmtpp.config.schema import SourceSection
from mmtpp.core.errors import ConfigError, DataError
from mmtpp.data.store.store_reader import StoreReader
from mmtpp.data.store.store_settings import StoreSettings
from mmtpp.model.processor import decode_image
from mmtpp.storage.image_files import describe_image, read_image
from mmtpp.storage.manifest import load_manifest
from mmtpp.storage.paths import as_uri, join

_SEPARATOR = "#"  # between the URI of a store and a frame's place in the store


def frame_name(store_uri: str, file: str, frame: int) -> str:
    """The name of a store's frame for ``load_image``.

    Args:
        store_uri: Location of the store.
        file: Name of the file of the sequence that shows the frame.
        frame: Value of the column ``frame``.
    """
    return f"{store_uri}{_SEPARATOR}{file}/{frame}"


def load_image(
    name: str | PathLike[str],
    *,
    image_px: int,
    max_pixels: int | None = None,
    max_bytes: int | None = None,
) -> NDArray[np.uint8]:
    """Load an image and resize it as ``prepare`` does.

    Args:
        name: Path or URI of a PNG, JPEG or WebP file, or the name of a frame of an event store.
        image_px: Side of the result, in pixels.
        max_pixels: Maximum number of pixels in the file, checked before it is decoded; None for
            the default of ``source.max_image_pixels``.
        max_bytes: Maximum size of the file, checked before it is read; None for the default of
            ``source.max_image_mib``.

    Returns:
        (S, S, 3) RGB.

    Raises:
        DataError: The file is not an image, or too large.
        ConfigError: The frames of the store have another size.
        StorageError: The file does not exist or cannot be read.
    """
    name = as_uri(name)
    store_uri, separator, place = name.rpartition(_SEPARATOR)
    file, _, frame = place.rpartition("/")
    if separator and frame.isdecimal():
        return _load_frame(store_uri, file, int(frame), image_px)
    limits = SourceSection()
    if max_pixels is None:
        max_pixels = limits.max_image_pixels
    if max_bytes is None:
        max_bytes = limits.max_image_mib * 2**20
    try:
        content = decode_image(
            read_image(name, max_bytes=max_bytes), image_px=image_px, max_pixels=max_pixels
        )
    except DataError as error:
        raise DataError(
            error.problem, where=describe_image(name), cause=error.cause, setting=error.setting
        ) from error
    return np.frombuffer(content, dtype=np.uint8).reshape((image_px, image_px, 3))


def _load_frame(store_uri: str, file: str, frame: int, image_px: int) -> NDArray[np.uint8]:
    reader, stored_px = _open_store(store_uri)
    if stored_px != image_px:
        raise ConfigError(
            f"the images of this store have {stored_px} pixels a side, but image_px = {image_px}",
            where=store_uri,
        )
    [(_, pixels)] = reader.frames(file, np.array([frame]))
    return pixels.reshape((image_px, image_px, 3))


@lru_cache(maxsize=4)
def _open_store(store_uri: str) -> tuple[StoreReader, int]:
    """Open a store, and return its reader and the side of its images."""
    manifest = load_manifest(store_uri)
    folder = join(store_uri, manifest.data_folder)
    settings = StoreSettings(folder, manifest.fingerprint, manifest.image_px)
    return StoreReader(settings), manifest.image_px
