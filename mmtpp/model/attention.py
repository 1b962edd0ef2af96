"""Attention within the segments of a packed row.

No (T, T) mask exists, and the work grows with the sum of the squared lengths of the segments, not
with the square of their sum. On CPUs, short segments are computed in groups
(``grouped_attention``). Branches attend in blocks: a block's mask covers the history that the block
sees and the block itself, not the other branches.

A continued segment begins with tokens whose keys and values an earlier pass has computed
(``history_keys``); the row holds only the tokens after them.

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

from mmtpp.model.grouped_attention import SegmentGroups, attend_in_groups
from mmtpp.model.history_keys import HistoryKeys

NAME = "mmtpp_packed"
# transformers builds no mask of its own: it passes a mask of four axes on unchanged
NO_MASK = torch.empty(0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class AttentionBlock:
    """Branches of a segment that attend together, see ``core.representation.row.Block``.

    Attributes:
        start, end: Tokens of the block within the segment.
        seen: Number of leading tokens of the history that the block attends to.
        mask: (end - start, seen + end - start) on the device, 0 where the token of the row may see
            the token of the column and minus infinity elsewhere. Its type is ``attention_dtype``: a
            bool mask would be converted in every layer.
    """

    start: int
    end: int
    seen: int
    mask: torch.Tensor


@dataclass(frozen=True, slots=True)
class Continued:
    """A segment of N tokens that follow P tokens of which the keys and values are kept.

    Attributes:
        keys: The keys and values, to which those of the segment are written.
        mask: (N, P + N) like the mask of ``AttentionBlock``.
    """

    keys: HistoryKeys
    mask: torch.Tensor


@dataclass(frozen=True, slots=True)
class Segments:
    """The segments of a packed row, which do not attend to each other.

    Attributes:
        lengths: Number of tokens in each segment.
        starts: (segments + 1,) int32 on the device, from 0 to T.
        blocks: Blocks of branches of each segment; empty where no segment has branches.
        groups: The segments in groups of similar length; None in rows with branches, on GPUs, and
            where no two segments share a group.
        watched: List that receives the attention weights of the last token, (T,) per layer, the
            mean of the heads; for a single segment without branches. None records no weights.
        continued: What each segment continues; empty where rows hold whole segments. With it,
            ``blocks`` and ``groups`` are not used.
    """

    lengths: tuple[int, ...]
    starts: torch.Tensor
    blocks: tuple[tuple[AttentionBlock, ...], ...] = ()
    groups: SegmentGroups | None = None
    watched: list[torch.Tensor] | None = None
    continued: tuple[Continued, ...] = ()


def attention_dtype(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """Type in which attention is computed; on CPUs the kernels for float32 are faster.

    Args:
        device: Device of the model.
        dtype: Type of the model's weights.
    """
    return torch.float32 if device.type == "cpu" and dtype == torch.bfloat16 else dtype


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
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention function: causal within each segment, or a history and branches.

    Args:
        module: The attention layer.
        query: (1, H, T, D).
        key: (1, K, T, D).
        value: (1, K, T, D).
        attention_mask: Mask of transformers; None or an empty tensor with segments.
        segments: Segments of the row; None calls transformers' SDPA.
        scaling: Factor of the products; 1 / sqrt(D) when None.
        dropout: Dropout of the weights; must be 0 with segments.
        options: Further arguments of SDPA.

    Returns:
        (1, T, H, D) and no weights.
    """
    if segments is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, **options
        )
    if dropout or (attention_mask is not None and attention_mask.numel()):
        raise ValueError("packed attention takes neither a mask nor dropout")
    if segments.continued:
        layer = int(module.layer_idx)  # pyright: ignore[reportArgumentType] # set by transformers
        return _attend_continued(layer, query, key, value, segments, scaling), None
    if segments.watched is not None:
        segments.watched.append(_weights_of_last(query, key, scaling))
    has_kernel = query.device.type == "cuda" and query.dtype != torch.float32
    if has_kernel and not segments.blocks:
        return _attend_by_kernel(query, key, value, segments, scaling), None
    return _attend_by_segment(query, key, value, segments, scaling), None


