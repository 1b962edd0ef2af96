"""``ray job stop``: training saves a checkpoint and ends; the same command resumes from it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray
from mlflow.tracking import MlflowClient

from mmtpp.config.flat_settings import flat_settings
from mmtpp.runtime.interruptions import stops_on_sigterm
from mmtpp.train.launch import pretrain
from mmtpp.train.ranks.interruption_poll import InterruptionPoll
from tests.helpers.curves import curve
from tests.helpers.job_settings import make_config
from tests.helpers.killing import pids_of

ROOT = Path(__file__).parents[2]
STEPS = 200


def _ray_job(*arguments: str) -> str:
    command = [sys.executable, "-m", "ray.scripts.scripts", "job", *arguments]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return process.stdout + process.stderr


def test_a_killed_stop_request_stops_nothing_and_still_reaches_the_workers(cluster):
    with stops_on_sigterm() as stop_request:
        waiting = stop_request.wait.remote()
        ray.get(stop_request.__ray_ready__.remote())
        (pid,) = pids_of("ray::_StopRequest")
        os.kill(pid, signal.SIGKILL)
        assert not ray.wait([waiting], timeout=3)[0]
        os.kill(os.getpid(), signal.SIGTERM)
        assert ray.get(waiting, timeout=60) is None


def test_a_lost_stop_request_stops_nothing(cluster, caplog):
    with stops_on_sigterm() as stop_request:
        poll = InterruptionPoll(stop_request)
        ray.get(stop_request.__ray_ready__.remote())
        ray.kill(stop_request)
        ray.wait([poll._stop], timeout=60)
        assert not poll._is_stopped()
        assert "no longer reaches this worker" in caplog.text
        assert not poll._is_stopped()


@pytest.mark.slow
def test_a_stopped_job_saves_a_checkpoint_and_resumes_from_it(base, stack):
    settings = {"training.num_steps": STEPS, "training.checkpoint_every": 10 * STEPS}
    config = make_config(**{"run.name": "stopped", **settings})
    defaults = flat_settings(type(config)())
    assignments = [
        word
        for key, value in flat_settings(config).items()
        if value != defaults[key]
        for word in ("--set", f"{key}={json.dumps(value)}")
    ]
    command = ["--working-dir", ".", "--", "python", "jobs/pretrain.py", *assignments]
    submission = "to-be-stopped"
    _ray_job("submit", "--no-wait", "--submission-id", submission, *command)
    client = MlflowClient(stack.mlflow_uri)
    deadline = time.monotonic() + 180
    while "step 20/" not in _ray_job("logs", submission):
        assert "RUNNING" in _ray_job("status", submission) or time.monotonic() < deadline - 170
        assert time.monotonic() < deadline, _ray_job("logs", submission)
        time.sleep(1)
    _ray_job("stop", submission)
    assert "was stopped" in _ray_job("status", submission)
    log = _ray_job("logs", submission)
    assert "SIGTERM received: saving a checkpoint" in log
    (error,) = [line for line in log.splitlines() if line.startswith("error: stopped after step")]
    stopped_at = int(error.split()[4])
    assert 20 <= stopped_at < STEPS
    (experiment,) = client.search_experiments(filter_string="name = 'mmtpp'")
    (run,) = client.search_runs([experiment.experiment_id], "attributes.run_name = 'stopped'")
    assert run.info.status == "KILLED"

    result = pretrain(config)
    assert result["steps"] == STEPS
    assert result["run_id"] == run.info.run_id
    whole = pretrain(make_config(**{"run.name": "not-stopped", **settings}))
    assert curve(client, result["run_id"]) == curve(client, whole["run_id"])  # bit for bit
    points = client.get_metric_history(str(result["run_id"]), "train/loss_per_token")
    assert len(points) == len({point.step for point in points})  # no step was repeated
