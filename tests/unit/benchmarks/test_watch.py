"""Benchmarks and tests kill processes of their own Ray cluster, not those of another one."""

import subprocess
import sys
import time

import psutil
import pytest

from benchmarks.watch import cluster_processes

# a node of Ray, and a worker of it, by their command lines
NODE = """
import subprocess, sys
worker = [sys.executable, "-c", "import sys; sys.stdin.read()", sys.argv[2]]
subprocess.run(worker, check=True)
"""
NAME = "ray::WorkerOfTheTestOfClusterProcesses"


@pytest.mark.parametrize(
    ("address", "expected"), [("127.0.0.1:4711", 1), ("127.0.0.1:471", 0), ("127.0.0.1:47112", 0)]
)
def test_only_processes_of_the_own_cluster_are_found(
    address: str, expected: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("RAY_ADDRESS", address)
    command = [sys.executable, "-c", NODE, "--gcs-address=192.0.2.2:4711", NAME]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as node:
        deadline = time.monotonic() + 30
        while not _workers_of(node.pid):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        found = [process.pid for process in cluster_processes(NAME)]
        workers = _workers_of(node.pid)
        node.communicate(b"")
    assert found == workers[:expected]


def _workers_of(pid: int) -> list[int]:
    children = psutil.Process(pid).children()
    return [child.pid for child in children if NAME in " ".join(child.cmdline())]
