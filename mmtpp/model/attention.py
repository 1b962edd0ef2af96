"""Attention within the segments of a packed row.

Neither way makes a (T, T) mask, and the work is the sum of the squares of the segments' lengths,
not the square of their sum. Branches attend in blocks: a block's mask spans what the block sees of
the history and the block itself, not the other branches.

Axes: T tokens, H heads, K key-value heads, D width of a head.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.nn import functional
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "mmtpp_packed"


@dataclass(frozen=True, slots=True)
class AttentionBlock:
    """Branches of a segment that attend as one, see ``core.row.Block``.

    Attributes:
        start, end: their tokens within the segment.
        seen: leading tokens of the history they attend to.
        mask: (end - start, seen + end - start) on the device, 0 where the row's token may see the
            column's and minus infinity elsewhere; of the model's type, which every layer would
            have to make of a bool.
    """

    start: int
    end: int
    seen: int
    mask: torch.Tensor


@dataclass(frozen=True, slots=True)
class Segments:
    """The segments of a packed row, which do not attend to each other.

    Attributes:
        lengths: of each, in order.
        starts: (segments + 1,) int32 on the device, from 0 to T.
        blocks: of each segment's branches; empty where no segment has any.
        watched: a list that takes the weights of the last token, (T,) of every layer, the mean of
            the heads; only of a single segment without branches. None: nobody wants them.
    """

    lengths: tuple[int, ...]
    starts: torch.Tensor
    blocks: tuple[tuple[AttentionBlock, ...], ...] = ()
    watched: list[torch.Tensor] | None = None


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    segments: Segments | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention function: causal within each segment, or a history and branches.

    Args:
        module: the attention layer.
        query: (1, H, T, D).
        key: (1, K, T, D).
        value: (1, K, T, D).
        attention_mask: only without segments.
        segments: of the row, which may have branches; without them this is transformers' SDPA.
        scaling: of the products, 1 / sqrt(D) when None.
        dropout: of the weights; Qwen2.5-VL has none.
        others: what SDPA takes besides.

    Returns:
        (1, T, H, D) and no weights.
    """
    if segments is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, **others
        )
    if attention_mask is not None or dropout:
        raise ValueError("packed attention takes neither a mask nor dropout")
    if segments.watched is not None:
        segments.watched.append(_weights_of_last(query, key, scaling))
    on_kernel = query.device.type == "cuda" and query.dtype != torch.float32  # its own limits
    if on_kernel and not segments.blocks:
        longest = max(segments.lengths)
        q_THD, k_TKD, v_TKD = (each[0].transpose(0, 1).contiguous() for each in (query, key, value))
        out_THD = varlen_attn(
            q_THD,
            k_TKD,
            v_TKD,
            segments.starts,
            segments.starts,
            longest,
            longest,
            scale=scaling,
            window_size=(-1, 0),  # causal
            enable_gqa=True,
        )
        assert isinstance(out_THD, torch.Tensor)
        return out_THD[None], None
    groups = query.shape[1] // key.shape[1]
    attend = partial(functional.scaled_dot_product_attention, scale=scaling)
    parts = [each.split(segments.lengths, dim=2) for each in (query, key, value)]
    out: list[torch.Tensor] = []
    for index, (q, k, v) in enumerate(zip(*parts, strict=True)):
        k, v = repeat_kv(k, groups), repeat_kv(v, groups)
        blocks = segments.blocks[index] if segments.blocks else ()
        size = blocks[0].start if blocks else q.shape[2]  # of the history
        out.append(attend(q[:, :, :size], k[:, :, :size], v[:, :, :size], is_causal=True))
        for block in blocks:
            own = slice(block.start, block.end)
            k_block, v_block = (
                torch.cat([each[:, :, : block.seen], each[:, :, own]], dim=2) for each in (k, v)
            )
            out.append(attend(q[:, :, own], k_block, v_block, attn_mask=block.mask))
    return torch.cat(out, dim=2).transpose(1, 2), None


def _weights_of_last(query: torch.Tensor, key: torch.Tensor, scaling: float | None) -> torch.Tensor:
    """(T,) float32 how much the last token attends to each, the mean of the heads."""
    keys = repeat_kv(key, query.shape[1] // key.shape[1]).float()
    products = query[:, :, -1:].float() @ keys.transpose(2, 3)
    scaled = products * (query.shape[3] ** -0.5 if scaling is None else scaling)
    return scaled.softmax(dim=3).mean(dim=1)[0, 0]


def use_packed_attention(model: PreTrainedModel) -> None:
    """Let a language model take ``segments``; without them it computes as before."""
    AttentionInterface.register(NAME, packed_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)
