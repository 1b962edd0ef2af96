"""A cloud on this machine, whose machines are Ray nodes.

Ray's autoscaler (version 2) launches them through ``FakeCloud``, like it launches EC2 instances
through its AWS provider.
"""

import json
import os
import shlex
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import psutil
import ray
from ray._private import services
from ray._private.node import Node
from ray.autoscaler._private.fake_multi_node.node_provider import (
    FAKE_HEAD_NODE_ID,
    FAKE_HEAD_NODE_TYPE,
    FakeMultiNodeProvider,
)
from ray.autoscaler.node_launch_exception import NodeLaunchException

from cluster.local import down, up
from cluster.services import Head, Stack

ROOT = Path(__file__).parents[1]
FOLDER = "MMTPP_FAKE_CLOUD"  # variable: folder with the process ids of each machine
IDLE_MINUTES = 0.4
OBJECT_STORE_BYTES = 100 * 2**20
# replaces the dashboard agent: writes port files without a port, and ends with its raylet
NO_AGENT = """
for port in metrics_agent metrics_export dashboard_agent_listen; do
    file="$0/${port}_port_$RAY_NODE_ID"
    printf %s -1 > "$file.new" && mv "$file.new" "$file"
done
while kill -0 $PPID 2> /dev/null; do sleep 5; done
"""


class FakeCloud(FakeMultiNodeProvider):
    """Starts Ray nodes here and records their processes; some types have no capacity."""

    def __init__(self, provider_config: dict[str, Any], cluster_name: str) -> None:
        here = {"gcs_address": os.environ["RAY_ADDRESS"], "head_node_id": FAKE_HEAD_NODE_ID}
        super().__init__({**provider_config, **here, "launch_multiple": True}, cluster_name)

    def _create_node_with_resources_and_labels(
        self, node_config: dict, tags: dict, count: int, resources: dict, labels: dict
    ) -> None:
        if "no_capacity" in node_config:
            raise NodeLaunchException("capacity", node_config["no_capacity"], None)
        with self.lock, ExitStack() as patches:  # the autoscaler launches from several threads
            # all machines share one log folder, and each monitor would read all logs
            patches.enter_context(patch.object(Node, "start_log_monitor"))
            if "bare" in node_config:
                patches.enter_context(patch.object(services, "start_ray_process", _start_bare))
            known = set(self._nodes)
            super()._create_node_with_resources_and_labels(
                node_config, tags, count, resources, labels
            )
            (name,) = set(self._nodes) - known
        node = cast("Node", self._nodes[name]["node"])
        processes = [process.pid for _, process in node.live_processes()]
        (Path(os.environ[FOLDER]) / f"{name}.json").write_text(json.dumps(processes))


_start_ray_process = services.start_ray_process


def _start_bare(command: list[str], *arguments: Any, **named: Any) -> Any:
    """Start a raylet without a dashboard agent and without idle workers."""
    options = dict(argument.split("=", 1) for argument in command if "=" in argument)
    agent = shlex.join(["/bin/sh", "-c", NO_AGENT, options["--session_dir"]])
    changes = {"--dashboard_agent_command": agent, "--num_prestart_python_workers": "0"}
    assert changes.keys() <= options.keys(), command
    names = [argument.split("=", 1)[0] for argument in command]
    bare = [
        f"{name}={changes[name]}" if name in changes else argument
        for name, argument in zip(names, command, strict=True)
    ]
    return _start_ray_process(bare, *arguments, **named)


def node_type(
    cpus: int,
    labels: Mapping[str, str],
    max_machines: int,
    *,
    no_capacity: str = "",
    is_bare: bool = False,
) -> dict:
    """A group of machines in the autoscaler's configuration, at first without machines.

    Args:
        cpus: Number of CPUs of a machine.
        labels: Ray labels of a machine.
        max_machines: Maximum number of machines.
        no_capacity: Error of the cloud if it has no such machines; empty if it has.
        is_bare: Nodes run no dashboard agent and no idle workers, so that many fit on this machine.
    """
    return {
        "resources": {"CPU": cpus, "object_store_memory": OBJECT_STORE_BYTES},
        "labels": dict(labels),
        "node_config": {
            **({"no_capacity": no_capacity} if no_capacity else {}),
            **({"bare": True} if is_bare else {}),
        },
        "min_workers": 0,
        "max_workers": max_machines,
    }


@contextmanager
def autoscaled(
    home: Path, types: Mapping[str, dict], max_machines: int, idle_minutes: float = IDLE_MINUTES
) -> Iterator[Stack]:
    """A stack whose head runs no work and whose machines are launched and removed on demand."""
    config = {
        "cluster_name": "fake",
        "max_workers": max_machines,
        "provider": {
            "type": "external",
            "module": f"{__name__}.FakeCloud",
            "disable_node_updaters": True,  # nothing is installed over SSH
            "disable_launch_config_check": True,
        },
        "available_node_types": {
            FAKE_HEAD_NODE_TYPE: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            **types,
        },
        "head_node_type": FAKE_HEAD_NODE_TYPE,
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": idle_minutes,
        **{key: {} for key in ("auth", "docker", "file_mounts")},
        **{
            key: []
            for key in (
                "initialization_commands",
                "setup_commands",
                "head_setup_commands",
                "worker_setup_commands",
                "head_start_ray_commands",
                "worker_start_ray_commands",
                "cluster_synced_files",
                "rsync_exclude",
                "rsync_filter",
            )
        },
        "file_mounts_sync_continuously": False,
    }
    machines = home / "machines"
    machines.mkdir(parents=True)
    (home / "autoscaling.json").write_text(json.dumps(config))
    environment = {
        "RAY_enable_autoscaler_v2": "1",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        # many processes start on few CPUs; Ray retries five times with a timeout of 60 s by default
        "RAY_worker_register_timeout_seconds": "900",
        "PYTHONPATH": str(ROOT),
        FOLDER: str(machines),
    }
    arguments = (f"--autoscaling-config={home / 'autoscaling.json'}",)
    stack = up(home, Head(0, arguments, environment))
    try:
        yield stack
    finally:
        down(home)


def machines_with(**labels: str) -> list[str]:
    """Ids of the running machines with these labels, without the head."""
    return [
        node["NodeID"]
        for node in ray.nodes()
        if node["Alive"]
        and labels.items() <= node["Labels"].items()
        and node["NodeID"] != FAKE_HEAD_NODE_ID
    ]


def lose(stack: Stack, machine: str) -> None:
    """Kill a machine with all its processes, without notice."""
    for pid in json.loads((stack.home / "machines" / f"{machine}.json").read_text()):
        if psutil.pid_exists(pid):
            process = psutil.Process(pid)
            for member in [*process.children(recursive=True), process]:
                if member.is_running():
                    member.send_signal(signal.SIGKILL)


def wait_until_gone(seconds: float, **labels: str) -> None:
    """Wait until the autoscaler has removed all machines with these labels."""
    deadline = time.monotonic() + seconds
    while machines_with(**labels):
        assert time.monotonic() < deadline, (
            f"machines that were not removed: {machines_with(**labels)}"
        )
        time.sleep(0.5)
