"""Patches of small images, and what their values are like in the training images.

Axes: I images, N events, V values of a small image, G patches a side, A values of a patch.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mmtpp.core.past.event_images import IMAGE_SIDE, NO_IMAGE

PATCH_PX = 3
"""Side of a patch, in pixels of a small image."""
PATCHES_A_SIDE = IMAGE_SIDE // PATCH_PX
"""Patches along a side of a small image, G."""
PATCH_VALUES = 3 * PATCH_PX**2
"""Number of values of a patch, A: rows, columns and colours in this order."""
UNKNOWN = -1
"""Change of a patch that is not known."""
_IMAGES_AT_ONCE = 1024
_LEAST_CHANGE = 8  # levels of brightness; smaller differences are noise of compression
_ROUNDING = 1 / 12  # variance of rounding to whole levels of brightness


def split_patches(images: torch.Tensor) -> torch.Tensor:
    """(I, G * G, A) patches of (I, V) values of small images, row by row."""
    grid = images.view(-1, PATCHES_A_SIDE, PATCH_PX, PATCHES_A_SIDE, PATCH_PX * 3)
    return grid.transpose(2, 3).reshape(-1, PATCHES_A_SIDE**2, PATCH_VALUES)


def patch_changes(images: torch.Tensor) -> torch.Tensor:
    """(N, G * G) int8: 1 where a patch of the newer of two images differs from that of the older
    one, 0 where it does not, ``UNKNOWN`` where an image is missing.

    Args:
        images: (N, 2, V) values of the newer and of the older image, or ``NO_IMAGE``.
    """
    newer, older = split_patches(images.flatten(0, 1)).unflatten(0, (-1, 2)).unbind(1)
    changes = ((newer - older).abs().amax(-1) > _LEAST_CHANGE).to(torch.int8)
    is_known = (images[:, :, 0] != NO_IMAGE).all(1)
    return torch.where(is_known[:, None], changes, UNKNOWN)


@dataclass(frozen=True, slots=True)
class PatchStatistics:
    """Statistics of the patches of the training images.

    Attributes:
        mean: (A,) mean of a patch.
        whitening: (A, A) symmetric matrix after which patches vary equally in all directions in
            which they vary at all. So small but regular differences, such as those between two
            signs, count as much as brightness.
        change_fraction: Share of the patches of next images that differ, between 0 and 1.
    """

    mean: NDArray[np.float32]
    whitening: NDArray[np.float32]
    change_fraction: float


class PatchSums:
    """Sums over the patches of images, for their statistics."""

    def __init__(self) -> None:
        self._count, self._changed, self._unchanged = 0, 1, 1
        self._sum = np.zeros(PATCH_VALUES)
        self._products = np.zeros((PATCH_VALUES, PATCH_VALUES))

    def add(self, images: NDArray[np.uint8]) -> None:
        """Add (I, V) small images."""
        for start in range(0, len(images), _IMAGES_AT_ONCE):
            patches = split_patches(torch.from_numpy(images[start : start + _IMAGES_AT_ONCE]))
            values = patches.reshape(-1, PATCH_VALUES).double().numpy()
            self._count += len(values)
            self._sum += values.sum(0)
            self._products += values.T @ values

    def add_changes(self, changes: torch.Tensor) -> None:
        """Add (N, G * G) changes of patches, as ``patch_changes``."""
        self._changed += int((changes == 1).sum())
        self._unchanged += int((changes == 0).sum())

    def statistics(self) -> PatchStatistics | None:
        """The statistics; None without images.

        Source: whitening from the patches of training images, Jordan 2024 (arXiv:2404.00498).
        """
        if not self._count:
            return None
        mean = self._sum / self._count
        variances, directions = np.linalg.eigh(self._products / self._count - np.outer(mean, mean))
        # symmetric, so that the signs of the directions, which depend on the machine, cancel out
        scaled = directions / np.sqrt(np.maximum(variances, 0.0) + _ROUNDING)
        whitening = scaled @ directions.T
        return PatchStatistics(
            mean.astype(np.float32),
            whitening.astype(np.float32),
            change_fraction=self._changed / (self._changed + self._unchanged),
        )
