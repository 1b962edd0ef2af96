"""A tiny random model, and packed rows for it."""

import numpy as np
import torch

from mmtpp.core.representation.row import PackedRow
from mmtpp.core.representation.tokens import Modality
from mmtpp.model.base_folder import build_tiny
from mmtpp.model.batch import Batcher
from mmtpp.model.event_model import EventModel
from mmtpp.model.tokens.vocabulary import Vocabulary, train_tokenizer

IMAGE_PX = 56
CELLS = 4  # image tokens of a 56-pixel square


def tiny_vocabulary() -> Vocabulary:
    return Vocabulary(train_tokenizer(["UA1545 to IAH", "AA1141 to MIA, 757-223"], size=400))


def tiny_backbone(vocabulary: Vocabulary, seed: int = 0):
    """Random weights, large enough that an error in attention or positions changes the result."""
    model = build_tiny(vocabulary, seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                scale = 1.0 if "embed" in name else parameter.shape[-1] ** -0.5
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return model.eval()


def batcher(
    vocabulary: Vocabulary, dtype: torch.dtype = torch.float32, *, blank_frame: bool = True
) -> Batcher:
    return Batcher(
        image_pad=vocabulary.special("<|image_pad|>"),
        image_px=IMAGE_PX,
        device=torch.device("cpu"),
        dtype=dtype,
        blank_frame=blank_frame,
    )


def random_row(
    vocabulary: Vocabulary, lengths: list[int], *, seed: int, images: bool = True
) -> PackedRow:
    """A row with one segment per length; every segment of 12 tokens or more shows two images."""
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (3, IMAGE_PX, IMAGE_PX, 3), dtype=np.uint8)
    ids, segments, image_frame = [], [], []
    for index, length in enumerate(lengths):
        tokens = rng.integers(0, 256, length).tolist()
        if images and length >= 20:
            for start in (2, 11):
                image = [
                    vocabulary.special("<|vision_start|>"),
                    *[vocabulary.special("<|image_pad|>")] * CELLS,
                    vocabulary.special("<|vision_end|>"),
                ]
                tokens[start : start + len(image)] = image
                image_frame.append(int(rng.integers(0, 3)))
        ids += tokens
        segments += [index] * length
    input_ids = np.array(ids, dtype=np.int32)
    masked = input_ids == vocabulary.special("<|image_pad|>")
    modality = np.where(masked, Modality.MASKED, rng.integers(1, 5, len(ids))).astype(np.uint8)
    return PackedRow(
        sample_id=seed,
        input_ids=input_ids,
        modality=modality,
        segment=np.array(segments, dtype=np.int32),
        event=np.zeros(len(ids), dtype=np.int32),
        may_be_label=np.ones(len(ids), dtype=np.bool_),
        frames=frames if image_frame else frames[:0],
        image_frame=np.array(image_frame, dtype=np.int32),
        event_type=np.zeros(1, dtype=np.int16),
        event_is_target=np.ones(1, dtype=np.bool_),
    )


def split_row(row: PackedRow) -> list[PackedRow]:
    """The segments of a row as separate rows."""
    rows = []
    shown = 0
    for segment in range(int(row.segment.max()) + 1):
        inside = row.segment == segment
        ids = row.input_ids[inside]
        count = int((row.modality[inside] == Modality.MASKED).sum()) // CELLS
        rows.append(
            PackedRow(
                sample_id=segment,
                input_ids=ids,
                modality=row.modality[inside],
                segment=np.zeros(len(ids), dtype=np.int32),
                event=row.event[inside],
                may_be_label=row.may_be_label[inside],
                frames=row.frames if count else row.frames[:0],
                image_frame=row.image_frame[shown : shown + count],
                event_type=row.event_type,
                event_is_target=row.event_is_target,
            )
        )
        shown += count
    return rows


def nll(model: EventModel, vocabulary: Vocabulary, row: PackedRow) -> torch.Tensor:
    with torch.no_grad():
        return model(batcher(vocabulary)(row))[0]
