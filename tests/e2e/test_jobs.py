"""The local stack: jobs through ``ray job submit``, authentication, and a clean stop."""

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import grpc
import psutil
import pytest
from ray._private.runtime_env.packaging import create_package
from ray.core.generated import ray_client_pb2, ray_client_pb2_grpc

from cluster.local import down, up
from cluster.processes import members_of, start_time
from tests.helpers.published_events import NUM_EVENTS, NUM_SEQUENCES, publish_events

ROOT = Path(__file__).parents[2]
RAY = str(Path(sys.executable).with_name("ray"))


def _submit(*entrypoint: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [RAY, "job", "submit", "--working-dir", ".", "--", *entrypoint],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_job_prints_one_json_object_and_has_the_right_status(stack):
    publish_events("s3://mmtpp/e2e/raw")
    job = [
        "python",
        "jobs/prepare.py",
        "--set",
        "source.uri=s3://mmtpp/e2e/raw",
        "--set",
        "store.uri=s3://mmtpp/e2e/store",
        "--set",
        "model.tokenizer_size=512",
    ]
    done = _submit(*job)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    last = next(index for index, line in enumerate(lines) if line.startswith("{"))
    assert json.loads(lines[last])["events_kept"] == NUM_SEQUENCES * NUM_EVENTS
    # after the last line of the job come only lines of the client
    assert all(re.search(r"cli\.py|sdk\.py|Job '|----", line) for line in lines[last + 1 :])

    failed = _submit(*job, "--set", "source.uri=s3://mmtpp/e2e/none")
    assert failed.returncode != 0
    assert "error: there is no such file or folder" in failed.stdout + failed.stderr


def _bearer(token: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {token}")] if token else []


def _start_driver(mode: str) -> subprocess.Popen[str]:
    """A driver that tries to connect; it gives up after half a minute."""
    return subprocess.Popen(
        [sys.executable, "-c", "import ray; ray.init(); print('let in')"],
        env={**os.environ, "RAY_AUTH_MODE": mode},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_cluster_refuses_clients_without_the_token(stack, monkeypatch, tmp_path):
    # the job server, and the dashboard's pages of machines, tasks and logs
    for page in ("api/jobs/", "nodes?view=summary", "api/v0/tasks", "api/v0/logs/file"):
        request = urllib.request.Request(f"{stack.dashboard_uri}/{page}")
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=10)
        assert caught.value.code == 401, page
    wrong_token = tmp_path / "token"
    wrong_token.write_text("0" * 64)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(wrong_token))
    # GCS, raylet and Ray's client server listen on all interfaces: they must require the token too
    drivers = {mode: _start_driver(mode) for mode in ("disabled", "token")}
    refused = _submit("python", "-c", "print('let in')")
    assert refused.returncode != 0
    assert "let in" not in refused.stdout
    for mode, driver in drivers.items():
        output, errors = driver.communicate(timeout=300)
        assert driver.returncode != 0, mode
        assert re.search("AuthenticationError|Unauthenticated|UNAUTHENTICATED", errors)
        assert "let in" not in output
    right_token = (stack.home / "ray_token").read_text().strip()
    with grpc.insecure_channel(f"127.0.0.1:{stack.ports['client']}") as channel:
        client = ray_client_pb2_grpc.RayletDriverStub(channel)
        ping = ray_client_pb2.ClusterInfoRequest(type=ray_client_pb2.ClusterInfoType.PING)  # pyright: ignore[reportAttributeAccessIssue]
        for token in ("", "0" * 64):
            with pytest.raises(grpc.RpcError) as caught:
                client.ClusterInfo(ping, metadata=_bearer(token), timeout=10)
            assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
        assert client.ClusterInfo(ping, metadata=_bearer(right_token), timeout=10).json == "{}"
    for name in ("ray_token", "stack.json", "env.sh", "s3.json"):
        assert (stack.home / name).stat().st_mode & 0o077 == 0


def test_down_leaves_no_process_and_no_listener(stack, tmp_path):
    """Starts a second stack: a second ``up`` returns the same one, and ``down`` stops only it."""
    home = tmp_path / "other"
    second = up(home)
    assert up(home) == second
    members = {
        pid: started
        for name in ("s3", "mlflow", "ray")
        for pid, started in members_of(home, name).items()
    }
    assert len(members) > 10  # includes Ray's daemons
    ports = {
        c.laddr.port  # pyright: ignore[reportAttributeAccessIssue]
        for c in psutil.net_connections("tcp")
        if c.status == "LISTEN" and c.pid in members
    }
    assert len(ports) > 15
    assert down(home) == ["ray", "mlflow", "s3"]
    assert down(home) == []
    assert not [pid for pid, started in members.items() if start_time(pid) == started]
    listening = {c.laddr.port for c in psutil.net_connections("tcp") if c.status == "LISTEN"}  # pyright: ignore[reportAttributeAccessIssue]
    assert not listening & (ports | set(second.ports.values()))
    with urllib.request.urlopen(f"{stack.mlflow_uri}/health", timeout=10) as answer:
        assert answer.status == 200
    assert stack.environment()["RAY_ADDRESS"] == os.environ["RAY_ADDRESS"]


def test_a_job_ships_only_the_files_of_the_project(tmp_path):
    """Packs a folder with an environment and a stack's data, like ``--working-dir .``."""
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    names = [name for name in done.stdout.splitlines() if (ROOT / name).is_file()]
    project, package = tmp_path / "project", tmp_path / "package.zip"
    for name in names:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, project / name)
    for unwanted in (
        ".venv/lib/torch.so",
        ".mmtpp/ray_token",
        "mlruns/x",
        "mmtpp/__pycache__/x.pyc",
    ):
        (project / unwanted).parent.mkdir(parents=True, exist_ok=True)
        (project / unwanted).write_bytes(b"x")
    create_package(str(project), package, include_gitignore=True)
    with zipfile.ZipFile(package) as shipped:
        sizes = {file.filename: file.file_size for file in shipped.infolist() if not file.is_dir()}
    not_shipped = {
        name
        for name in names
        if name.endswith((".md", ".png", ".jsonl"))
        or name.startswith((".ci/", ".github/", "benchmarks/", "docs/", "tests/"))
        or name in {".pre-commit-config.yaml", "mkdocs.yml", "tutorial.ipynb"}
    }
    assert "benchmarks/quality/results.jsonl" in not_shipped
    assert set(sizes) == set(names) - not_shipped
    # 2.4 MiB of code, stored as it is; a large file is data that slipped in
    assert max(sizes.values()) < 32 * 2**10
    assert package.stat().st_size < 4 * 2**20
