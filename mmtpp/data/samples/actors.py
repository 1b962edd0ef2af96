"""Process the samples of a plan in Ray Data actors; each actor has a model."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from mmtpp.config.schema import TrainingSection
from mmtpp.data.samples.plan import Plan, samples_table
from mmtpp.runtime.hardware import Hardware, worker_demand
from mmtpp.runtime.machines import ResourceDemand, wait_for_machines
from mmtpp.runtime.progress import ProgressBar


@dataclass(frozen=True, slots=True)
class ActorPool:
    """The number of actors that hold a model, and the resources of each.

    Attributes:
        max_actors: Largest number of actors.
        num_cpus: Number of CPUs of one actor.
        on_gpu: Whether each actor has a GPU.
        machine_labels: Ray labels of the machines that actors run on.
        batch_size: Number of samples in one call of an actor.
        need: Resources that the cluster must have before the first actor starts.
        patience_s: Seconds to wait for these resources.
    """

    max_actors: int
    num_cpus: float
    on_gpu: bool
    machine_labels: Mapping[str, str]
    batch_size: int
    need: ResourceDemand
    patience_s: float

    @classmethod
    def from_settings(
        cls,
        training: TrainingSection,
        hardware: Hardware,
        *,
        windows_per_batch: int,
        patience_s: float,
    ) -> "ActorPool":
        """The pool of a job: its actors have the number and the resources of training workers.

        Args:
            training: Number, CPUs and machines of the workers.
            hardware: Hardware of the job's workers.
            windows_per_batch: Number of samples in one call of an actor.
            patience_s: Maximum time to wait for the machines, in seconds.
        """
        return cls(
            max_actors=training.num_workers,
            num_cpus=training.cpus_per_worker,
            on_gpu=hardware.on_gpu,
            machine_labels=training.machine_labels,
            batch_size=windows_per_batch,
            need=worker_demand(training, hardware, 1),
            patience_s=patience_s,
        )


def map_samples(
    plan: Plan, actor: type, settings: object, pool: ActorPool, *, title: str
) -> Iterator[pa.Table]:
    """Turn the samples of a plan into tables, in actors on any number of machines.

    Args:
        plan: Plan whose samples are processed.
        actor: Class whose objects turn ``plan.samples_table`` into a table.
        settings: Argument of the actor's constructor.
        pool: Number and resources of the actors.
        title: Title of the progress.

    Yields:
        Tables of the actors, in any order.
    """
    wait_for_machines(pool.need, patience_s=pool.patience_s)
    ids = np.arange(plan.num_samples)
    size = pool.batch_size
    blocks = [samples_table(plan, ids[start : start + size]) for start in range(0, len(ids), size)]
    results = ray.data.from_blocks(blocks).map_batches(
        actor,
        fn_constructor_args=(settings,),
        batch_size=size,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=max(1, min(len(blocks), pool.max_actors))),
        num_cpus=pool.num_cpus,
        num_gpus=1 if pool.on_gpu else None,
        label_selector=dict(pool.machine_labels) or None,
    )
    progress = ProgressBar(title, total=len(blocks), unit="batches")
    batches: Any = results.iter_batches(batch_size=None, batch_format="pyarrow")
    for table in batches:
        yield table
        progress.advance(1)
    progress.close()
