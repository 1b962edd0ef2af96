"""The errors of workers as the driver raises them, and the environment of the workers."""

import os
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, RayTaskError
from ray.train import ControllerError, TrainingFailedError, WorkerGroupError
from ray.train.v2._internal.constants import ENV_VARS_TO_PROPAGATE

from mmtpp.config.schema import TrainingSection
from mmtpp.core.errors import ClusterError, DataError
from mmtpp.runtime.hardware import Hardware
from mmtpp.train.launch import ray_training
from mmtpp.train.launch.ray_training import (
    GROUP_START_TIMEOUT,
    HEALTH_CHECK_INTERVAL,
    HEALTH_CHECK_TIMEOUT,
    PREEMPTION_WATCHER,
)

TRAINING = TrainingSection(max_failures=2)


def _task_error(cause: Exception) -> RayTaskError:
    return RayTaskError("train", "traceback", cause)


def _cause(error: TrainingFailedError) -> Exception:
    return ray_training._cause(error, TRAINING, "/runs/r", patience_s=30.0)


def test_the_projects_own_error_of_the_lowest_rank_is_raised():
    first, second = DataError("no events"), DataError("other")
    error = WorkerGroupError("failed", {2: _task_error(second), 1: _task_error(first)})
    assert _cause(error) is first


def test_an_error_of_a_library_stays():
    error = WorkerGroupError("failed", {0: ValueError("unknown")})
    assert _cause(error) is error


def test_only_errors_of_libraries_are_logged(caplog: pytest.LogCaptureFixture):
    own = _task_error(DataError("no events"))
    failures = {0: own, 1: ValueError("unknown"), 2: _task_error(ValueError("in a task"))}
    ray_training._log_failures(WorkerGroupError("failed", failures))
    messages = [record.getMessage() for record in caplog.records]
    assert [message.partition(":")[0] for message in messages] == ["rank 1", "rank 2"]


def test_lost_machines_are_an_error_of_the_cluster():
    error = _cause(ControllerError(RuntimeError("lost")))
    assert isinstance(error, ClusterError)
    assert "run.wait_for_machines_s = 30, training.max_failures = 2" in str(error)


class _Trainer:
    """Ray Train's trainer whose controller dies a number of times."""

    def __init__(self, deaths: int) -> None:
        self.deaths = deaths

    def fit(self) -> SimpleNamespace:
        self.deaths -= 1
        if self.deaths >= 0:
            raise ActorDiedError
        return SimpleNamespace(metrics={"step": 7.0})


def test_a_controller_that_dies_is_started_again(caplog: pytest.LogCaptureFixture):
    trainer: Any = _Trainer(deaths=2)
    assert ray_training._fit(lambda: trainer, TRAINING, "/runs/r") == {"step": 7.0}
    assert "failure 2 of at most 2" in caplog.text


def test_a_controller_that_dies_too_often_ends_the_run():
    trainer: Any = _Trainer(deaths=3)
    with pytest.raises(ClusterError, match=r"died 3 times(.|\n)*training\.max_failures = 2"):
        ray_training._fit(lambda: trainer, TRAINING, "/runs/r")


@pytest.mark.parametrize(
    ("path", "on_gpu", "expected"),
    [
        ("", False, {"HF_HUB_OFFLINE": "1", "DS_ACCELERATOR": "cpu"}),
        ("hf://owner/name", True, {}),
    ],
)
def test_workers_ask_the_hub_only_for_a_model_of_the_hub(
    path: str, on_gpu: bool, expected: dict[str, str]
):
    hardware = Hardware(on_gpu=on_gpu, precision="float32")
    environment = ray_training._worker_environment(path, hardware)
    assert environment == {"TOKENIZERS_PARALLELISM": "false", **expected}


def test_variables_of_the_user_stay(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(HEALTH_CHECK_TIMEOUT, "5")
    monkeypatch.delenv(GROUP_START_TIMEOUT, raising=False)
    variables = ray_training._ray_train_variables(TrainingSection(), 90.0, watches_machines=True)
    with ray_training._added_to_environment(variables):
        assert os.environ[HEALTH_CHECK_TIMEOUT] == "5"
        assert os.environ[GROUP_START_TIMEOUT] == "90"
    assert GROUP_START_TIMEOUT not in os.environ
    assert os.environ[HEALTH_CHECK_TIMEOUT] == "5"


@pytest.mark.parametrize(
    ("num_workers", "poll_s"), [(1, "0.2"), (16, "0.2"), (64, "0.8"), (160, "2"), (1000, "2")]
)
def test_few_workers_are_polled_often(num_workers: int, poll_s: str):
    training = TrainingSection(num_workers=num_workers)
    variables = ray_training._ray_train_variables(training, 90.0, watches_machines=True)
    assert variables[HEALTH_CHECK_INTERVAL] == poll_s


@pytest.mark.parametrize("watches_machines", [False, True])
def test_the_only_machine_of_a_cluster_is_not_watched(watches_machines: bool):
    variables = ray_training._ray_train_variables(
        TrainingSection(), 90.0, watches_machines=watches_machines
    )
    assert variables[PREEMPTION_WATCHER] == ("1" if watches_machines else "0")


def test_ray_reads_the_variables_that_are_set():
    """A variable that Ray does not know would be ignored without a word."""
    variables = ray_training._ray_train_variables(TrainingSection(), 90.0, watches_machines=True)
    assert variables.keys() <= ENV_VARS_TO_PROPAGATE
