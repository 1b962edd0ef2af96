"""Features of small images: a convolution by patches, two among neighbouring patches, and pooling.

Pooling forgets places, so few events are enough to learn from. Axes: N images, V values of a small
image, C channels, G patches a side, F features.
"""

import torch
from torch import nn
from torch.nn.functional import gelu

from mmtpp.core.past.event_images import IMAGE_SIDE, NO_IMAGE

_PATCH = 3  # pixels a side
_CHANNELS = 16
_DEPTH = 2
IMAGE_FEATURES = (2 * _DEPTH + 1) * _CHANNELS
"""Number of features of an image, F."""


class ImageFeatures(nn.Module):
    """Turns small images into features; an event without an image has zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, _CHANNELS, _PATCH, stride=_PATCH)
        self.neighbours = nn.ModuleList(
            nn.Conv2d(_CHANNELS, _CHANNELS, 3, padding=1) for _ in range(_DEPTH)
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, F) features of (N, V) values of small images."""
        pixels = images.view(-1, IMAGE_SIDE, IMAGE_SIDE, 3).permute(0, 3, 1, 2)
        patches = gelu(self.patches(pixels / 127.5 - 1))  # (N, C, G, G)
        features = [patches.mean((2, 3))]
        for layer in self.neighbours:
            patches = patches + gelu(layer(patches))
            features += [patches.mean((2, 3)), patches.amax((2, 3))]
        return torch.cat(features, 1) * (images[:, :1] != NO_IMAGE)
