"""Checks of the services that jobs use: storage, MLflow and Ray."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from mmtpp.core.errors import MmtppError, without_addresses
from mmtpp.doctor.finding import Finding
from mmtpp.storage.paths import (
    check_bucket,
    exists,
    join,
    list_files,
    read_bytes,
    remove_folder,
    write_bytes,
)

RAY_TIMEOUT_S = 45
_SQLITE = "sqlite:///"
_RESOURCES = """
import json, logging, ray
ray.init(address={address!r}, logging_level=logging.ERROR, log_to_driver=False)
nodes = [node for node in ray.nodes() if node["Alive"]]
print(json.dumps([ray.__version__, len(nodes), ray.cluster_resources()]))
"""


def check_storage(*, source_uri: str, store_uri: str, runs_uri: str) -> Iterator[Finding]:
    """Check that the source can be read, and that stores and runs can be written.

    Args:
        source_uri: ``source.uri``; empty to check no source.
        store_uri: ``store.uri``; empty to check no store.
        runs_uri: ``run.storage_uri``; empty to check no folder of runs.
    """
    if source_uri:
        yield _read(source_uri)
    for name, uri in {"store.uri": store_uri, "run.storage_uri": runs_uri}.items():
        if uri:
            yield _write(name, uri)
    if not any((source_uri, store_uri, runs_uri)):
        fix = "name your storage: mmtpp doctor --set run.storage_uri=s3://bucket/runs"
        yield Finding("storage", "warning", "not checked: the settings name no storage", fix)


def _read(uri: str) -> Finding:
    try:
        if not exists(uri):
            return Finding("source.uri", "failure", f"{uri} does not exist", "correct the URI")
    except MmtppError as error:
        return _failure("source.uri", uri, error)
    return Finding("source.uri", "ok", uri)


def _write(name: str, uri: str) -> Finding:
    """Write, list, read and delete a file in a new folder; no folder stays."""
    folder, content = join(uri, f".doctor-{uuid4().hex}"), b"mmtpp"
    created = _missing_folders(uri)
    try:
        check_bucket(uri)  # some object stores create a missing bucket
        write_bytes(join(folder, "probe"), content)
        try:
            read_back = read_bytes(join(folder, "probe"))
            listed = list_files(folder, "probe")
        finally:
            remove_folder(folder)
    except MmtppError as error:
        return _failure(name, uri, error)
    finally:
        for path in created:
            with suppress(OSError):  # another process may use the folder by now
                path.rmdir()
    if read_back != content or len(listed) != 1:
        return Finding(
            name,
            "failure",
            f"{uri}: a file that was written could not be listed and read back unchanged",
            "use an object store with read-after-write consistency, like S3",
        )
    return Finding(name, "ok", f"{uri}: written, listed, read and deleted")


def _missing_folders(uri: str) -> list[Path]:
    """The local folders that the first file below a URI creates, the deepest first."""
    scheme, separator, path = uri.rpartition("://")
    if separator and scheme != "file":
        return []
    folder = Path(path).expanduser()
    return [path for path in (folder, *folder.parents) if not path.exists()]


def _failure(name: str, uri: str, error: MmtppError) -> Finding:
    fix = error.cause or (
        "check AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or the role of the "
        "machine, and the policy of the bucket"
    )
    state = error.problem if uri in error.problem else f"{uri}: {error.problem}"
    return Finding(name, "failure", state, fix)


def check_mlflow(uri: str) -> Finding:
    """Check that the tracking server at ``tracking.uri`` answers."""
    if uri.startswith(_SQLITE):
        folder = Path(uri.removeprefix(_SQLITE)).parent
        if not os.access(folder, os.W_OK):
            return Finding(
                "mlflow", "failure", f"{uri} cannot be written", "set tracking.uri to another file"
            )
        state = f"{uri} is a file that only this machine can reach"
        fix = (
            f"for one machine, nothing to do (mlflow ui --backend-store-uri {uri}); for a cluster, "
            "start an MLflow server and set MLFLOW_TRACKING_URI"
        )
        return Finding("mlflow", "warning", state, fix)
    try:
        # imported here: a plain installation has no MLflow
        from mmtpp.track.mlflow_tracker import ping

        ping(uri)
    except ModuleNotFoundError:
        return Finding("mlflow", "failure", "MLflow is not installed", "pip install 'mmtpp[track]'")
    except MmtppError as error:
        return Finding("mlflow", "failure", error.problem, error.cause)
    return Finding("mlflow", "ok", f"{uri} answers")


def check_ray() -> Iterator[Finding]:
    """Check the permissions of the token, and the cluster if ``RAY_ADDRESS`` is set."""
    token = os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token"
    path = Path(token).expanduser()
    if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077:
        yield Finding("ray token", "warning", f"other users may read {path}", f"chmod 600 {path}")
    address = os.environ.get("RAY_ADDRESS", "")
    if not address:
        yield Finding("ray", "ok", "RAY_ADDRESS is not set: jobs start Ray on this machine")
        return
    if address.startswith("http"):
        yield Finding(
            "ray",
            "failure",
            f"RAY_ADDRESS = {address} is the address of the job server",
            "set RAY_API_SERVER_ADDRESS to this address, and RAY_ADDRESS to HOST:6379",
        )
        return
    command = [sys.executable, "-c", _RESOURCES.format(address=address)]
    fix = (
        "check the address and the token of the cluster: RAY_ADDRESS, RAY_AUTH_MODE=token, "
        "RAY_AUTH_TOKEN_PATH"
    )
    try:
        process = subprocess.run(
            command, capture_output=True, text=True, timeout=RAY_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        yield Finding("ray", "failure", f"{address} did not answer in {RAY_TIMEOUT_S} s", fix)
        return
    if process.returncode:
        lines = [line for line in process.stderr.splitlines() if line.strip()]
        answer = without_addresses(lines[-1]) if lines else "no answer"
        yield Finding("ray", "failure", f"{address}: {answer}", fix)
        return
    version, nodes, resources = json.loads(process.stdout.splitlines()[-1])
    cpus, gpus = (f"{resources.get(resource, 0):g} {resource}s" for resource in ("CPU", "GPU"))
    yield Finding("ray", "ok", f"{address}: {nodes} machines, {cpus}, {gpus}, Ray {version}")
