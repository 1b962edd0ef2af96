"""Connecting a driver to Ray."""

import logging
import os
from collections.abc import Mapping

import ray
import ray.data

from mmtpp.runtime.machines import data_task_demand, wait_for_machines


def start_ray() -> None:
    """Join the cluster of ``RAY_ADDRESS`` or of this job, or start one on this machine."""
    if not ray.is_initialized():
        # A Ray started here sends no usage statistics unless the user turned them on.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(logging_level=logging.WARNING, log_to_driver=True)
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)


def start_ray_for_data(machine_labels: Mapping[str, str], *, patience_s: float) -> None:
    """Start Ray, and wait until a machine can run the tasks of Ray Data.

    Args:
        machine_labels: Ray labels of the machines that read the store, ``store.machine_labels``.
        patience_s: Longest time to wait, in seconds.

    Raises:
        ClusterError: The machines did not join in time.
    """
    start_ray()
    wait_for_machines(data_task_demand(machine_labels), patience_s=patience_s)
