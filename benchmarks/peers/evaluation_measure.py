"""How evaluations are measured, and the parts into which the peers cut long sequences."""

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.peers.measured_process import Meter, peak_mib

PART_EVENTS = 128  # targets of a part; the peers cut longer sequences, with separate histories
MIN_S = 2.0


def parts_of(sequences: list[Any]) -> list[tuple[list[float], list[int]]]:
    """Parts of sequences as EasyTPP's files have them; the first event of a part is no target.

    Args:
        sequences: ``[times, types]`` of the sequences.
    """
    return [
        (times[start : start + PART_EVENTS + 1], types[start : start + PART_EVENTS + 1])
        for times, types in sequences
        for start in range(0, len(times) - 1, PART_EVENTS)
    ]


def num_parameters(networks: list[torch.nn.Module]) -> int:
    """Number of trainable parameters."""
    return sum(
        parameter.numel()
        for network in networks
        for parameter in network.parameters()
        if parameter.requires_grad
    )


def measure(work: Callable[[], object], targets: int, *, min_s: float = MIN_S) -> dict[str, float]:
    """Repeat an evaluation for some seconds, after one that is not measured.

    Args:
        work: One evaluation of all targets.
        targets: Number of targets.
        min_s: Least CPU seconds.

    Returns:
        ``targets_per_cpu_s``, and ``peak_mib`` of the process.
    """
    work()
    meter, rounds = Meter(), 0
    while not rounds or meter.cpu_s < min_s:
        work()
        rounds += 1
    return {"targets_per_cpu_s": rounds * targets / meter.cpu_s, "peak_mib": peak_mib()}


def fastest(measured: dict[int, dict[str, float]]) -> dict[str, float]:
    """The measurement with the highest rate, with its size of batches.

    Args:
        measured: Measurements by the size of batches.
    """
    batch = max(measured, key=lambda size: measured[size]["targets_per_cpu_s"])
    return {**measured[batch], "batch": batch}
