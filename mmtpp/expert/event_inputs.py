"""What a network reads after events, as tensors.

Axes: N events, P columns of the memory.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class EventInputs:
    """Inputs of a network: the memory after N events, and the events themselves.

    Attributes:
        memory: (N, P) float32 memory after each event, as ``memory_rows`` computes it.
        types: (N,) int64 index of the type of each event.
        words: (N, MAX_WORDS) int16 words of the text of each event; (N, 0) for a network without
            words.
        images: (N, 2, IMAGE_VALUES) int16 values of the images of each event and of the one before
            it; None for a network without images.
    """

    memory: torch.Tensor
    types: torch.Tensor
    words: torch.Tensor
    images: torch.Tensor | None = None
