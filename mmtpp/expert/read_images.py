"""Read the images of events from a store: each distinct image once, shrunk."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.events import NO_FRAME
from mmtpp.core.past.event_images import IMAGE_VALUES, NO_IMAGE, EventImages, shrink
from mmtpp.data.store.store_reader import StoreReader

_FRAMES_AT_ONCE = 1024


def read_images(
    reader: StoreReader, shown: Sequence[tuple[str, NDArray[np.int32]]], *, image_px: int
) -> list[EventImages]:
    """Read the images of events. All results share one table of small images.

    Args:
        reader: Reader of the store.
        shown: For each sequence the file of the store, and (E,) values of the column ``frame``,
            from its first event; ``NO_FRAME`` where no image is read.
        image_px: Side of the store's images, in pixels.
    """
    frames_of: dict[str, list[NDArray[np.int32]]] = {}
    for file, frames in shown:
        frames_of.setdefault(file, []).append(frames)
    table = _SmallImages(reader, image_px)
    rows_of = {}
    for file, parts in frames_of.items():
        frames = np.unique(np.concatenate(parts))
        frames = frames[frames != NO_FRAME]
        rows_of[file] = (frames, table.add(file, frames))
    pixels = table.pixels()
    images = []
    for file, frames in shown:
        index = np.full(len(frames), NO_IMAGE, dtype=np.int32)
        is_shown = frames != NO_FRAME
        known, rows = rows_of[file]
        index[is_shown] = rows[np.searchsorted(known, frames[is_shown])]
        images.append(EventImages.from_sequence(pixels, index))
    return images


class _SmallImages:
    """Small images by the digest of the stored image.

    Args:
        reader: Reader of the store.
        image_px: Side of the store's images, in pixels.
    """

    def __init__(self, reader: StoreReader, image_px: int) -> None:
        self._reader, self._image_px = reader, image_px
        self._row_of: dict[bytes, int] = {}
        self._parts: list[NDArray[np.uint8]] = []

    def add(self, file: str, frames: NDArray[np.int32]) -> NDArray[np.int32]:
        """Read frames of a file; returns the row of each."""
        rows: list[int] = []
        for start in range(0, len(frames), _FRAMES_AT_ONCE):
            part = frames[start : start + _FRAMES_AT_ONCE]
            self._reader.read_ahead_events(())  # the frames before may leave the memory
            self._reader.read_ahead_frames([(file, part)])
            new = []
            for digest, pixels in self._reader.frames(file, part):
                if digest not in self._row_of:
                    self._row_of[digest] = len(self._row_of)
                    new.append(pixels)
                rows.append(self._row_of[digest])
            if new:
                side = self._image_px
                self._parts.append(shrink(np.stack(new).reshape(-1, side, side, 3)))
        return np.array(rows, dtype=np.int32)

    def pixels(self) -> NDArray[np.uint8]:
        """(I, V) small images."""
        return np.concatenate([np.zeros((0, IMAGE_VALUES), dtype=np.uint8), *self._parts])
