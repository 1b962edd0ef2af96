"""Where the time of a step goes, and what that means in tokens a second."""

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Telemetry:
    """Accumulates between two logged steps; one per worker.

    Args:
        num_parameters: of the model, for the count of floating-point operations.
        num_trained: of those, the trained ones.
    """

    def __init__(self, num_parameters: int, num_trained: int) -> None:
        # forward 2 a parameter and token; backward 2 through all, 2 more for the trained
        self._flops_per_token = 4 * num_parameters + 2 * num_trained
        self._began = time.monotonic()
        self._waited_in_all = self._saved_in_all = 0.0
        self._reset()

    def _reset(self) -> None:
        self._started = time.monotonic()
        self._waited = 0.0
        self._steps = self._tokens = self._labels = 0

    @contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """Time spent here is waiting."""
        started = time.monotonic()
        yield
        waited = time.monotonic() - started
        self._waited += waited
        self._waited_in_all += waited

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Time spent here is saving a checkpoint, which training waits for."""
        started = time.monotonic()
        yield
        self._saved_in_all += time.monotonic() - started

    def add_step(self, tokens: int, labels: int) -> None:
        """Count a finished step of the whole cluster."""
        self._steps += 1
        self._tokens += tokens
        self._labels += labels

    def flush(self) -> dict[str, float]:
        """Metrics since the last call; units are in the names."""
        seconds = time.monotonic() - self._started
        metrics = {
            "time/step_s": seconds / max(1, self._steps),
            "time/data_wait_fraction": self._waited / seconds,
            "time/data_wait_fraction_so_far": self._waited_in_all
            / (time.monotonic() - self._began),
            "time/checkpoint_fraction_so_far": self._saved_in_all
            / (time.monotonic() - self._began),
            "speed/tokens_per_s": self._tokens / seconds,
            "speed/labels_per_s": self._labels / seconds,
            "speed/gflops_per_s": self._tokens * self._flops_per_token / seconds / 1e9,
            "memory/peak_gib": _peak_gib(),
        }
        self._reset()
        return metrics


def _peak_gib() -> float:
    """Peak memory of this worker: of its GPU when there is one, else of its process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
