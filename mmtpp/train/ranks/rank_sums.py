"""Sums over all ranks, without DeepSpeed."""

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import ArrayLike, NDArray


def sum_tensor_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """Sum a small tensor over all ranks, in place."""
    if has_other_ranks():
        dist.all_reduce(values)
    return values


def sum_numbers_over_ranks(values: ArrayLike, device: torch.device) -> NDArray[np.float64]:
    """Sum numbers of the host over all ranks. A single rank does not wait for its device.

    Args:
        values: (N,) numbers of this rank.
        device: Device of this rank, whose collectives the ranks use.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if not has_other_ranks():
        return numbers
    return sum_tensor_over_ranks(torch.tensor(numbers, device=device)).cpu().numpy()


def has_other_ranks() -> bool:
    """Whether this process is one of several ranks."""
    return dist.is_initialized() and dist.get_world_size() > 1
