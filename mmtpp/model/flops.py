"""Operations that a row needs, and what a device can do: their ratio is the MFU.

Model FLOPs utilisation counts what the model must compute, forward and backward, whatever is
computed again to save memory (PaLM, arXiv 2204.02311, appendix B).
"""

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from mmtpp.compat.deepspeed_hooks import full_shape
from mmtpp.core.row import Row
from mmtpp.model.event_model import EventModel
from mmtpp.model.processor import MERGE, PATCH_PX

# dense bfloat16, operations a second, from NVIDIA's data sheets
PEAK = {
    "A10": 125e12,
    "A100": 312e12,
    "L4": 121e12,
    "L40S": 362e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
}
# sides of the matrices of a measured peak: products long enough to measure, and no longer
CPU_SIZE, GPU_SIZE = 1024, 8192


@dataclass(frozen=True, slots=True)
class RowFlops:
    """Operations of a row, forward and backward.

    Attributes:
        layers: products with the language model's matrices.
        attention: of the language model, causal within segments and branches.
        head: logits of the labels.
        tower: the vision tower, attention included.
    """

    layers: float
    attention: float
    head: float
    tower: float

    @property
    def total(self) -> float:
        """Their sum."""
        return self.layers + self.attention + self.head + self.tower


class FlopCounter:
    """Counts the operations of rows in a model.

    Args:
        model: sharded or whole; which of its parameters are trained must not change after.
        image_px: side of every frame.
        blank_frame: See ``Batcher``: a row without images passes a black frame through the tower.
    """

    def __init__(self, model: EventModel, *, image_px: int, blank_frame: bool) -> None:
        self._fewest_frames = int(blank_frame)
        base: Any = model.base
        text, vision = base.config.text_config, base.config.vision_config
        self._layers = _products(base.model.language_model.layers)
        self._head = _products([model.head])
        # a pair of tokens: two products of the width of all heads, and four backward
        self._pair = 6 * 2 * text.hidden_size * text.num_hidden_layers
        tower = base.model.visual
        trained = any(each.requires_grad for each in tower.parameters())
        patches = (image_px // PATCH_PX) ** 2
        window = min(patches, (vision.window_size // PATCH_PX) ** 2)
        whole = len(vision.fullatt_block_indexes)  # layers in which a patch sees all of a frame
        pairs = patches * (whole * patches + (vision.depth - whole) * window)
        self._frame = (
            patches * _products([tower.patch_embed, tower.blocks], backward=trained)
            + patches / MERGE**2 * _products([tower.merger], backward=trained)
            + (6 if trained else 2) * 2 * vision.hidden_size * pairs
        )

    def __call__(self, row: Row) -> RowFlops:
        """Operations of a row, with those of the vision tower where it runs."""
        lengths = np.bincount(row.segment).astype(np.float64)
        pairs = float((lengths**2).sum()) / 2
        if row.branches is not None:
            pairs = float(row.branches.visible.sum())  # next to nothing within a branch
        return RowFlops(
            layers=self._layers * len(row.input_ids),
            attention=self._pair * pairs,
            head=self._head * len(row.label_positions()),
            tower=self._frame * max(self._fewest_frames, len(row.frames)),
        )


def peak_flops(device: torch.device, dtype: torch.dtype) -> tuple[float, str]:
    """What a device can do in dense products, operations a second, and how that is known.

    Published for the GPUs in ``PEAK`` in bfloat16; else measured now with products of square
    matrices, which takes a moment.
    """
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        published = published_peak(name)
        if published and dtype == torch.bfloat16:
            return published, f"published for {name}"
    size = GPU_SIZE if device.type == "cuda" else CPU_SIZE
    matrix = torch.randn(size, size, device=device).to(dtype)
    seconds = []
    for _ in range(5):
        _wait(device)
        started = time.perf_counter()
        torch.matmul(matrix, matrix)
        _wait(device)
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / min(seconds), "measured with products of matrices"


def published_peak(name: str) -> float | None:
    """Of a GPU as CUDA names it; None when it is not in ``PEAK``."""
    fitting = [each for each in PEAK if re.search(rf"\b{each}\b", name)]
    return PEAK[max(fitting, key=len)] if fitting else None


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _products(modules: Iterable[nn.Module], *, backward: bool = True) -> float:
    """Operations of a vector in all matrices: forward, its gradient, and that of trained ones."""
    operations = 0.0
    for parameter in (each for module in modules for each in module.parameters()):
        shape = full_shape(parameter)
        if len(shape) > 1:
            operations += (2 + 2 * backward + 2 * parameter.requires_grad) * shape.numel()
    return operations
