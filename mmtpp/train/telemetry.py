"""Where the time of a step goes, and the resulting tokens per second."""

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch

from mmtpp.runtime.start_up import StartUp


class Telemetry:
    """Accumulates measurements between two logged steps; one per worker.

    Args:
        peak_flops: Peak operations per second of this worker's device.
        start_up: The start-up so far.

    Attributes:
        start_up: The start-up, which ends with the first step.
    """

    def __init__(self, peak_flops: float, start_up: StartUp) -> None:
        self._peak_flops = peak_flops
        self.start_up = start_up.with_part("build_worker")
        self._has_step = False
        psutil.cpu_percent()  # every reading covers the time since the reading before
        self._created_at = time.monotonic()
        self._total_wait_s = self._total_saving_s = 0.0
        self._reset()

    def _reset(self) -> None:
        self._interval_started_at = time.monotonic()
        self._waited_s = 0.0
        self._steps = self._tokens = self._labels = 0
        self._flops = self._not_training_s = 0.0

    @contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """Count the time within as waiting for data."""
        started = time.monotonic()
        yield
        waited = time.monotonic() - started
        self._waited_s += waited
        self._total_wait_s += waited
        if not self._has_step:
            self.start_up = self.start_up.with_part("rows")

    @contextmanager
    def validating(self) -> Iterator[None]:
        """Do not count the time within as training."""
        started = time.monotonic()
        yield
        self._not_training_s += time.monotonic() - started

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Count the time within as saving a checkpoint or the best model, while training waits."""
        started = time.monotonic()
        yield
        saved = time.monotonic() - started
        self._total_saving_s += saved
        self._not_training_s += saved

    def add_step(self, tokens: int, labels: int, flops: float) -> None:
        """Count a finished step.

        Args:
            tokens: Number of tokens on all ranks.
            labels: Number of labels on all ranks.
            flops: Operations of this worker's rows.
        """
        if not self._has_step:
            self.start_up = self.start_up.with_part("first_update")
            self._has_step = True
        self._steps += 1
        self._tokens += tokens
        self._labels += labels
        self._flops += flops

    def flush(self) -> dict[str, float]:
        """Metrics since the last call, with units in their names; operations are this worker's."""
        seconds = time.monotonic() - self._interval_started_at
        training_s = seconds - self._not_training_s
        metrics = {
            "time/step_s": seconds / max(1, self._steps),
            "time/data_wait_fraction": self._waited_s / seconds,
            "time/data_wait_fraction_so_far": self._total_wait_s
            / (time.monotonic() - self._created_at),
            "time/checkpoint_fraction_so_far": self._total_saving_s
            / (time.monotonic() - self._created_at),
            "speed/tokens_per_s": self._tokens / seconds,
            "speed/labels_per_s": self._labels / seconds,
            "speed/tflops_per_worker": self._flops / training_s / 1e12,
            "speed/mfu": self._flops / training_s / self._peak_flops,
            "memory/peak_gib": _peak_gib(),
            **_system_metrics(),
        }
        self._reset()
        return metrics


def _system_metrics() -> dict[str, float]:
    """Metrics of this machine, under the names that MLflow's page of system metrics knows."""
    memory = psutil.virtual_memory()
    metrics = {
        "system/cpu_utilization_percentage": psutil.cpu_percent(),
        "system/system_memory_usage_megabytes": (memory.total - memory.available) / 1e6,
        "system/system_memory_usage_percentage": memory.percent,
    }
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        metrics["system/gpu_0_memory_usage_megabytes"] = (total - free) / 1e6
        metrics["system/gpu_0_memory_usage_percentage"] = 100 * (total - free) / total
    return metrics


def _peak_gib() -> float:
    """Peak memory of this worker: of its GPU if it has one, else of its process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