def _attend_by_kernel(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    segments: Segments,
    scaling: float | None,
) -> torch.Tensor:
    """(1, T, H, D), all segments in one call of the GPU's kernel for varying lengths."""
    longest = max(segments.lengths)
    q_THD, k_TKD, v_TKD = (tensor[0].transpose(0, 1).contiguous() for tensor in (query, key, value))
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
    return out_THD[None]


def _attend_by_segment(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    segments: Segments,
    scaling: float | None,
) -> torch.Tensor:
    """(1, T, H, D), in groups, or one segment after the other: its history, then its branches."""
    dtype = attention_dtype(query.device, query.dtype)
    # GPUs have no kernel for masks and shared key-value heads, and would store all weights
    on_cpu = query.device.type == "cpu"
    repeats = 1 if on_cpu else query.shape[1] // key.shape[1]
    attend = partial(functional.scaled_dot_product_attention, scale=scaling, enable_gqa=on_cpu)
    inputs = [tensor.to(dtype) for tensor in (query, key, value)]
    if segments.groups is not None:
        return attend_in_groups(*inputs, groups=segments.groups, scaling=scaling).to(query.dtype)
    parts = [tensor.split(segments.lengths, dim=2) for tensor in inputs]
    out: list[torch.Tensor] = []
    for index, (q, k, v) in enumerate(zip(*parts, strict=True)):
        k, v = repeat_kv(k, repeats), repeat_kv(v, repeats)
        blocks = segments.blocks[index] if segments.blocks else ()
        history = blocks[0].start if blocks else q.shape[2]  # tokens
        out.append(attend(q[:, :, :history], k[:, :, :history], v[:, :, :history], is_causal=True))
        for block in blocks:
            inside = slice(block.start, block.end)
            k_block, v_block = (
                torch.cat([tensor[:, :, : block.seen], tensor[:, :, inside]], dim=2)
                for tensor in (k, v)
            )
            out.append(attend(q[:, :, inside], k_block, v_block, attn_mask=block.mask))
    attended = out[0] if len(out) == 1 else torch.cat(out, dim=2)
    return attended.to(query.dtype).transpose(1, 2)


def _attend_continued(
    layer: int,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    segments: Segments,
    scaling: float | None,
) -> torch.Tensor:
    """(1, T, H, D), one segment after the other: its tokens attend to the kept ones and its own."""
    dtype = attention_dtype(query.device, query.dtype)
    parts = [tensor[0].to(dtype).split(segments.lengths, dim=1) for tensor in (query, key, value)]
    out: list[torch.Tensor] = []
    for q, k, v, continued in zip(*parts, segments.continued, strict=True):
        keys, values = continued.keys.write(layer, k, v)
        by_key_head = q.unflatten(0, (len(keys), -1))  # views: nothing is repeated in memory
        shape = (-1, by_key_head.shape[1], -1, -1)
        attended = functional.scaled_dot_product_attention(
            by_key_head,
            keys[:, None].expand(shape),
            values[:, None].expand(shape),
            attn_mask=continued.mask,
            scale=scaling,
        )
        out.append(attended.flatten(0, 1))
    return torch.cat(out, dim=1).to(query.dtype).transpose(0, 1)[None]


def _weights_of_last(query: torch.Tensor, key: torch.Tensor, scaling: float | None) -> torch.Tensor:
    """(T,) float32, attention weights of the last token, the mean of the heads."""
    keys = repeat_kv(key, query.shape[1] // key.shape[1]).float()
    products = query[:, :, -1:].float() @ keys.transpose(2, 3)
    scaled = products * (query.shape[3] ** -0.5 if scaling is None else scaling)
    return scaled.softmax(dim=3).mean(dim=1)[0, 0]


def use_packed_attention(model: PreTrainedModel) -> None:
    """Let a language model accept ``segments``; a call without them is unchanged."""
    AttentionInterface.register(NAME, packed_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)
