"""Attention within segments on a CPU: short segments of similar length are computed in one call.

One call per segment costs more than the attention of a short segment. The places of the tokens are
computed once per row.

Axes: T tokens, H heads, K key-value heads, D width of a head, P segments of a group, L tokens of
its longest segment, X the sum of P * L over the groups.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

# Maximum number of tokens of a segment that shares a group; longer segments gain nothing from it.
SHORT_TOKENS = 128
# Minimum length of a group's shortest segment, relative to its longest: little padding, few groups.
MIN_FILL = 0.75


@dataclass(frozen=True, slots=True)
class SegmentGroups:
    """Groups that hold every segment of a row once; a long segment is alone in its group.

    A segment is padded at its end with its own last token. Attention is causal, so no token of the
    segment sees the padding.

    Attributes:
        shapes: P and L of each group.
        places: (X,) int64 place in the row of every token of the groups, with the padding.
        back: (T,) int64 place among the X of every token of the row.
    """

    shapes: tuple[tuple[int, int], ...]
    places: torch.Tensor
    back: torch.Tensor


def group_segments(lengths: Sequence[int]) -> SegmentGroups | None:
    """Segments of a row in groups of similar length; None where every segment would be alone.

    Args:
        lengths: Number of tokens of every segment of the row, in order.
    """
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        longest = lengths[groups[-1][0]] if groups else 0
        if MIN_FILL * longest <= lengths[index] <= longest <= SHORT_TOKENS:
            groups[-1].append(index)
        else:
            groups.append([index])
    if len(groups) == len(lengths):
        return None
    sizes = np.asarray(lengths, dtype=np.int64)[:, None]
    starts = np.cumsum(sizes, axis=0) - sizes
    shapes = tuple((len(group), lengths[group[0]]) for group in groups)
    places = np.concatenate(
        [
            (starts[group] + np.minimum(np.arange(num_tokens), sizes[group] - 1)).ravel()
            for group, (_, num_tokens) in zip(groups, shapes, strict=True)
        ]
    )
    back = np.unique(places, return_index=True)[1]  # a token precedes its copies
    return SegmentGroups(shapes, torch.as_tensor(places), torch.as_tensor(back))


def attend_in_groups(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    groups: SegmentGroups,
    scaling: float | None,
) -> torch.Tensor:
    """(1, T, H, D) attention within each segment.

    Args:
        query: (1, H, T, D).
        key: (1, K, T, D).
        value: (1, K, T, D).
        groups: Groups of the row's segments.
        scaling: Factor of the products; 1 / sqrt(D) when None.
    """
    sizes = [num_segments * num_tokens for num_segments, num_tokens in groups.shapes]
    parts = [
        tensor[0].transpose(0, 1).index_select(0, groups.places).split(sizes)
        for tensor in (query, key, value)
    ]
    out_XHD: list[torch.Tensor] = []
    for shape, *inputs in zip(groups.shapes, *parts, strict=True):
        q, k, v = (x.unflatten(0, shape).transpose(1, 2) for x in inputs)
        out = functional.scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=scaling, enable_gqa=True
        )
        out_XHD.append(out.transpose(1, 2).flatten(0, 1))
    return torch.cat(out_XHD).index_select(0, groups.back)[None]
