"""One packed row as tensors: the input of the model.

Axes: T tokens of the row, F distinct frames, I image occurrences, N labels.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from mmtpp.core.events import NO_FRAME
from mmtpp.core.representation.older_events import OlderEvents
from mmtpp.core.representation.positions import branched_positions, mrope_positions
from mmtpp.core.representation.row import Block, PackedRow
from mmtpp.core.representation.soft_tokens import SoftTokens
from mmtpp.core.representation.time_smoothing import TimeSmoothing
from mmtpp.model.attention import AttentionBlock, Segments, attention_dtype
from mmtpp.model.grouped_attention import SegmentGroups, group_segments
from mmtpp.model.processor import (
    QWEN2_5_VL_IMAGES,
    ImageFormat,
    fit_frames,
    image_side,
    pixel_values,
)

# Maximum number of tokens of branches that attend together. Larger blocks compute more products
# that the mask removes; smaller blocks need more calls. Sizes from 64 to 512 differ by a fifth
# (2 cores, 300 targets, 2026-11-23).
BLOCK_TOKENS = 128


@dataclass(frozen=True, slots=True)
class SpreadLabels:
    """Training labels whose probability is spread over several byte tokens.

    Attributes:
        byte_ids: (256,) int64 ids of the byte tokens.
        place: (N,) int64 row of ``weights`` for each label; 0 for labels that are not spread.
        weights: (1 + M, 256) float32 weights of the bytes for M spread labels; row 0 is not used.
    """

    byte_ids: torch.Tensor
    place: torch.Tensor
    weights: torch.Tensor


@dataclass(frozen=True, slots=True)
class SoftBatch:
    """The content of a row's soft tokens as tensors, ``core.representation.soft_tokens``.

    Attributes:
        memory: (T, P) float32 memory after each event.
        intervals: (T,) float32 interval before each event, in the source's unit.
        types: (T,) int64 codes of the types.
        text_ids: (X,) int64 first and last tokens of every text.
        text_offsets: (T + 1,) int64 limits of the texts.
        frame: (T,) int64 frame that the event shows; -1 for none.
    """

    memory: torch.Tensor
    intervals: torch.Tensor
    types: torch.Tensor
    text_ids: torch.Tensor
    text_offsets: torch.Tensor
    frame: torch.Tensor


@dataclass(frozen=True, slots=True)
class OlderBatch:
    """The older events of a row as tensors, ``core.representation.older_events``.

    Attributes:
        at: (S,) int64 positions of their tokens.
        code_ids: (S, B + 1) int64 token ids of the time code and of the type.
        distinct_text_ids: (U,) int64 distinct tokens of all texts.
        text_place: (X,) int64 each text token's place in ``distinct_text_ids``.
        text_offsets: (S + 1,) int64 limits of the texts within ``text_place``.
        frames: (S,) int64 frame that the event shows; -1 for none.
    """

    at: torch.Tensor
    code_ids: torch.Tensor
    distinct_text_ids: torch.Tensor
    text_place: torch.Tensor
    text_offsets: torch.Tensor
    frames: torch.Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """One row as tensors on a device: the input of ``EventModel.forward``.

    Attributes:
        input_ids: (1, T) int64 token ids.
        position_ids: (3, 1, T) int64 positions in time, height and width.
        segments: Segments and blocks of branches; tokens attend only within them.
        image_mask: (1, T) bool, True at image pads.
        pixel_values: (F * patches, 6 * P^2) patches of P pixels a side, in the model's dtype; None
            for a row without frames, for which the vision tower does not run.
        grid: (F, 3) int64 number of patches in time, height and width.
        image_frame: (I,) int64 index of the frame that each image shows.
        labels: (N,) int64 positions of the labels in the row.
        predictors: (N,) int64 positions of the tokens that predict the labels.
        spread: Labels that are spread over several tokens; None without smoothing.
        soft: Content of the soft tokens; None without soft tokens.
        older: Content of the older events; None where rows have none.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    segments: Segments
    image_mask: torch.Tensor
    pixel_values: torch.Tensor | None
    grid: torch.Tensor
    image_frame: torch.Tensor
    labels: torch.Tensor
    predictors: torch.Tensor
    spread: SpreadLabels | None = None
    soft: SoftBatch | None = None
    older: OlderBatch | None = None


