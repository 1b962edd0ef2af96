"""Training workers seen from outside: their memory, and a SIGKILL for one of them."""

import os
import signal
import threading
import time
from contextlib import suppress

import psutil

from mmtpp.storage.paths import list_files


class WorkerWatch(threading.Thread):
    """Watches the Ray Train workers of this machine, and kills one after the first checkpoint.

    Args:
        run_uri: the run's folder.

    Attributes:
        peak_gib: of memory that a worker shares with nobody, by process id.
        available_gib: least memory the machine had left.
        killed_at: seconds since 1970, or None before.
    """

    def __init__(self, run_uri: str) -> None:
        super().__init__(daemon=True)
        self._run_uri = run_uri
        self._ended = threading.Event()
        self.peak_gib: dict[int, float] = {}
        self.available_gib = float("inf")
        self.killed_at: float | None = None

    def run(self) -> None:
        """Until ``end``."""
        while not self._ended.wait(0.5):
            available = psutil.virtual_memory().available / 2**30
            self.available_gib = min(self.available_gib, available)
            workers = [
                each
                for each in psutil.process_iter(["cmdline"])
                if "ray::RayTrainWorker" in " ".join(each.info["cmdline"] or [])
            ]
            for worker in workers:
                with suppress(psutil.NoSuchProcess):
                    held = worker.memory_info()
                    gib = (held.rss - held.shared) / 2**30
                    self.peak_gib[worker.pid] = max(gib, self.peak_gib.get(worker.pid, 0.0))
            if self.killed_at is None and workers and self._has_checkpoint():
                os.kill(workers[-1].pid, signal.SIGKILL)
                self.killed_at = time.time()

    def _has_checkpoint(self) -> bool:
        return bool(list_files(self._run_uri, "progress.json"))

    def end(self) -> None:
        """Stop watching."""
        self._ended.set()
        self.join()
