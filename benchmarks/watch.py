"""Watches training workers from outside: measures their memory and kills one of them.

Other Ray clusters may run on the same machine: only processes of ``RAY_ADDRESS`` are watched.
"""

import json
import os
import signal
import threading
import time
from contextlib import suppress

import psutil

from mmtpp.storage.paths import join, list_files, read_bytes


class WorkerWatch(threading.Thread):
    """Watches the Ray Train workers of a cluster and kills one after some checkpoints.

    Args:
        run_uri: Folder of the run.
        checkpoints: Number of complete checkpoints before the kill.

    Attributes:
        peak_gib: Peak private memory of each worker in GiB, by process id.
        available_gib: Minimum of the machine's available memory, in GiB.
        killed_at: Time of the kill in seconds since 1970; None before it.
    """

    def __init__(self, run_uri: str, *, checkpoints: int = 1) -> None:
        super().__init__(daemon=True)
        self._run_uri, self._checkpoints = run_uri, checkpoints
        self._ended = threading.Event()
        self.peak_gib: dict[int, float] = {}
        self.available_gib = float("inf")
        self.killed_at: float | None = None

    def run(self) -> None:
        """Watch until ``end``."""
        while not self._ended.wait(0.5):
            available = psutil.virtual_memory().available / 2**30
            self.available_gib = min(self.available_gib, available)
            workers = cluster_processes("ray::RayTrainWorker")
            for worker in workers:
                with suppress(psutil.NoSuchProcess):
                    held = worker.memory_info()
                    gib = (held.rss - held.shared) / 2**30
                    self.peak_gib[worker.pid] = max(gib, self.peak_gib.get(worker.pid, 0.0))
            if self.killed_at is None and workers and self._is_due():
                os.kill(workers[-1].pid, signal.SIGKILL)
                self.killed_at = time.time()

    def _is_due(self) -> bool:
        return checkpoints_known(self._run_uri) >= self._checkpoints

    def end(self) -> None:
        """Stop watching."""
        self._ended.set()
        self.join()


def cluster_processes(name: str) -> list[psutil.Process]:
    """Processes on this machine of the Ray cluster ``RAY_ADDRESS``, in order of their ids.

    Args:
        name: Text in the command line of the processes.
    """
    named = [
        process
        for process in psutil.process_iter(["cmdline"])
        if name in " ".join(process.info["cmdline"] or [])
    ]
    port = "".join(os.environ["RAY_ADDRESS"].rpartition(":")[1:])  # its host may have two names
    return [process for process in named if _belongs(process, port)]


def _belongs(process: psutil.Process, port: str) -> bool:
    """Whether a parent of a process, Ray's node, names the port of the cluster."""
    with suppress(psutil.Error):
        return any(f"{port} " in f"{' '.join(parent.cmdline())} " for parent in process.parents())
    return False


def checkpoints_known(run_uri: str) -> int:
    """Number of checkpoints that Ray would resume from, without incomplete uploads."""
    name = "checkpoint_manager_snapshot.json"
    if not list_files(run_uri, name):
        return 0
    return len(json.loads(read_bytes(join(run_uri, name)))["checkpoint_results"])
