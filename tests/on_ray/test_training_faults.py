"""Failures of storage and driver: the losses equal those of an uninterrupted run."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from mlflow.tracking import MlflowClient

from benchmarks.watch import checkpoints_known
from mmtpp.config.flat_settings import flat_settings
from mmtpp.core.errors import StorageError
from mmtpp.storage.paths import write_bytes
from mmtpp.train.launch import pretrain
from tests.helpers.curves import curve, times_of_steps
from tests.helpers.job_settings import RUNS, make_config
from tests.helpers.killing import worker_killed_after_checkpoint
from tests.helpers.paths import ROOT
from tests.on_ray.fault_proxy import fault_proxy

OUTAGE_S = 20.0


def _outage(run: str, seconds: float, started: list[float]) -> Callable[[int, str], str]:
    """Faults of all requests for some seconds, from the first upload of a checkpoint."""

    def choose(_number: int, line: str) -> str:
        # a file of a checkpoint, not Ray's own list of them
        if re.match(rf"(PUT|POST) /\S*/{run}/checkpoint_\d", line):
            started[:] = started or [time.time()]
        return "unavailable" if started and time.time() - started[0] < seconds else ""

    return choose


@pytest.mark.slow
def test_training_continues_during_an_outage_of_the_storage(base, stack, monkeypatch):
    """Checkpoints go through the proxy; data is read without it."""
    started: list[float] = []
    outage = _outage("outage", OUTAGE_S, started)
    with fault_proxy(stack.ports["s3"], outage) as (address, requests):
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        result = pretrain(make_config(**{"run.name": "outage"}))
        monkeypatch.undo()
    assert requests["unavailable"] > 3
    client = MlflowClient(stack.mlflow_uri)
    assert curve(client, result["run_id"]) == curve(client, base["run_id"])
    # training did not wait for the end of the outage
    assert times_of_steps(client, result["run_id"])[12] < started[0] + OUTAGE_S
    assert checkpoints_known(f"{RUNS}/outage") >= 2


@pytest.mark.slow
def test_a_permanent_outage_ends_the_run_and_names_the_setting(base, stack, monkeypatch):
    settings = {"run.name": "away", "training.upload_timeout_s": 5.0, "training.max_failures": 0}
    with fault_proxy(stack.ports["s3"], _outage("away", 10**6, [])) as (address, _):
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        with pytest.raises(StorageError, match=r"training\.upload_timeout_s = 5"):
            pretrain(make_config(**settings))
        monkeypatch.undo()


@pytest.mark.slow
def test_the_command_of_a_killed_driver_resumes_the_run(base, stack):
    """The same command is submitted twice."""
    name = "driver"
    defaults = flat_settings(type(make_config())())
    settings = flat_settings(
        make_config(**{"run.name": name, "training.num_steps": 60, "training.checkpoint_every": 4})
    )
    assignments = [
        argument
        for key, value in settings.items()
        if value != defaults[key]
        for argument in ("--set", f"{key}={json.dumps(value)}")
    ]
    command = [sys.executable, "jobs/pretrain.py", *assignments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    write_bytes(f"{RUNS}/{name}/.exists", b"")
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as driver:
        deadline = time.monotonic() + 180
        while checkpoints_known(f"{RUNS}/{name}") < 1:
            assert driver.poll() is None, "the job ended too early"
            assert time.monotonic() < deadline
            time.sleep(0.05)
        driver.send_signal(signal.SIGKILL)
    process = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert process.returncode == 0, process.stderr[-3000:]
    # without `ray job submit` Ray may print a worker's line after the job's last one
    result = json.loads([line for line in process.stdout.splitlines() if line.startswith("{")][-1])
    assert result["steps"] == 60
    client = MlflowClient(stack.mlflow_uri)
    whole = pretrain(make_config(**{"run.name": "undisturbed", "training.num_steps": 60}))
    assert curve(client, result["run_id"]) == curve(client, whole["run_id"])  # bit for bit
    (experiment,) = client.search_experiments(filter_string="name = 'mmtpp'")
    runs = client.search_runs([experiment.experiment_id], f"attributes.run_name = '{name}'")
    assert [(run.info.run_id, run.info.status) for run in runs] == [(result["run_id"], "FINISHED")]


def test_a_run_whose_controller_is_killed_resumes(base, stack):
    """The process of Ray Train's controller gets SIGKILL after the first checkpoint."""
    with worker_killed_after_checkpoint(f"{RUNS}/controller", "ray::TrainController"):
        result = pretrain(make_config(**{"run.name": "controller"}))
    client = MlflowClient(stack.mlflow_uri)
    assert curve(client, result["run_id"]) == curve(client, base["run_id"])
