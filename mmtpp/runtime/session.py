"""Connecting a driver to Ray."""

import logging
import os

import ray
import ray.data


def start_ray() -> None:
    """Join the cluster of ``RAY_ADDRESS`` or of this job, or start one on this machine."""
    if not ray.is_initialized():
        # A Ray started here sends no usage statistics unless the user turned them on.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(logging_level=logging.WARNING, log_to_driver=True)
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
