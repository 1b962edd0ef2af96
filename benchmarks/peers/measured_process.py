"""A trial in a process of its own: its arguments, its result, its CPU time and its memory.

A trial module is called as ``python -m benchmarks.peers.MODULE ARGUMENTS`` with JSON arguments,
and prints its result as JSON on the last line. This module imports only what every environment has.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import psutil


def run_as_trial(run: Callable[..., dict[str, Any]]) -> None:
    """Call a trial with the arguments of the command line, and print its result."""
    result = run(**json.loads(sys.argv[1]))
    print(json.dumps(result), flush=True)


def peak_mib() -> float:
    """Largest resident memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def num_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU seconds of processes, of their descendants, and of descendants that have ended.

    Args:
        pids: Processes, of which none is a descendant of another.
    """
    total = 0.0
    for pid in pids:
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            try:
                spent = process.cpu_times()
            except psutil.NoSuchProcess:
                continue  # its parent counts it once it is reaped
            total += spent.user + spent.system + spent.children_user + spent.children_system
    return total


@dataclass(slots=True)
class Meter:
    """Wall and CPU seconds since the creation or since ``restart``.

    Attributes:
        pids: Processes besides this one whose CPU time counts, with their descendants.
    """

    pids: tuple[int, ...] = ()
    _wall: float = field(init=False)
    _cpu: float = field(init=False)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Start at zero again."""
        self._wall, self._cpu = time.perf_counter(), self._all_cpu()

    @property
    def wall_s(self) -> float:
        """Wall seconds."""
        return time.perf_counter() - self._wall

    @property
    def cpu_s(self) -> float:
        """CPU seconds."""
        return self._all_cpu() - self._cpu

    def _all_cpu(self) -> float:
        return cpu_seconds((os.getpid(), *self.pids))
