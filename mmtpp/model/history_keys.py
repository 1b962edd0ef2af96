"""Keys and values of a history's tokens, kept between forward passes.

Axes: P kept tokens, N new tokens, K key-value heads, D width of a head.
"""

import numpy as np
import torch
from numpy.typing import NDArray

BLOCK_TOKENS = 64
"""Room for tokens is allocated in blocks of this length."""


class HistoryKeys:
    """Keys and values of the first tokens of a row, for every layer of a model.

    New tokens are written after the kept ones. They count as kept only after ``keep``, so the next
    pass writes over the tokens of branches.

    Attributes:
        ids: (P,) int32 ids of the kept tokens. Keys and values follow from them: a row without
            images and older events has no other content.
    """

    def __init__(self) -> None:
        self.ids = np.zeros(0, dtype=np.int32)
        self._layers: list[torch.Tensor] = []  # (2, K, room, D)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def num_bytes(self) -> int:
        """Memory of the keys and values, with the room for further tokens."""
        return sum(layer.nbytes for layer in self._layers)

    def write(
        self, layer: int, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the keys and values of new tokens in one layer.

        Args:
            layer: Index of the layer; the first pass writes the layers in order.
            keys: (K, N, D) keys.
            values: (K, N, D) values.

        Returns:
            (K, P + N, D) keys and values of the kept and the new tokens; views.
        """
        start, end = len(self.ids), len(self.ids) + keys.shape[1]
        if layer == len(self._layers):
            self._layers.append(self._allocate(keys, end))
        held = self._layers[layer]
        if held.shape[2] < end:
            wider = self._allocate(keys, end)
            wider[:, :, :start] = held[:, :, :start]
            held = self._layers[layer] = wider
        held[0, :, start:end] = keys
        held[1, :, start:end] = values
        return held[0, :, :end], held[1, :, :end]

    @staticmethod
    def _allocate(like: torch.Tensor, num_tokens: int) -> torch.Tensor:
        """Room for a quarter more tokens, so that few appended events need a copy."""
        room = -(-5 * num_tokens // (4 * BLOCK_TOKENS)) * BLOCK_TOKENS
        return like.new_empty((2, like.shape[0], room, like.shape[2]))

    def layers(self, num_tokens: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Keys and values of the first tokens in every layer, (1, K, num_tokens, D) each; views."""
        return [(layer[:1, :, :num_tokens], layer[1:, :, :num_tokens]) for layer in self._layers]

    def keep(self, ids: NDArray[np.int32]) -> None:
        """Keep the keys and values of these tokens, which were kept before or written since."""
        self.ids = ids

    def cut_to(self, ids: NDArray[np.int32]) -> None:
        """Keep only the first tokens, up to the first that differs from ``ids``."""
        self.ids = self.ids[: num_common(self.ids, ids)]


def num_common(first: NDArray[np.int32], second: NDArray[np.int32]) -> int:
    """Number of equal tokens at the beginning of two lists."""
    size = min(len(first), len(second))
    differs = first[:size] != second[:size]
    return int(differs.argmax()) if differs.any() else size
