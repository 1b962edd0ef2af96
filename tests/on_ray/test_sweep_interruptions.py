"""Sweeps on a real cluster and MLflow server: budgets, killed drivers, lost machines."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
import ray

from benchmarks.watch import cluster_processes
from mmtpp.core.errors import ConfigError, StorageError
from mmtpp.runtime.machines import machines
from mmtpp.storage.paths import (
    exists,
    list_files,
    read_bytes,
)
from mmtpp.sweep.load_sweep import load_sweep
from mmtpp.sweep.run_sweep import run_sweep
from mmtpp.sweep.search import largest_trial, max_concurrent_trials
from mmtpp.train.worker_inputs import PROGRESS_FILE
from tests.helpers.job_settings import RUNS
from tests.helpers.paths import ROOT
from tests.on_ray.machines import machine
from tests.on_ray.sweep_runs import RATES, children_of, wait_until_free

pytestmark = pytest.mark.timeout(1800)


@pytest.mark.slow
def test_a_budget_ends_a_sweep_and_a_larger_one_resumes_it(store, mlflow_client, sweep_file):
    file = sweep_file(
        "budget",
        f"max_concurrent = 1\n{RATES}[0.01, 0.02]\n",
        **{
            "training.num_steps": 240,  # longer than it takes to stop a trial
            "training.checkpoint_every": 20,
        },  # no report before its end
    )
    result = run_sweep(
        load_sweep(file, ["sweep.max_gpu_hours=0.004"])
    )  # 14 s: enough to start a trial
    assert result["finished"] + result["failed"] == 0
    assert (result["cut_short"], result["not_started"]) == (1, 1)
    (row,) = result["trials"]
    assert row["training.learning_rate"] in (
        0.01,
        0.02,
    )  # known without a report
    assert result["budget_used_up"]
    assert result["best"] == {}
    assert all(
        child.info.status == "KILLED" for child in children_of(mlflow_client, result["run_id"])
    )
    unchanged = run_sweep(load_sweep(file, ["sweep.max_gpu_hours=0.004"]))
    assert result["trials"] == unchanged["trials"]

    more = run_sweep(load_sweep(file, ["sweep.max_gpu_hours=9.0"]))
    assert (more["finished"], more["cut_short"], more["not_started"]) == (2, 0, 0)
    assert result["run_id"] == more["run_id"]
    assert len(children_of(mlflow_client, more["run_id"])) == 2
    used = sum(more["budget"]["seconds"].values())
    assert used > sum(result["budget"]["seconds"].values()) >= 0.004 * 3600


def _start(file: Path, *options: str) -> subprocess.Popen:
    command = [sys.executable, "tune/sweep.py", "--config", str(file), *options]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def _steps_saved(sweep_name: str) -> dict[str, int]:
    """Step of the newest checkpoint of every trial that has one."""
    steps: dict[str, int] = {}
    for info in list_files(RUNS, PROGRESS_FILE):
        name = re.search(rf"/({re.escape(sweep_name)}-[0-9a-f]{{8}})/", info.path)
        if name:
            with suppress(StorageError):  # replaced by a newer one meanwhile
                step = json.loads(read_bytes(f"s3://{info.path}"))["step"]
                steps[name[1]] = max(step, steps.get(name[1], 0))
    return steps


@pytest.mark.slow
@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_sweep_resumes_without_repeating_work(store, mlflow_client, sweep_file, kill):
    cpus = ray.cluster_resources()["CPU"]
    file = sweep_file(
        f"killed-{kill.name}",
        f"max_concurrent = 1\n{RATES}[0.01, 0.02]\n",
        **{"training.num_steps": 60, "training.checkpoint_every": 2},
    )
    sweep = load_sweep(file, [])
    with pytest.raises(ConfigError, match="no such sweep to resume"):
        run_sweep(sweep, resume=True)
    driver = _start(file)
    done: list[str] = []
    deadline = time.monotonic() + 400
    while len(done) < 1:
        assert time.monotonic() < deadline
        assert driver.poll() is None
        files = list_files(RUNS, "result.json")
        done = [info.path for info in files if f"/{sweep.name}-" in info.path]
        time.sleep(0.2)
    while len(steps := _steps_saved(sweep.name)) < 2 or min(steps.values()) < 20:
        assert time.monotonic() < deadline
        assert driver.poll() is None
        time.sleep(0.1)
    killed_ms = time.time() * 1000
    driver.send_signal(kill)
    driver.wait()
    wait_until_free(cpus)
    assert not exists(f"{RUNS}/{sweep.name}/result.json")
    before = json.loads(read_bytes(f"s3://{done[0]}"))["run_id"]
    parent = mlflow_client.get_run(before).data.tags["mlflow.parentRunId"]
    if kill == signal.SIGINT:
        assert mlflow_client.get_run(parent).info.status == "KILLED"
    ended = mlflow_client.get_run(before).info.end_time
    points = len(mlflow_client.get_metric_history(before, "train/loss_per_token"))
    result = json.loads(_start(file, "--resume").communicate()[0].splitlines()[-1])
    assert (result["finished"], result["failed"], result["run_id"]) == (2, 0, parent)
    assert mlflow_client.get_run(parent).info.status == "FINISHED"
    assert len(children_of(mlflow_client, result["run_id"])) == 2
    assert mlflow_client.get_run(before).info.end_time == ended
    assert len(mlflow_client.get_metric_history(before, "train/loss_per_token")) == points
    children = children_of(mlflow_client, result["run_id"])
    (second_run,) = [child.info.run_id for child in children if child.info.run_id != before]
    history = mlflow_client.get_metric_history(second_run, "train/loss_per_token")
    assert min(point.step for point in history if point.timestamp > killed_ms + 5000) > 10
    assert max(point.step for point in history) == 60


@pytest.mark.slow
def test_a_sweep_survives_a_killed_worker_and_a_lost_machine(store, mlflow_client, sweep_file):
    """Workers need more CPUs than the head has free, so one trial runs on the second machine."""
    file = sweep_file(
        "lost",
        f"{RATES}[0.01, 0.02]\n",
        **{
            "training.num_steps": 8,
            "training.checkpoint_every": 2,
            "training.max_failures": 3,
            "training.cpus_per_worker": 3.0,
        },
    )
    sweep = load_sweep(file, [])

    def disturb() -> None:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            names = [info.path for info in list_files(RUNS, "progress.json")]
            if any(f"/{sweep.name}-" in path for path in names):
                break
            time.sleep(0.1)
        workers = cluster_processes("ray::RayTrainWorker")
        lost = {process.pid for process in second.workers()}
        for process in workers:
            if process.pid not in lost:
                process.send_signal(signal.SIGKILL)
                killed.append(process.pid)
                break
        second.lose()

    killed: list[int] = []
    with machine(3) as second:
        assert max_concurrent_trials(largest_trial(sweep), machines({}), at_most=0) == 2
        disturber = threading.Thread(target=disturb)
        disturber.start()
        result = run_sweep(sweep)
        disturber.join()
    assert killed
    assert (result["finished"], result["failed"]) == (2, 0)
    assert [row["step"] for row in result["trials"]] == [8, 8]
