"""Vectors of older events: time, type, text and image of an event added to one token.

Every part of an event is multiplied by signs of its own, +1 or -1 for each dimension, before the
parts are added. The bytes of the time code and the type are rows of the same table; without the
signs, their sum would not say which row is which part. The signs are fixed. Nothing is trained,
saved or merged.

Source: R. W. Gayler, Vector symbolic architectures (2003): multiply, add, permute.

Axes: S older events, B bytes of a time code, U distinct text tokens, D width, F frames.
"""

import hashlib
import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch.nn import functional

from mmtpp.model.batch import OlderBatch

_TEXT, _IMAGE = "text", "image"


def older_vectors(
    older: OlderBatch,
    code_rows_SBD: torch.Tensor,
    text_rows_UD: torch.Tensor,
    cells_FCD: torch.Tensor | None,
) -> torch.Tensor:
    """(S, D) content of older events.

    A text is the mean of its tokens' rows, an image the mean of its cells.

    Args:
        older: The events.
        code_rows_SBD: Rows of the time codes and the types, (S, B + 1, D).
        text_rows_UD: Rows of ``older.distinct_text_ids``.
        cells_FCD: Embeddings of the frames' cells; None without frames.
    """
    num_codes, width = code_rows_SBD.shape[1:]
    names = [*map(str, range(num_codes)), _TEXT, _IMAGE]
    signs = _signs(tuple(names), width).to(code_rows_SBD)
    content = (code_rows_SBD * signs[:num_codes]).sum(1)
    if len(text_rows_UD):
        texts_SD = functional.embedding_bag(
            older.text_place, text_rows_UD, older.text_offsets[:-1], mode="mean"
        )
        content = content + texts_SD * signs[num_codes]
    if cells_FCD is not None:
        images_FD = cells_FCD.mean(1).to(content.dtype)
        shows = (older.frames >= 0)[:, None]
        content = content + images_FD[older.frames.clamp(min=0)] * shows * signs[num_codes + 1]
    return content / math.sqrt(len(names))


@lru_cache(maxsize=8)
def _signs(names: Sequence[str], width: int) -> torch.Tensor:
    """(len(names), D) float32, +1 or -1 by a hash of each name: the same on every machine."""
    rows = [
        np.unpackbits(
            np.frombuffer(hashlib.shake_256(name.encode()).digest(math.ceil(width / 8)), np.uint8),
            count=width,
        )
        for name in names
    ]
    return torch.from_numpy(2.0 * np.stack(rows).astype(np.float32) - 1.0)
