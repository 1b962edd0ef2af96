"""Speed and memory on a device: LoRA steps of the 3B, and decoding with a cache."""

import time
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.gpu.rows import VOCABULARY, build_backbone, build_batcher, make_long_row, make_row
from mmtpp.model.decoding.cached_history import CachedHistory
from mmtpp.model.event_model import EventModel
from mmtpp.model.flops import FlopCounter, peak_flops
from mmtpp.model.parameters.lora import attach_lora
from mmtpp.planner.memory import (
    GIB,
    RUNTIME_GIB,
    Option,
    Workload,
    count_sizes,
    estimate_memory,
)

RANK = 16
WARM_UP, TIMED = 2, 3  # steps
MEMORY_LIMIT = 1.1
"""Largest allowed ratio of measured to planned memory."""


@dataclass(frozen=True, slots=True)
class StepFigures:
    """One size of a training step.

    Attributes:
        tokens: Number of tokens of the row.
        checkpointing: Whether activations are recomputed.
        tokens_per_s: Tokens per second, the median of the timed steps.
        mfu: Fraction of the device's peak that useful work reaches.
        peak_gib: Peak of the allocated memory; None on a CPU.
        planned_gib: What the planner predicts, without the runtime; None for the tiny model.
        skipped: Why the size was not run; empty if it was.
    """

    tokens: int
    checkpointing: bool
    tokens_per_s: float = float("nan")
    mfu: float = float("nan")
    peak_gib: float | None = None
    planned_gib: float | None = None
    skipped: str = ""

    @property
    def holds(self) -> bool:
        """Whether the memory is within the plan; True where it was not measured."""
        if self.peak_gib is None or self.planned_gib is None:
            return True
        return self.peak_gib <= MEMORY_LIMIT * self.planned_gib


def run_steps(device: torch.device, *, is_tiny: bool) -> list[StepFigures]:
    """LoRA steps in bfloat16 for all sizes.

    Args:
        device: Device of the model.
        is_tiny: Whether the tiny model is used, or the whole 3B.
    """
    model = _build(device, is_tiny=is_tiny)
    peak, _ = peak_flops(device, torch.bfloat16)
    figures = []
    for tokens in (256, 512) if is_tiny else (4096, 16_384):
        for checkpointing in (True, False):
            planned = None if is_tiny else _planned_gib(tokens, checkpointing)
            if planned is not None and planned + RUNTIME_GIB > _device_gib(device):
                reason = f"planned {planned:.0f} GiB, more than the device has"
                figures.append(StepFigures(tokens, checkpointing, skipped=reason))
                continue
            figures.append(_run_step(model, device, tokens, checkpointing, planned, peak))
    return figures


def decode(device: torch.device, *, is_tiny: bool) -> float:
    """Tokens per second of decoding with a cache, for 8 continuations of one history."""
    model = _build(device, is_tiny=is_tiny).eval()
    move = build_batcher(torch.bfloat16, device)
    history = make_long_row(256 if is_tiny else 4096)
    single = make_row([max(4, len(history.event_type) // 2)])
    with torch.inference_mode():
        cache = CachedHistory.build(model, move(single), 8)
        token = np.full((8, 1), VOCABULARY.token_ids().byte_ids[0])
        cache.append(token)
        count = 16 if is_tiny else 64
        _wait(device)
        started = time.perf_counter()
        for _ in range(count):
            cache.append(token)
        _wait(device)
    return 8 * count / (time.perf_counter() - started)


def _build(device: torch.device, *, is_tiny: bool) -> EventModel:
    backbone = build_backbone(is_tiny=is_tiny, layers=None, dtype=torch.bfloat16, device=device)
    adapted = attach_lora(backbone, VOCABULARY.added_ids, rank=RANK, alpha=64, dropout=0.0)
    return EventModel(adapted.to(device)).train()


def _planned_gib(tokens: int, checkpointing: bool) -> float:
    workload = Workload("3b", lora_rank=RANK, max_tokens=tokens, samples_per_step=1)
    option = Option(1, checkpointing=checkpointing, offload=False)
    memory = estimate_memory(count_sizes(workload), workload, option, gpus=1)
    return memory.total - RUNTIME_GIB


def _run_step(
    model: EventModel,
    device: torch.device,
    tokens: int,
    checkpointing: bool,
    planned: float | None,
    peak: float,
) -> StepFigures:
    if checkpointing:
        model.base.gradient_checkpointing_enable({"use_reentrant": False})
    else:
        model.base.gradient_checkpointing_disable()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    masters = [parameter.detach().float().requires_grad_() for parameter in trained]
    optimizer = torch.optim.AdamW(masters, lr=1e-4)
    row = make_long_row(tokens)
    batch = build_batcher(torch.bfloat16, device)(row)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    seconds = []
    for _ in range(WARM_UP + TIMED):
        _wait(device)
        started = time.perf_counter()
        model(batch)[0].mean().backward()
        for parameter, master in zip(trained, masters, strict=True):
            master.grad = None if parameter.grad is None else parameter.grad.float()
            parameter.grad = None
        optimizer.step()
        with torch.no_grad():
            for parameter, master in zip(trained, masters, strict=True):
                parameter.copy_(master)
        _wait(device)
        seconds.append(time.perf_counter() - started)
    median = float(np.median(seconds[WARM_UP:]))
    flops = FlopCounter(model, image_px=56, blank_frame=False)(row).total
    allocated = torch.cuda.max_memory_allocated(device) / GIB if device.type == "cuda" else None
    return StepFigures(
        tokens=len(row.input_ids),
        checkpointing=checkpointing,
        tokens_per_s=len(row.input_ids) / median,
        mfu=flops / median / peak,
        peak_gib=allocated,
        planned_gib=planned,
    )


def _device_gib(device: torch.device) -> float:
    if device.type != "cuda":
        return float("inf")
    return torch.cuda.get_device_properties(device).total_memory / GIB


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
