"""Kills a process of Ray Train during a run."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.watch import checkpoints_known, cluster_processes
from mmtpp.storage.paths import write_bytes


def pids_of(name: str) -> list[int]:
    """Processes of the tests' Ray cluster whose command line contains a name."""
    return [process.pid for process in cluster_processes(name)]


@contextmanager
def worker_killed_after_checkpoint(
    run_uri: str, name: str = "ray::RayTrainWorker"
) -> Iterator[None]:
    """Kill a worker, or the named process, with SIGKILL after the first checkpoint of the run."""
    killed: list[int] = []

    def kill_one() -> None:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and not killed:
            if checkpoints_known(run_uri):
                victims = pids_of(name)
                if victims:
                    os.kill(victims[-1], signal.SIGKILL)
                    killed.append(victims[-1])
            time.sleep(0.05)

    write_bytes(f"{run_uri}/.exists", b"")
    killer = threading.Thread(target=kill_one)
    killer.start()
    yield
    killer.join()
    assert killed
