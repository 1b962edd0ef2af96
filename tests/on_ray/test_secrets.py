"""Keys and tokens stay in the environment: no output of a job contains them."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from ray.job_submission import JobSubmissionClient

from cluster.services import ray_temp_folder
from mmtpp.storage.paths import list_files, read_bytes
from tests.helpers.job_settings import RUNS, SOURCE, STORE

ROOT = Path(__file__).parents[2]
MAX_BYTES = 64 * 2**20


def _submit(*settings: str) -> subprocess.CompletedProcess:
    assignments = [word for setting in settings for word in ("--set", setting)]
    command = [
        sys.executable,
        "-m",
        "ray.scripts.scripts",
        "job",
        "submit",
        "--working-dir",
        ".",
        "--",
        "python",
        "jobs/prepare.py",
        *assignments,
    ]
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=False)


def _outputs(stack) -> Iterator[tuple[str, bytes]]:
    """Name and content of all files, logs and metadata that jobs wrote."""
    for uri in (STORE, RUNS):
        bucket = uri.rpartition("/")[0]
        for info in list_files(uri, ""):
            if info.size < MAX_BYTES:
                yield info.path, read_bytes(f"{bucket}/{info.path.split('/', 2)[2]}")
    for folder in (ray_temp_folder(stack.home), stack.home / "logs"):
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink() and path.stat().st_size < MAX_BYTES:
                yield str(path), path.read_bytes()
    client = JobSubmissionClient(stack.dashboard_uri)
    for job in client.list_jobs():
        yield f"metadata of job {job.submission_id}", repr(job).encode()
        if job.submission_id:
            yield f"log of job {job.submission_id}", client.get_job_logs(job.submission_id).encode()
    tracking = MlflowClient(stack.mlflow_uri)
    for experiment in tracking.search_experiments():
        for run in tracking.search_runs([experiment.experiment_id]):
            name = f"MLflow run {run.info.run_name}"
            yield name, json.dumps([run.data.params, run.data.tags]).encode()
            for artifact in tracking.list_artifacts(run.info.run_id):
                if not artifact.is_dir and artifact.path.endswith(
                    (".json", ".txt", ".md", ".toml")
                ):
                    path = tracking.download_artifacts(run.info.run_id, artifact.path)
                    yield f"{name}: {artifact.path}", Path(path).read_bytes()


@pytest.mark.slow
def test_no_output_of_a_job_contains_a_secret(base, stack):
    succeeded = _submit(
        f"source.uri={SOURCE}", "store.uri=s3://mmtpp/t/again", "model.tokenizer_size=512"
    )
    assert succeeded.returncode == 0, succeeded.stdout + succeeded.stderr
    failed = _submit(f"source.uri={SOURCE}", "store.uri=s3://no-such-bucket/x")
    assert failed.returncode
    password = "hunter2-hunter2"
    refused = _submit(f"source.uri=s3://someone:{password}@mmtpp/t/raw", "store.uri=s3://mmtpp/t/x")
    assert refused.returncode
    secrets = {
        "the S3 server's key": stack.secret_key.encode(),
        "Ray's token": (stack.home / "ray_token").read_text().strip().encode(),
    }
    printed = [("output", process.stdout + process.stderr) for process in (succeeded, failed)]
    num_outputs = 0
    for name, content in [*printed, *_outputs(stack)]:
        num_outputs += 1
        for description, secret in secrets.items():
            assert secret not in content, f"{description} is in {name}"
    assert num_outputs > 50
    # Ray shows the command line of the user, but the error must not repeat it
    error = [
        line
        for line in (refused.stdout + refused.stderr).decode().splitlines()
        if "error" in line and "jobs/prepare.py" not in line
    ]
    assert error
    assert not any(password in line for line in error)
