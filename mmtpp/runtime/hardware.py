"""Where a job computes, and the precision that suits it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import ClusterError
from mmtpp.runtime.machines import Need, machines

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Hardware:
    """What the workers of a job run on.

    Attributes:
        on_gpu: one GPU a worker, or none.
        precision: ``float32`` or ``bfloat16``.
    """

    on_gpu: bool
    precision: str


def choose_hardware(config: RunConfig) -> Hardware:
    """GPUs when the settings ask for them or the cluster has any, else CPUs."""
    training = config.training
    found = machines(training.machine_labels)
    on_gpu = training.device == "gpu" or (
        training.device == "auto" and any(each.get("GPU", 0) for each in found)
    )
    precision = config.model.precision
    if precision == "auto":
        precision = "bfloat16" if on_gpu else "float32"
    return Hardware(on_gpu, precision)


def worker_resources(config: RunConfig, hardware: Hardware) -> dict[str, float]:
    """What each worker reserves on its machine."""
    gpu = {"GPU": 1.0} if hardware.on_gpu else {}
    return {"CPU": config.training.cpus_per_worker, **gpu}


def workers(config: RunConfig, hardware: Hardware, count: int) -> Need:
    """So many workers of the job."""
    training = config.training
    each = worker_resources(config, hardware)
    logger.info("%d workers with %s each", count, each)
    return Need(
        "workers",
        count,
        each,
        training.machine_labels,
        f"training.num_workers = {training.num_workers}, training.cpus_per_worker = "
        f"{training.cpus_per_worker:g}, training.device = {training.device}, "
        f"training.machine_labels = {training.machine_labels}",
    )


def check_same_gpus(names: Sequence[str], labels: dict[str, str]) -> None:
    """Refuse ranks on different GPUs: all wait for the slowest, the smallest runs out of memory.

    Args:
        names: of the GPU of each rank.
        labels: ``training.machine_labels``.

    Raises:
        ClusterError: they differ; names the ranks of each.
    """
    if len(set(names)) > 1:
        ranks = {
            name: [rank for rank, each in enumerate(names) if each == name]
            for name in sorted(set(names))
        }
        listed = "; ".join(
            f"{name}: rank {', '.join(map(str, having))}" for name, having in ranks.items()
        )
        raise ClusterError(
            f"the workers have different GPUs: {listed}",
            cause="the cluster has several kinds; label their machines, as "
            "--labels=gpu=l4 of `ray start`, and name one kind",
            setting=f"training.machine_labels = {labels}",
        )
