"""Packed rows of random events for the checks, and the models that read them.

Axes: T tokens, E events.
"""

from dataclasses import fields, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from mmtpp.core.events import Events
from mmtpp.core.representation.branches import BranchedTokens, lay_out_branches
from mmtpp.core.representation.row import Branches, PackedRow, QuestionColumns
from mmtpp.core.representation.template import Template, TemplateSettings
from mmtpp.model.base_folder import build_tiny
from mmtpp.model.batch import Batcher
from mmtpp.model.full_size import full_size_config
from mmtpp.model.tokens.vocabulary import Vocabulary, train_tokenizer

IMAGE_PX = 56
CELLS = 4  # tokens of an image of 56 pixels
NUM_FRAMES = 3
TASKS = ("time", "type", "joint", "text")
_TEXTS = ("departs at 08:15 for gate 7", "lands at 21:40")
VOCABULARY = Vocabulary(train_tokenizer(_TEXTS, size=400))
TEMPLATE = Template(
    VOCABULARY.token_ids(), TemplateSettings("compact", "on_change", image_tokens=CELLS)
)


def build_backbone(*, is_tiny: bool, layers: int | None, dtype: torch.dtype, device: torch.device):
    """A model with random weights, made on its device.

    Args:
        is_tiny: Whether it is the tiny model, or the 3B.
        layers: Number of layers of the 3B's language model and vision tower; None for all.
        dtype: Type of the weights.
        device: Device of the weights.
    """
    if is_tiny:
        return build_tiny(VOCABULARY, seed=0, dtype=dtype).to(device)
    from transformers import Qwen2_5_VLForConditionalGeneration

    from mmtpp.compat.transformers_hooks import set_attention

    config: Any = full_size_config("3b")
    if layers is not None:
        text = config.text_config
        text.num_hidden_layers, text.layer_types = layers, text.layer_types[:layers]
        config.vision_config.depth = layers
        config.vision_config.fullatt_block_indexes = [layers - 1]
    set_attention(config, "sdpa")
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            return Qwen2_5_VLForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(before)


def enlarge_weights(backbone: torch.nn.Module) -> None:
    """Random weights so large that an error in attention or positions changes the result."""
    with torch.no_grad():
        for index, (name, parameter) in enumerate(backbone.named_parameters()):
            if parameter.dim() > 1:
                scale = 1.0 if "embed" in name else parameter.shape[-1] ** -0.5
                generator = torch.Generator(parameter.device).manual_seed(index)
                parameter.normal_(std=scale, generator=generator)


def build_batcher(dtype: torch.dtype, device: torch.device) -> Batcher:
    """The batcher of a model."""
    return Batcher(
        image_pad=VOCABULARY.special("<|image_pad|>"),
        image_px=IMAGE_PX,
        device=device,
        dtype=dtype,
    )


def make_events(size: int, seed: int) -> Events:
    """Random events with texts and images."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 12, size)
    return Events(
        intervals=rng.exponential(size=size),
        types=rng.integers(0, 9, size).astype(np.int16),
        text_ids=rng.integers(0, 256, lengths.sum()).astype(np.int32),
        text_offsets=np.append(0, lengths.cumsum()).astype(np.int64),
        frames=rng.integers(-1, NUM_FRAMES, size).astype(np.int32),
        similar=np.zeros(size, dtype=np.bool_),
    )


def make_row(sizes: list[int]) -> PackedRow:
    """A row without branches: one window for each number of events."""
    parts = [TEMPLATE.write(make_events(size, seed)) for seed, size in enumerate(sizes)]
    tokens = np.array([len(part.ids) for part in parts])
    num_events = np.cumsum([0, *sizes])
    return _row(
        parts,
        segment=np.repeat(np.arange(len(parts), dtype=np.int32), tokens),
        event=np.concatenate(
            [
                np.where(part.event < 0, -1, part.event + start)
                for part, start in zip(parts, num_events, strict=False)
            ]
        ).astype(np.int32),
        num_events=int(num_events[-1]),
    )


def make_branched_row(size: int) -> PackedRow:
    """A row of one window with questions about all its events."""
    laid = lay_out_branches(TEMPLATE, make_events(size, 7), range(1, size), tasks=TASKS)
    return _with_branches(laid, size)


def make_long_row(max_tokens: int) -> PackedRow:
    """A row of windows that fill nearly ``max_tokens`` tokens."""
    size = max(4, max_tokens // 64)
    sizes: list[int] = []
    row = make_row([size])
    while len(row.input_ids) <= max_tokens:
        sizes.append(size)
        row = make_row([*sizes, size])
    return make_row(sizes or [size // 2])


def append_tokens(row: PackedRow, ids: np.ndarray) -> PackedRow:
    """A row of one window, followed by further tokens without labels."""
    size = len(ids)
    return replace(
        row,
        input_ids=np.append(row.input_ids, ids),
        modality=np.append(row.modality, np.zeros(size, dtype=np.uint8)),
        segment=np.append(row.segment, np.zeros(size, dtype=np.int32)),
        event=np.append(row.event, np.full(size, row.event[-1])),
        may_be_label=np.append(row.may_be_label, np.zeros(size, dtype=np.bool_)),
    )


def split(row: PackedRow) -> list[PackedRow]:
    """The windows of a row without branches as separate rows."""
    is_pad = row.input_ids == VOCABULARY.special("<|image_pad|>")
    starts = np.flatnonzero(np.diff(row.segment, prepend=-1, append=-1))
    images = np.append(0, np.cumsum(is_pad) // CELLS)
    rows = []
    for start, end in pairwise(starts.tolist()):
        inside = slice(start, end)
        rows.append(
            PackedRow(
                sample_id=0,
                input_ids=row.input_ids[inside],
                modality=row.modality[inside],
                segment=np.zeros(end - start, dtype=np.int32),
                event=row.event[inside],
                may_be_label=row.may_be_label[inside],
                frames=row.frames,
                image_frame=row.image_frame[images[start] : images[end]],
                event_type=row.event_type,
                event_is_target=row.event_is_target,
            )
        )
    return rows


def _row(parts: list, *, segment: np.ndarray, event: np.ndarray, num_events: int) -> PackedRow:
    frames = np.random.default_rng(0).integers(
        0, 256, (NUM_FRAMES, IMAGE_PX, IMAGE_PX, 3), dtype=np.uint8
    )
    return PackedRow(
        sample_id=0,
        input_ids=np.concatenate([part.ids for part in parts]),
        modality=np.concatenate([part.modality for part in parts]),
        segment=segment,
        event=event,
        may_be_label=np.ones(len(segment), dtype=np.bool_),
        frames=frames,
        image_frame=np.concatenate([part.frames for part in parts]),
        event_type=np.zeros(num_events, dtype=np.int16),
        event_is_target=np.ones(num_events, dtype=np.bool_),
    )


def _with_branches(laid: BranchedTokens, size: int) -> PackedRow:
    row = _row(
        [laid.tokens],
        segment=np.zeros(len(laid.tokens.ids), dtype=np.int32),
        event=laid.tokens.event,
        num_events=size,
    )
    return replace(
        row,
        may_be_label=laid.is_answer,
        branches=Branches(*(getattr(laid.branches, field.name) for field in fields(Branches))),
        questions=QuestionColumns(
            *(getattr(laid.questions, field.name) for field in fields(QuestionColumns))
        ),
    )
