"""Where a job computes, and the precision that suits it."""

import logging
from collections import Counter
from dataclasses import dataclass

from mmtpp.config.schema import RunConfig
from mmtpp.data.machines import machines

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
    """GPUs when the settings ask for them or the cluster has any, else CPUs.

    Warns when the cluster is too small now: an autoscaler may bring more.
    """
    training = config.training
    labels = training.machine_labels
    resources: Counter[str] = Counter()
    for each in machines(labels, setting=f"training.machine_labels = {labels}"):
        resources.update(each)
    device = training.device
    on_gpu = device == "gpu" or (device == "auto" and resources.get("GPU", 0) > 0)
    kind, each = ("GPU", 1.0) if on_gpu else ("CPU", training.cpus_per_worker)
    if training.num_workers * each > resources.get(kind, 0):
        logger.warning(
            "%d workers need %g %s, the cluster has %g now; waiting for an autoscaler to bring "
            "them (training.num_workers = %d, training.device = %s)",
            training.num_workers,
            training.num_workers * each,
            kind,
            resources.get(kind, 0),
            training.num_workers,
            device,
        )
    logger.info("%d %s workers", training.num_workers, kind)
    precision = config.model.precision
    if precision == "auto":
        precision = "bfloat16" if on_gpu else "float32"
    return Hardware(on_gpu, precision)
