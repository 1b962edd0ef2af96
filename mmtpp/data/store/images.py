"""Single images by name: files, and the frames of an event store."""

from functools import lru_cache
from os import PathLike

import numpy as np
from numpy.typing import NDArray

from mmtpp.config.schema import Source
from mmtpp.core.errors import ConfigError, DataError
from mmtpp.data.store.store_reader import StoreReader, StoreSettings
from mmtpp.model.processor import decode_image
from mmtpp.storage.manifest import load_manifest
from mmtpp.storage.paths import as_uri, join, read_bytes

_FRAME = "#"  # between the URI of a store and the frame's place in it


def frame_name(store_uri: str, file: str, frame: int) -> str:
    """The name of a store's frame, as ``load_image`` takes it.

    Args:
        store_uri: of the store.
        file: of the store that the sequence stands in.
        frame: value of the column ``frame``.
    """
    return f"{store_uri}{_FRAME}{file}/{frame}"


def load_image(
    name: str | PathLike[str], *, image_px: int, max_pixels: int = 0, max_bytes: int = 0
) -> NDArray[np.uint8]:
    """Read an image and resize it as preparing does.

    Args:
        name: path or URI of a PNG, JPEG or WebP file, or ``frame_name``'s.
        image_px: side of the result.
        max_pixels: larger images are refused before they are decoded; 0 for the default of
            ``source.max_image_pixels``.
        max_bytes: larger files are refused before they are read; 0 for that of
            ``source.max_image_mib``.

    Returns:
        (S, S, 3) RGB.

    Raises:
        DataError: not an image, or too large.
        ConfigError: the store's frames have another size.
        StorageError: it is not there.
    """
    name = as_uri(name)
    store_uri, separator, place = name.rpartition(_FRAME)
    shape = (image_px, image_px, 3)
    if separator and place.rpartition("/")[2].isdecimal():
        file, _, frame = place.rpartition("/")
        reader, stored_px = _store(store_uri)
        if stored_px != image_px:
            raise ConfigError(
                f"{store_uri}: its images have {stored_px} pixels a side, {image_px} are wanted"
            )
        [(_, pixels)] = reader.frames(file, np.array([int(frame)]))
        return pixels.reshape(shape)
    bounds = Source()
    try:
        content = decode_image(
            read_bytes(name, max_bytes=max_bytes or bounds.max_image_mib * 2**20),
            image_px=image_px,
            max_pixels=max_pixels or bounds.max_image_pixels,
        )
    except DataError as error:
        raise DataError(
            error.problem, where=name, cause=error.cause, setting=error.setting
        ) from error
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


@lru_cache(maxsize=4)
def _store(store_uri: str) -> tuple[StoreReader, int]:
    manifest = load_manifest(store_uri)
    folder = join(store_uri, manifest.data_folder)
    settings = StoreSettings(folder, manifest.fingerprint, manifest.image_px, 0, "")
    return StoreReader(settings), manifest.image_px