class Batcher:
    """Moves rows to a device and computes their positions, masks and patches.

    Args:
        image_pad: Token id of the image pad.
        image_px: Side of every frame, in pixels.
        device: Device of the model.
        dtype: Type of the model's weights and of the pixel values.
        blank_frame: Whether a row without frames gets a black frame, so that the vision tower runs
            for every row. The black frame changes no result. It is needed in a training with
            several ranks in which rows may have frames: with ZeRO-3, or with a trained tower, all
            ranks must run the tower, or they wait for each other forever.
        image_format: Format of the model's images; None for Qwen2.5-VL's.
    """

    def __init__(
        self,
        *,
        image_pad: int,
        image_px: int,
        device: torch.device,
        dtype: torch.dtype,
        blank_frame: bool = False,
        image_format: ImageFormat | None = None,
    ) -> None:
        self.device = device
        self._dtype, self._mask_dtype = dtype, attention_dtype(device, dtype)
        self._image_pad = image_pad
        self._image_px = image_px
        self._blank_frame = blank_frame
        self._image_format = image_format or QWEN2_5_VL_IMAGES

    def __call__(self, row: PackedRow) -> Batch:
        """Convert a row to tensors."""
        is_pad = row.input_ids == self._image_pad
        frames = row.frames
        if len(frames) == 0 and self._blank_frame:
            frames = np.zeros((1, self._image_px, self._image_px, 3), dtype=np.uint8)
        frames = fit_frames(frames, self._image_format)
        side = image_side(self._image_px)
        patches = side * self._image_format.merge
        starts = np.flatnonzero(np.diff(row.segment, prepend=-1, append=-1))
        lengths = tuple(np.diff(starts).tolist())
        groups: SegmentGroups | None = None
        if row.branches is None:
            positions = mrope_positions(is_pad, row.segment, image_side=side)
            blocks: list[list[Block]] = []
            groups = group_segments(lengths) if self.device.type == "cpu" else None
        else:
            positions = branched_positions(is_pad, row.segment, row.branches, image_side=side)
            blocks = [
                row.branches.blocks(start, end, size=BLOCK_TOKENS)
                for start, end in pairwise(starts.tolist())
            ]
        labels = row.label_positions()
        return Batch(
            input_ids=self._tensor(row.input_ids)[None],
            position_ids=self._tensor(positions)[:, None],
            segments=Segments(
                lengths,
                torch.as_tensor(starts.astype(np.int32), device=self.device),
                tuple(tuple(map(self._block, segment_blocks)) for segment_blocks in blocks),
                groups,
            ),
            image_mask=torch.as_tensor(is_pad, device=self.device)[None],
            pixel_values=torch.as_tensor(
                pixel_values(frames, self._image_format), device=self.device, dtype=self._dtype
            )
            if len(frames)
            else None,
            grid=torch.tensor([[1, patches, patches]], device=self.device).repeat(len(frames), 1),
            image_frame=self._tensor(row.image_frame),
            labels=self._tensor(labels),
            predictors=self._tensor(row.predecessors()[labels]),
            soft=None if row.soft is None else self._soft(row, row.soft),
            older=None if row.older is None else self._older(row.older),
        )

    def _older(self, older: OlderEvents) -> OlderBatch:
        distinct, place = np.unique(older.text_ids, return_inverse=True)
        return OlderBatch(
            at=self._tensor(older.at),
            code_ids=self._tensor(older.code_ids),
            distinct_text_ids=self._tensor(distinct),
            text_place=self._tensor(place),
            text_offsets=self._tensor(older.text_offsets),
            frames=self._tensor(older.frames),
        )

    def _soft(self, row: PackedRow, soft: SoftTokens) -> SoftBatch:
        frame = np.full(len(soft), NO_FRAME, dtype=np.int32)
        frame[soft.has_image] = row.image_frame
        intervals = soft.intervals.astype(np.float32)
        return SoftBatch(
            memory=torch.as_tensor(soft.memory, device=self.device),
            intervals=torch.as_tensor(intervals, device=self.device),
            types=self._tensor(row.event_type),
            text_ids=self._tensor(soft.text_ids),
            text_offsets=self._tensor(soft.text_offsets),
            frame=self._tensor(frame),
        )

    def spread(self, row: PackedRow, smoothing: TimeSmoothing) -> SpreadLabels:
        """Spread the labels of a row that the smoothing selects.

        Args:
            row: PackedRow with labels.
            smoothing: Smoothing of the time codes.
        """
        smoothed, weights = smoothing(row)
        place = np.zeros(len(row.label_positions()), dtype=np.int64)
        place[smoothed] = 1 + np.arange(len(smoothed))
        return SpreadLabels(
            self._tensor(smoothing.byte_ids),
            self._tensor(place),
            torch.as_tensor(np.pad(weights, ((1, 0), (0, 0))), device=self.device),
        )

    def _block(self, block: Block) -> AttentionBlock:
        allowed = torch.as_tensor(block.mask, device=self.device)
        seen, hidden = torch.tensor([0.0, -torch.inf], device=self.device, dtype=self._mask_dtype)
        mask = torch.where(allowed, seen, hidden)
        return AttentionBlock(block.start, block.end, block.seen, mask)

    def _tensor(self, values: NDArray[np.integer]) -> torch.Tensor:
        return torch.as_tensor(values.astype(np.int64), device=self.device)
