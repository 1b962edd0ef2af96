"""The vectors of soft tokens: type, memory, text and image of an event in one vector.

Axes: T tokens, P columns of the memory, D width, X text tokens, U distinct text tokens, F frames.
"""

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from mmtpp.model.batch import SoftBatch


class SoftEmbedding(nn.Module):
    """Adds memory, text and image of events to the rows of their types.

    A text is the mean of its tokens' rows, its first row and its last row. An image is the mean of
    the vision tower's cells.

    Args:
        num_columns: Number of columns of the memory, P.
        width: Width of the language model, D.
        spread: Standard deviation of the rows of a new embedding. Memory and texts start as large.
    """

    def __init__(self, num_columns: int, width: int, *, spread: float) -> None:
        super().__init__()
        self.memory_input = nn.Linear(num_columns, width)
        self.text_input = nn.Linear(3 * width, width, bias=False)
        nn.init.normal_(self.memory_input.weight, std=spread / math.sqrt(num_columns))
        nn.init.zeros_(self.memory_input.bias)
        nn.init.normal_(self.text_input.weight, std=1 / math.sqrt(3 * width))

    def forward(
        self,
        types_TD: torch.Tensor,
        memory_TP: torch.Tensor,
        soft: SoftBatch,
        embed: Callable[[torch.Tensor], torch.Tensor],
        cells_FCD: torch.Tensor | None,
    ) -> torch.Tensor:
        """(T, D) vectors of soft tokens.

        Args:
            types_TD: Rows of the events' types.
            memory_TP: Normalised memory.
            soft: Content of the tokens.
            embed: Returns the rows of token ids.
            cells_FCD: Embeddings of the frames' cells; None without frames.
        """
        vectors = types_TD + self.memory_input(memory_TP)
        vectors = vectors + self.text_input(_text_features(soft, embed).to(vectors.dtype))
        if cells_FCD is None:
            return vectors
        images_FD = cells_FCD.mean(1).to(vectors.dtype)
        shows = soft.frame >= 0
        images_TD = images_FD[soft.frame.clamp(min=0)] * shows[:, None]
        # keeps the tower in the graph of a row without images; the values do not change
        return vectors + images_TD + 0.0 * images_FD.sum()


def _text_features(soft: SoftBatch, embed: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """(T, 3 D) mean, first and last row of every text; zeros for an empty text."""
    # rows of distinct tokens: all tokens of 4,096 texts would take half a gigabyte at D = 2,048
    ids_U, place_X = soft.text_ids.unique(return_inverse=True)
    rows_UD = embed(ids_U)
    lengths = soft.text_offsets.diff()
    if not len(ids_U):
        zeros = rows_UD.new_zeros(len(lengths), 3 * rows_UD.shape[1])
        return zeros + 0.0 * rows_UD.sum()
    mean = functional.embedding_bag(place_X, rows_UD, soft.text_offsets[:-1], mode="mean")
    last_place = len(place_X) - 1
    first = rows_UD[place_X[soft.text_offsets[:-1].clamp(max=last_place)]]
    last = rows_UD[place_X[(soft.text_offsets[1:] - 1).clamp(min=0)]]
    has_text = (lengths > 0)[:, None]
    return torch.cat([mean, first * has_text, last * has_text], -1)
