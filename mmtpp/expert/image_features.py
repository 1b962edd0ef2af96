"""Features of small images: what is where, how neighbouring patches relate, and what changed.

The patches of the newest image and of the one before, whitened, become one grid of channels with
learned places. What differs between the two images is summed over all places, where only changed
ones count, and added everywhere. Layers relate neighbouring patches; each also reads the means and
maxima over the grid (global pooling of KataGo, Wu 2019, arXiv:1902.10565).

Axes: N events, V values of a small image, C channels, G patches a side, A values of a patch, F
features.
"""

import math

import torch
from torch import nn
from torch.nn.functional import gelu

from mmtpp.core.past.event_images import NO_IMAGE
from mmtpp.expert.image_patches import (
    PATCH_VALUES,
    PATCHES_A_SIDE,
    PatchStatistics,
    split_patches,
)

_CHANNELS = 32
_PATCH_WIDTH = 96
_DEPTH = 4
_IMAGES_PER_PASS = 512  # without gradients; a forecast may be of a million events
IMAGE_FEATURES = 3 * _CHANNELS
"""Number of features of an image, F."""


class ImageFeatures(nn.Module):
    """Turns the newest two small images into features; an event without an image has zeros.

    Args:
        predicts_change: Whether the places also predict where the next image will differ.
    """

    def __init__(self, *, predicts_change: bool = False) -> None:
        super().__init__()
        self.mean = nn.Buffer(torch.full((PATCH_VALUES,), 127.5))
        self.whitening = nn.Buffer(torch.eye(PATCH_VALUES) / 127.5)
        self.patches = nn.Sequential(
            nn.Linear(PATCH_VALUES, _PATCH_WIDTH), nn.GELU(), nn.Linear(_PATCH_WIDTH, _CHANNELS)
        )
        self.both = nn.Linear(2 * _CHANNELS, _CHANNELS)
        self.change = nn.Linear(_CHANNELS, _CHANNELS, bias=False)  # equal patches give zero
        self.changed = nn.Linear(_CHANNELS, _CHANNELS)
        self.places = nn.Parameter(torch.zeros(PATCHES_A_SIDE**2, _CHANNELS))
        self.layers = nn.ModuleList(_ImageLayer() for _ in range(_DEPTH))
        self.next_change = nn.Linear(_CHANNELS, 1) if predicts_change else None

    def start_from(self, statistics: PatchStatistics) -> None:
        """Whiten patches as those of the training images, and expect as many changes as in them."""
        self.mean.copy_(torch.from_numpy(statistics.mean))
        self.whitening.copy_(torch.from_numpy(statistics.whitening))
        if self.next_change is not None:
            fraction = statistics.change_fraction
            nn.init.constant_(self.next_change.bias, math.log(fraction / (1 - fraction)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, F) features of (N, 2, V) values of the images of events and of the events before."""
        if torch.is_grad_enabled():
            return self._features(images)[0]
        return torch.cat([self._features(part)[0] for part in images.split(_IMAGES_PER_PASS)])

    def with_next_change(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Features of images, and logits of where the next image will differ.

        Args:
            images: (N, 2, V) values of the images of events and of the events before.

        Returns:
            features_NF: (N, F) features.
            logits: (N, G * G) logits of a change of each patch; None if changes are not predicted.
        """
        features, grid = self._features(images)
        if self.next_change is None:
            return features, None
        return features, self.next_change(grid.flatten(2).transpose(1, 2))[:, :, 0]

    def _features(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, F) features, and the (N, C, G, G) places that they are of."""
        values = split_patches(images.flatten(0, 1)).to(self.mean.dtype)
        encoded = self.patches((values - self.mean) @ self.whitening)  # (2 * N, G * G, C)
        is_shown = (images[:, :, 0] != NO_IMAGE)[:, :, None, None]
        newest, before = (encoded.unflatten(0, (-1, 2)) * is_shown).unbind(1)
        change = gelu(self.change(newest - before)).sum(1) * is_shown.all(1).flatten(1)
        places = self.both(torch.cat([newest, before], -1)) + self.places
        places = places + self.changed(change)[:, None]
        grid = places.transpose(1, 2).unflatten(2, (PATCHES_A_SIDE, PATCHES_A_SIDE))
        for layer in self.layers:
            grid = layer(grid)
        features = torch.cat([_pooled(grid), change], 1) * (images[:, 0, :1] != NO_IMAGE)
        return features, grid


class _ImageLayer(nn.Module):
    """Adds to every place what its neighbours and the whole image say."""

    def __init__(self) -> None:
        super().__init__()
        self.neighbours = nn.Conv2d(_CHANNELS, _CHANNELS, 3, padding=1)
        self.whole = nn.Linear(2 * _CHANNELS, _CHANNELS)

    def forward(self, grid: torch.Tensor) -> torch.Tensor:
        """(N, C, G, G) channels of each place."""
        whole = self.whole(_pooled(grid))[:, :, None, None]
        return grid + gelu(self.neighbours(grid) + whole)


def _pooled(grid: torch.Tensor) -> torch.Tensor:
    """(N, 2 * C) means and maxima over (N, C, G, G) places."""
    return torch.cat([grid.mean((2, 3)), grid.amax((2, 3))], 1)
