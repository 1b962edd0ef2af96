"""The images of events, shrunk to a small size; each distinct image is kept once.

Axes: E events, I distinct images, N images, P pixels a side, V values of a small image.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

IMAGE_SIDE = 24
"""Side of a small image, in pixels."""
IMAGE_VALUES = 3 * IMAGE_SIDE**2
"""Number of values of a small image, V: rows, columns and colours in this order."""
NO_IMAGE = -1


@dataclass(frozen=True, slots=True)
class EventImages:
    """Images of events, each with the image of the event before, which shows what changed.

    Attributes:
        pixels: (I, V) small images, which many sequences may share.
        index: (E, 2) indices of the images of each event and of the event before it; ``NO_IMAGE``
            for none.
    """

    pixels: NDArray[np.uint8]
    index: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.index)

    def __reduce__(self) -> tuple[Any, ...]:
        """A pickle has only the images of these events."""
        used, index = np.unique(self.index, return_inverse=True)
        has_gap = bool(len(used)) and used[0] == NO_IMAGE
        pixels = self.pixels[used[1:] if has_gap else used]
        return EventImages, (pixels, (index - has_gap).astype(np.int32).reshape(-1, 2))

    @classmethod
    def from_sequence(cls, pixels: NDArray[np.uint8], index: NDArray[np.int32]) -> "EventImages":
        """The images of the events of one sequence, from its first event.

        Args:
            pixels: (I, V) small images.
            index: (E,) index of the image of each event; ``NO_IMAGE`` for none.
        """
        before = np.concatenate([np.full(1, NO_IMAGE, np.int32), index[:-1]])[: len(index)]
        return cls(pixels, np.stack([index, before], axis=1))

    @classmethod
    def none(cls, num_events: int) -> "EventImages":
        """Events without images."""
        return cls(
            np.zeros((0, IMAGE_VALUES), dtype=np.uint8),
            np.full((num_events, 2), NO_IMAGE, dtype=np.int32),
        )

    @classmethod
    def join(cls, parts: Iterable["EventImages"]) -> "EventImages":
        """The images of events, one part after the other."""
        parts = list(parts)
        indices = [part.index for part in parts]
        if all(part.pixels is parts[0].pixels for part in parts):
            return cls(parts[0].pixels, np.concatenate(indices))
        tables = [part.pixels for part in parts]
        starts = np.cumsum([0, *(len(table) for table in tables[:-1])])
        moved = [
            np.where(index == NO_IMAGE, NO_IMAGE, index + start).astype(np.int32)
            for index, start in zip(indices, starts.tolist(), strict=True)
        ]
        return cls(np.concatenate(tables), np.concatenate(moved))

    def take(self, events: NDArray[np.integer] | slice) -> "EventImages":
        """The images of some events."""
        return EventImages(self.pixels, self.index[events])

    @property
    def values(self) -> NDArray[np.int16]:
        """(E, 2, V) values of the images of each event and of the event before it, 0 to 255;
        ``NO_IMAGE`` where an event has none."""
        values = np.full((*self.index.shape, IMAGE_VALUES), NO_IMAGE, dtype=np.int16)
        is_shown = self.index != NO_IMAGE
        values[is_shown] = self.pixels[self.index[is_shown]]
        return values


def shrink(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Shrink images to the means of equal areas, rounded.

    Args:
        images: (N, P, P, 3) images.

    Returns:
        (N, V) small images.
    """
    weights = _area_weights(images.shape[1])
    rows = np.tensordot(images.astype(np.float32), weights, axes=(1, 1))  # (N, P, 3, S)
    small = np.tensordot(rows, weights, axes=(1, 1))  # (N, 3, S, S): colour, row, column
    return small.transpose(0, 2, 3, 1).round().astype(np.uint8).reshape(len(images), -1)


def _area_weights(side: int) -> NDArray[np.float32]:
    """(S, P) share of each pixel in the mean of each small pixel."""
    edges = np.arange(IMAGE_SIDE + 1) * side / IMAGE_SIDE
    pixels = np.arange(side)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return (np.maximum(overlap, 0.0) * IMAGE_SIDE / side).astype(np.float32)
