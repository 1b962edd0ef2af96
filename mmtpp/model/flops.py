"""Operations of a row, and the peak of a device: their ratio is the model FLOPs utilisation (MFU).

MFU counts the operations of one forward and one backward pass, and not the operations that are
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
from mmtpp.core.representation.row import PackedRow
from mmtpp.model.event_model import EventModel
from mmtpp.model.processor import image_side

# operations per second with dense bfloat16 matrices, from NVIDIA's data sheets
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
# sides of the square matrices with which a peak is measured: large enough for a stable result
CPU_SIZE, GPU_SIZE = 1024, 8192


@dataclass(frozen=True, slots=True)
class RowFlops:
    """Operations of a row, forward and backward.

    Attributes:
        layers: Products with the language model's matrices.
        attention: Attention of the language model, causal within segments and branches.
        head: Logits of the labels.
        tower: The vision tower with its attention.
    """

    layers: float
    attention: float
    head: float
    tower: float

    @property
    def total(self) -> float:
        """Sum of all parts."""
        return self.layers + self.attention + self.head + self.tower


class FlopCounter:
    """Counts the operations that a model needs for a row.

    Args:
        model: Whole or sharded model. Later changes of the trained parameters are not counted.
        image_px: Side of every frame, in pixels.
        blank_frame: Whether the vision tower processes a black frame for a row without images, see
            ``Batcher``.
    """

    def __init__(self, model: EventModel, *, image_px: int, blank_frame: bool) -> None:
        self._min_frames = int(blank_frame)
        base: Any = model.base
        text = model.family.text_config(base.config)
        self._layers = _products(model.language_model.layers)
        self._head = _products([model.head])
        # a pair of tokens: two products over the width of all heads, and four in the backward pass
        self._pair = 6 * 2 * attention_width(text) * text.num_hidden_layers
        self._frame = 0.0
        tower = model.family.vision_tower(base)
        parts = model.family.tower_parts(base, image_side(image_px))
        if tower is None or parts is None:
            return
        trained = any(parameter.requires_grad for parameter in tower.parameters())
        self._frame = (
            parts.patches * _products(parts.per_patch, backward=trained)
            + parts.cells * _products(parts.per_cell, backward=trained)
            + (6 if trained else 2) * 2 * parts.width * parts.pairs
        )

    def __call__(self, row: PackedRow) -> RowFlops:
        """Count the operations of a row."""
        lengths = np.bincount(row.segment).astype(np.float64)
        pairs = float((lengths**2).sum()) / 2
        if row.branches is not None:
            pairs = float(row.branches.visible.sum())  # pairs within a branch are negligible
        return RowFlops(
            layers=self._layers * len(row.input_ids),
            attention=self._pair * pairs,
            # soft tokens are scored by small heads of their own
            head=0.0 if row.soft is not None else self._head * len(row.label_positions()),
            tower=self._frame * max(self._min_frames, len(row.frames)),
        )


def peak_flops(device: torch.device, dtype: torch.dtype) -> tuple[float, str]:
    """The peak of a device, and where the number comes from.

    For bfloat16 on the GPUs in ``PEAK`` the peak is the published one. Otherwise products of square
    matrices are measured, which takes a few seconds. On a CPU the peak is never below that of
    float32: without instructions for bfloat16, its products there run at a hundredth of the speed.

    Args:
        device: Device of the model.
        dtype: Type of the matrices.

    Returns:
        Operations per second with dense matrices, and a description of the source.
    """
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        published = published_peak(name)
        if published and dtype == torch.bfloat16:
            return published, f"published for {name}"
    dtypes = {dtype} if device.type == "cuda" else {dtype, torch.float32}
    peak = max(_measure_products(device, measured) for measured in dtypes)
    return peak, "measured with products of matrices"


def _measure_products(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of the fastest of five products of square matrices."""
    size = GPU_SIZE if device.type == "cuda" else CPU_SIZE
    matrix = torch.randn(size, size, device=device).to(dtype)
    seconds = []
    for _ in range(5):
        _wait(device)
        started = time.perf_counter()
        torch.matmul(matrix, matrix)
        _wait(device)
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / min(seconds)


def published_peak(name: str) -> float | None:
    """The published peak of a GPU; None if the GPU is not in ``PEAK``.

    Args:
        name: Name of the GPU in CUDA.
    """
    models = [model for model in PEAK if re.search(rf"\b{model}\b", name)]
    return PEAK[max(models, key=len)] if models else None


def attention_width(text_config: Any) -> int:
    """Width of all heads of a layer, which in some families is not the width of the model."""
    heads = text_config.num_attention_heads
    return heads * (getattr(text_config, "head_dim", None) or text_config.hidden_size // heads)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _products(modules: Iterable[nn.Module], *, backward: bool = True) -> float:
    """Operations of one vector in all matrices of the modules.

    The sum of the forward pass, the gradient of the vector, and the gradients of trained matrices.
    """
    operations = 0.0
    for module in modules:
        for parameter in module.parameters():
            shape = full_shape(parameter)
            if len(shape) > 1:
                operations += (2 + 2 * backward + 2 * parameter.requires_grad) * shape.numel()
    return operations
