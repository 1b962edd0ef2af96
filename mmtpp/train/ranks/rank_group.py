"""The place of a rank in the group of workers: its number, its device, its number format."""

from dataclasses import dataclass

import ray.train
import ray.train.torch
import torch

from mmtpp.config.schema import TrainingSection
from mmtpp.model.cpu_bfloat16 import adapt_to_processor
from mmtpp.runtime.hardware import check_same_gpus


@dataclass(frozen=True, slots=True)
class RankGroup:
    """This rank's place in the group of workers.

    Attributes:
        rank: Rank of this worker.
        num_ranks: Number of ranks.
        device: Device of the model.
        dtype: Type of the model's weights.
    """

    rank: int
    num_ranks: int
    device: torch.device
    dtype: torch.dtype


def join_group(training: TrainingSection, precision: str) -> RankGroup:
    """Find this rank's place and device; all ranks must call this.

    Raises:
        ClusterError: The ranks have different GPUs.
    """
    context = ray.train.get_context()
    rank, num_ranks = context.get_world_rank(), context.get_world_size()
    device = ray.train.torch.get_device()
    if device.type == "cuda":
        gpu_names: list[str] = [""] * num_ranks
        torch.distributed.all_gather_object(gpu_names, torch.cuda.get_device_name(device))
        check_same_gpus(gpu_names, training.machine_labels)
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    adapt_to_processor(device, dtype)
    return RankGroup(rank, num_ranks, device, dtype)
