"""The device a job computes on, and the precision that suits it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from mmtpp.config.schema import TrainingSection
from mmtpp.core.errors import ClusterError
from mmtpp.runtime.machines import ResourceDemand, machines

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Hardware:
    """Device and precision of a job's workers.

    Attributes:
        on_gpu: Whether each worker has one GPU.
        precision: ``float32`` or ``bfloat16``.
    """

    on_gpu: bool
    precision: str


def choose_hardware(training: TrainingSection, precision: str) -> Hardware:
    """Choose GPUs when the settings ask for them or the cluster has any, else CPUs.

    Args:
        training: Device and machine labels.
        precision: ``model.precision``; ``auto`` is bfloat16 on GPUs and float32 on CPUs.
    """
    available = machines(training.machine_labels)
    on_gpu = training.device == "gpu" or (
        training.device == "auto" and any(resources.get("GPU", 0) for resources in available)
    )
    if precision == "auto":
        precision = "bfloat16" if on_gpu else "float32"
    return Hardware(on_gpu, precision)


def worker_resources(training: TrainingSection, hardware: Hardware) -> dict[str, float]:
    """Ray resources that each worker reserves on its machine."""
    gpu = {"GPU": 1.0} if hardware.on_gpu else {}
    return {"CPU": training.cpus_per_worker, **gpu}


def worker_demand(training: TrainingSection, hardware: Hardware, count: int) -> ResourceDemand:
    """The demand of ``count`` workers."""
    resources = worker_resources(training, hardware)
    logger.info("%d workers with %s each", count, resources)
    return ResourceDemand(
        "workers",
        count,
        resources,
        training.machine_labels,
        f"training.num_workers = {training.num_workers}, training.cpus_per_worker = "
        f"{training.cpus_per_worker:g}, training.device = {training.device}, "
        f"training.machine_labels = {training.machine_labels}",
    )


def check_same_gpus(gpu_names: Sequence[str], labels: dict[str, str]) -> None:
    """Refuse ranks on different GPUs.

    All ranks wait for the slowest GPU, and the smallest one runs out of memory.

    Args:
        gpu_names: Name of each rank's GPU.
        labels: ``training.machine_labels``.

    Raises:
        ClusterError: The GPUs differ; the message lists the ranks of each kind.
    """
    if len(set(gpu_names)) > 1:
        ranks_by_gpu = {
            kind: [str(rank) for rank, name in enumerate(gpu_names) if name == kind]
            for kind in sorted(set(gpu_names))
        }
        listed = "; ".join(
            f"{kind}: rank {', '.join(ranks)}" for kind, ranks in ranks_by_gpu.items()
        )
        raise ClusterError(
            f"the workers have different GPUs: {listed}",
            cause="the cluster has several kinds of GPU; give their machines labels, such as "
            "--labels=gpu=l4 of `ray start`, and choose one kind",
            setting=f"training.machine_labels = {labels}",
        )
