"""A second machine for the tests' cluster: a Ray node that a test can remove."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import ray

RAY_POLL_S = 21.0  # Ray's autoscaling coordinator counts the machines every 20 s


class Machine:
    """A Ray node.

    Args:
        cpus: Number of logical CPUs.
        labels: Ray labels, such as ``role=data``.
    """

    def __init__(self, cpus: int, labels: str = "") -> None:
        known = {node["NodeID"] for node in ray.nodes()}
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "ray.scripts.scripts",
                "start",
                "--block",
                f"--address={os.environ['RAY_ADDRESS']}",
                "--node-ip-address=127.0.0.1",
                f"--num-cpus={cpus}",
                f"--object-store-memory={128 * 2**20}",
                "--disable-usage-stats",
                *([f"--labels={labels}"] if labels else []),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            # with another ninja on PATH, DeepSpeed would compile its collectives again
            env={
                **os.environ,
                "DS_BUILD_OPS": "0",
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            },
        )
        deadline = time.monotonic() + 60
        self.node_id = ""
        while not self.node_id:
            assert time.monotonic() < deadline, "the node did not join"
            assert self._process.poll() is None, "the node did not start"
            joined = {node["NodeID"] for node in ray.nodes() if node["Alive"]} - known
            self.node_id = next(iter(joined), "")
            time.sleep(0.1)
        time.sleep(RAY_POLL_S)  # otherwise an elastic group starts without this machine

    def workers(self) -> list[psutil.Process]:
        """The Ray Train workers on the machine."""
        return [
            process
            for process in psutil.Process(self._process.pid).children(recursive=True)
            if "ray::RayTrainWorker" in " ".join(process.cmdline())
        ]

    def notice(self, seconds: int) -> None:
        """Notify the cluster that the machine will be removed."""
        subprocess.run(
            [
                sys.executable,
                "-m",
                "ray.scripts.scripts",
                "drain-node",
                f"--address={os.environ['RAY_ADDRESS']}",
                f"--node-id={self.node_id}",
                "--reason=DRAIN_NODE_REASON_PREEMPTION",
                "--reason-message=spot",
                f"--deadline-remaining-seconds={seconds}",
            ],
            check=True,
            capture_output=True,
        )

    def lose(self) -> None:
        """Kill the machine with all its processes."""
        if self._process.poll() is None:
            children = psutil.Process(self._process.pid).children(recursive=True)
            for process in [*children, psutil.Process(self._process.pid)]:
                if process.is_running():
                    process.send_signal(signal.SIGKILL)
            self._process.wait()


@contextmanager
def machine(cpus: int, labels: str = "") -> Iterator[Machine]:
    """A machine that runs inside the ``with`` block."""
    added = Machine(cpus, labels)
    try:
        yield added
    finally:
        added.lose()
