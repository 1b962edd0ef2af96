"""Ray Data actors that hold a model and work through the samples of a plan."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from mmtpp.config.schema import RunConfig
from mmtpp.data.samples.plan import Plan
from mmtpp.data.samples.planned import samples_table
from mmtpp.runtime.hardware import choose_hardware, worker_demand
from mmtpp.runtime.machines import wait_for_machines
from mmtpp.runtime.progress import ProgressBar


def iter_samples(
    config: RunConfig, plan: Plan, actor: type, arguments: tuple[object, ...], *, title: str
) -> Iterator[pa.Table]:
    """Let actors on any number of machines work through a plan.

    Args:
        config: decides the number of actors and what each needs.
        plan: whose samples they get.
        actor: a class whose objects turn ``plan.samples_table`` into a table.
        arguments: of its constructor.
        title: of the progress.

    Yields:
        The actors' tables, in any order.
    """
    hardware = choose_hardware(config.training, config.model.precision)
    wait_for_machines(
        worker_demand(config.training, hardware, 1), patience_s=config.run.wait_for_machines_s
    )
    ids = np.arange(len(plan.samples))
    size = config.evaluation.batch_windows
    blocks = [samples_table(plan, ids[at : at + size]) for at in range(0, len(ids), size)]
    num_actors = max(1, min(len(blocks), config.training.num_workers))
    results = ray.data.from_blocks(blocks).map_batches(
        actor,
        fn_constructor_args=arguments,
        batch_size=size,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=num_actors),
        num_cpus=config.training.cpus_per_worker,
        num_gpus=1 if hardware.on_gpu else None,
        label_selector=config.training.machine_labels or None,
    )
    progress = ProgressBar(title, total=len(blocks), unit="batches")
    batches: Any = results.iter_batches(batch_size=None, batch_format="pyarrow")
    for table in batches:
        yield table
        progress.advance(1)
    progress.close()
