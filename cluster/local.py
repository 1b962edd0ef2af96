"""The local stack: a Ray head, an S3 server and an MLflow server on one machine.

    python -m cluster.local up | down | env | status

The services listen on loopback, except Ray's GCS and raylet: they listen on all interfaces, which
cannot be configured, so token authentication is always on. The state (tokens, keys, pid files,
logs, data) is stored in ``$MMTPP_HOME``, by default ``.mmtpp/`` in the working directory.
"""

import json
import os
import secrets
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from cluster.ports import free_ports
from cluster.processes import is_running, stop
from cluster.services import (
    BUCKET,
    Head,
    Stack,
    create_bucket,
    ray_temp_folder,
    start_mlflow,
    start_ray,
    start_s3,
    write_private,
)
from mmtpp.core.errors import ClusterError

START_TIMEOUT_S = 120.0
LISTENERS = (
    "s3",
    "s3_grpc",
    "weed_master",
    "weed_master_grpc",
    "weed_volume",
    "weed_volume_grpc",
    "weed_filer",
    "weed_filer_grpc",
    "mlflow",
    "gcs",
    "dashboard",
    "agent",
    "client",
    "autoscaler_metrics",
    "dashboard_metrics",
)


def default_home() -> Path:
    """``$MMTPP_HOME``, by default ``.mmtpp`` in the working directory."""
    return Path(os.environ.get("MMTPP_HOME", ".mmtpp")).absolute()


def up(home: Path, head: Head | None = None) -> Stack:
    """Start the stack and wait until every service answers.

    A healthy stack is returned unchanged. A stack with a failed service is restarted.

    Args:
        home: Folder with the state of the stack.
        head: Options of Ray's head; None for the defaults.

    Raises:
        ClusterError: A service did not start; the message ends with the end of its log.
    """
    stack = load(home)
    if stack and _is_healthy(stack):
        return stack
    down(home)
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    (home / "logs").mkdir(exist_ok=True)
    stack = Stack(
        home, free_ports(LISTENERS), "mmtpp-" + secrets.token_hex(4), secrets.token_hex(24)
    )
    write_private(home / "ray_token", secrets.token_hex(32))
    write_private(
        home / "stack.json",
        json.dumps(
            {"ports": stack.ports, "access_key": stack.access_key, "secret_key": stack.secret_key}
        ),
    )
    exports = "".join(f"export {key}={value}\n" for key, value in stack.environment().items())
    exports += f'export PATH={Path(sys.executable).parent}:"$PATH"\n'
    write_private(home / "env.sh", exports)
    try:
        # all services start in parallel: most of the time is spent on imports
        start_s3(stack)
        start_mlflow(stack)
        start_ray(stack, head or Head())
        for name, probe in _probes(stack).items():
            _wait(stack, name, probe)
    except BaseException:
        down(home)
        raise
    return stack


def down(home: Path) -> list[str]:
    """Stop the processes of the stack, and return the names of the services that were running.

    The data (object store, MLflow database) stays; ``make clean`` removes it.
    """
    stopped = stop(home, list(reversed(_SERVICES)))
    # Ray's head leaves a file with its address, which a later head on this machine would read.
    shutil.rmtree(ray_temp_folder(home), ignore_errors=True)
    for name in ("stack.json", "env.sh", "ray_token"):
        (home / name).unlink(missing_ok=True)
    return stopped


def load(home: Path) -> Stack | None:
    """The stack that was started from ``home``; None if there is none."""
    path = home / "stack.json"
    if not path.exists():
        return None
    return Stack(home, **json.loads(path.read_text()))


_SERVICES = ("s3", "mlflow", "ray")


def _probes(stack: Stack) -> dict[str, Callable[[], object]]:
    """A health check of each service; it raises OSError for an unhealthy service."""
    token = (stack.home / "ray_token").read_text()
    headers = {"Authorization": f"Bearer {token}"}
    return {
        "s3": lambda: create_bucket(stack),
        "mlflow": lambda: _get(f"{stack.mlflow_uri}/health"),
        "ray": lambda: _get(f"{stack.dashboard_uri}/api/jobs/", headers),
    }


def _is_healthy(stack: Stack) -> bool:
    try:
        for name, probe in _probes(stack).items():
            if not is_running(stack.home, name):
                return False
            probe()
    except OSError:
        return False
    return True


def _wait(stack: Stack, name: str, healthy: Callable[[], object]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    problem = "no answer"
    while time.monotonic() < deadline:
        if not is_running(stack.home, name):
            problem = "the process ended"
            break
        try:
            healthy()
        except (OSError, urllib.error.URLError) as error:
            problem = str(error)
            time.sleep(0.3)
        else:
            return
    log = stack.home / "logs" / f"{name}.log"
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    raise ClusterError(f"{name} did not start: {problem}\n{tail}", where=str(log))


def _get(url: str, headers: dict[str, str] | None = None) -> bytes:
    request = urllib.request.Request(url, headers=headers or {})
    with urllib.request.urlopen(request, timeout=5) as answer:
        return answer.read()


def main(argv: list[str]) -> int:
    """Run a command: up, down, env or status."""
    home = default_home()
    command = argv[0] if len(argv) == 1 else ""
    if command == "up":
        started = time.monotonic()
        stack = up(home)
        print(f"the local stack is up ({time.monotonic() - started:.0f} s)")
        print(f"  MLflow         {stack.mlflow_uri}")
        print(f"  Ray dashboard  {stack.dashboard_uri}  (token in {home / 'ray_token'})")
        print(f"  S3             {stack.s3_uri}  bucket {BUCKET}")
        print(f"  environment    source {home / 'env.sh'}")
    elif command == "down":
        stopped = down(home)
        print(f"stopped: {', '.join(stopped) or 'nothing was running'}")
    elif command == "status":
        for name in _SERVICES:
            print(f"{name:8} {'running' if is_running(home, name) else 'stopped'}")
    elif command == "env":
        stack = load(home)
        if stack is None:
            raise ClusterError("the local stack is not up", cause="run: make up")
        print((home / "env.sh").read_text(), end="")
    else:
        print(__doc__)
        return 2
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except ClusterError as error:
        sys.exit(f"error: {error}")
