"""Where the time of a step goes, and what that means in tokens a second."""

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch


class Telemetry:
    """Accumulates between two logged steps; one per worker.

    Args:
        peak_flops: operations a second that the device of this worker can do.
    """

    def __init__(self, peak_flops: float) -> None:
        self._peak_flops = peak_flops
        psutil.cpu_percent()  # each reading is of the time since the one before
        self._began = time.monotonic()
        self._waited_in_all = self._saved_in_all = 0.0
        self._reset()

    def _reset(self) -> None:
        self._started = time.monotonic()
        self._waited = 0.0
        self._steps = self._tokens = self._labels = 0
        self._flops = self._aside = 0.0

    @contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """Time spent here is waiting."""
        started = time.monotonic()
        yield
        waited = time.monotonic() - started
        self._waited += waited
        self._waited_in_all += waited

    @contextmanager
    def validating(self) -> Iterator[None]:
        """Time spent here is no training."""
        started = time.monotonic()
        yield
        self._aside += time.monotonic() - started

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Time spent here is saving a checkpoint, which training waits for."""
        started = time.monotonic()
        yield
        saved = time.monotonic() - started
        self._saved_in_all += saved
        self._aside += saved

    def add_step(self, tokens: int, labels: int, flops: float) -> None:
        """Count a finished step.

        Args:
            tokens: of the whole cluster.
            labels: of the whole cluster.
            flops: operations of this worker's rows.
        """
        self._steps += 1
        self._tokens += tokens
        self._labels += labels
        self._flops += flops

    def flush(self) -> dict[str, float]:
        """Metrics since the last call; units are in the names. Operations are this worker's own."""
        seconds = time.monotonic() - self._started
        training = seconds - self._aside
        metrics = {
            "time/step_s": seconds / max(1, self._steps),
            "time/data_wait_fraction": self._waited / seconds,
            "time/data_wait_fraction_so_far": self._waited_in_all
            / (time.monotonic() - self._began),
            "time/checkpoint_fraction_so_far": self._saved_in_all
            / (time.monotonic() - self._began),
            "speed/tokens_per_s": self._tokens / seconds,
            "speed/labels_per_s": self._labels / seconds,
            "speed/tflops_per_worker": self._flops / training / 1e12,
            "speed/mfu": self._flops / training / self._peak_flops,
            "memory/peak_gib": _peak_gib(),
            **_system(),
        }
        self._reset()
        return metrics


def _system() -> dict[str, float]:
    """Of this machine, by the names that MLflow's page of system metrics knows."""
    memory = psutil.virtual_memory()
    found = {
        "system/cpu_utilization_percentage": psutil.cpu_percent(),
        "system/system_memory_usage_megabytes": (memory.total - memory.available) / 1e6,
        "system/system_memory_usage_percentage": memory.percent,
    }
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        found["system/gpu_0_memory_usage_megabytes"] = (total - free) / 1e6
        found["system/gpu_0_memory_usage_percentage"] = 100 * (total - free) / total
    return found


def _peak_gib() -> float:
    """Peak memory of this worker: of its GPU when there is one, else of its process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
