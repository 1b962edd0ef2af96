"""Trains a planned run with Ray Train."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import ray.train
from ray.exceptions import ActorDiedError, RayTaskError
from ray.train import (
    CheckpointConfig,
    ControllerError,
    FailureConfig,
    ScalingConfig,
    TrainingFailedError,
    WorkerGroupError,
)
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from mmtpp.compat.torch_backend import TorchGroupConfig
from mmtpp.config.schema import TrainingSection
from mmtpp.core.errors import ClusterError, MmtppError, StoppedError
from mmtpp.runtime.hardware import Hardware, worker_resources
from mmtpp.runtime.interruptions import stops_on_sigterm
from mmtpp.runtime.machines import is_single_machine
from mmtpp.storage.filesystems import filesystem_of
from mmtpp.storage.hub import is_hub
from mmtpp.track.mlflow_tracker import MlflowTracker
from mmtpp.train.entry import train_on_worker
from mmtpp.train.launch.planned_training import PlannedTraining
from mmtpp.train.outcome import TrainingOutcome

logger = logging.getLogger(__name__)

# Ray Train's variables, which it reads when a trainer starts
HEALTH_CHECK_INTERVAL = "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"
HEALTH_CHECK_TIMEOUT = "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"
GROUP_START_TIMEOUT = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
PREEMPTION_WATCHER = "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"
# Ray polls the workers every 2 s. Reports, failures and the end of a training wait for a poll, and
# few workers are polled in milliseconds.
POLL_S, LONGEST_POLL_S, POLL_S_PER_WORKER = 0.2, 2.0, 1 / 80


@dataclass(frozen=True, slots=True)
class FinishedTraining:
    """A training that reached its last step.

    Attributes:
        outcome: How it ended.
        metrics: Last value of every metric.
    """

    outcome: TrainingOutcome
    metrics: dict[str, float]


def train_on_workers(planned: PlannedTraining, tracker: MlflowTracker) -> FinishedTraining:
    """Train on Ray's workers.

    Args:
        planned: Training to start.
        tracker: Tracker of the run.

    Raises:
        StoppedError: The job received SIGTERM; it saved a checkpoint first.
        MmtppError: A worker raised this error, or the workers or their controller could not be
            started.
    """
    training, run_uri = planned.job.config.training, planned.inputs.run.run_uri
    patience_s = planned.job.config.run.wait_for_machines_s
    try:
        variables = _ray_train_variables(
            training, patience_s, watches_machines=not is_single_machine()
        )
        with _added_to_environment(variables), stops_on_sigterm() as stop_request:
            report = _fit(lambda: _build_trainer(planned, stop_request), training, run_uri)
    except TrainingFailedError as error:
        tracker.log_text("error.txt", str(error))
        _log_failures(error)
        raise _cause(error, training, run_uri, patience_s=patience_s) from error
    outcome, metrics = TrainingOutcome.from_report(
        {key: value for key, value in report.items() if isinstance(value, float)}
    )
    if not outcome.is_finished:
        raise StoppedError(
            f"stopped after step {outcome.step}; a checkpoint is saved",
            where=run_uri,
            cause="SIGTERM, which `ray job stop` sends; run the same command again to resume",
        )
    return FinishedTraining(outcome, metrics)


def _fit(
    build_trainer: Callable[[], DataParallelTrainer], training: TrainingSection, run_uri: str
) -> dict[str, Any]:
    """Last report of the workers; a controller whose process died is started again.

    A process that ends by a signal, for lack of memory or by a fault in a library, is no error of
    the run: a new controller of the same name resumes from the last checkpoint.
    """
    max_failures, num_failures = training.max_failures, 0
    while True:
        try:
            return build_trainer().fit().metrics or {}
        except ActorDiedError as error:
            num_failures += 1
            reason = str(error).strip()
            if num_failures > max_failures >= 0:
                raise ClusterError(
                    f"the process of Ray Train's controller died {num_failures} times: {reason}",
                    where=run_uri,
                    cause="the machine of the driver has no memory left, or a library crashed; the "
                    "log of that process, by its pid, is in Ray's folder of logs; run the same "
                    "command again to resume from the last checkpoint",
                    setting=f"training.max_failures = {max_failures}",
                ) from error
            logger.warning(
                "the process of Ray Train's controller died, failure %d of at most %s; a new one "
                "resumes from the last checkpoint: %s",
                num_failures,
                "any number" if max_failures < 0 else max_failures,
                reason,
            )


def _build_trainer(planned: PlannedTraining, stop_request: Any) -> DataParallelTrainer:
    config, hardware = planned.job.config, planned.hardware
    filesystem, storage_path = filesystem_of(config.run.storage_uri)
    if isinstance(filesystem, pafs.LocalFileSystem):
        Path(storage_path).mkdir(parents=True, exist_ok=True)
    training = config.training
    num_workers = training.num_workers
    return DataParallelTrainer(
        partial(train_on_worker, planned.inputs, stop_request),
        scaling_config=ScalingConfig(
            num_workers=(training.min_workers, num_workers)
            if training.min_workers
            else num_workers,
            use_gpu=hardware.on_gpu,
            resources_per_worker=worker_resources(training, hardware),
            label_selector=training.machine_labels or None,
        ),
        backend_config=TorchGroupConfig(
            backend="nccl" if hardware.on_gpu else "gloo", timeout_s=int(training.hang_timeout_s)
        ),
        run_config=ray.train.RunConfig(
            name=planned.inputs.run.run_name,
            storage_path=storage_path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(
                max_failures=training.max_failures, controller_failure_limit=training.max_failures
            ),
            checkpoint_config=CheckpointConfig(num_to_keep=training.keep_checkpoints),
            worker_runtime_env={"env_vars": _worker_environment(config.model.path, hardware)},
            callbacks=list(planned.job.callbacks),
        ),
    )


def _worker_environment(model_path: str, hardware: Hardware) -> dict[str, str]:
    environment = {"TOKENIZERS_PARALLELISM": "false"}
    if not is_hub(model_path):
        environment["HF_HUB_OFFLINE"] = "1"
    if not hardware.on_gpu:
        environment["DS_ACCELERATOR"] = "cpu"
    return environment


def _ray_train_variables(
    training: TrainingSection, patience_s: float, *, watches_machines: bool
) -> dict[str, str]:
    """Ray Train's variables for a training.

    Args:
        training: Number of workers, and timeouts.
        patience_s: Time for new machines in place of lost ones, in seconds.
        watches_machines: Whether a machine of the workers may be taken away. Ray starts a process
            that asks for notices; the only machine of a cluster has the driver, too.
    """
    # a run that may continue with fewer workers does so after one minute, Ray's default
    group_start_s = 60.0 if training.min_workers else max(patience_s, 60.0)
    poll_s = min(LONGEST_POLL_S, max(POLL_S, training.num_workers * POLL_S_PER_WORKER))
    return {
        HEALTH_CHECK_INTERVAL: f"{poll_s:g}",
        HEALTH_CHECK_TIMEOUT: f"{training.hang_timeout_s:g}",  # a worker that does not answer
        GROUP_START_TIMEOUT: f"{group_start_s:g}",
        PREEMPTION_WATCHER: str(int(watches_machines)),
    }


@contextmanager
def _added_to_environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables in the environment; those that the user has set stay."""
    added = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def _cause(
    error: TrainingFailedError, training: TrainingSection, run_uri: str, *, patience_s: float
) -> Exception:
    """The project's own error behind a failed run; ``error`` itself when there is none."""
    if isinstance(error, ControllerError):
        return ClusterError(
            f"the workers could not be started: {error.controller_failure}",
            where=run_uri,
            cause="machines were lost and no others joined in time; run the same command again to "
            "resume from the last checkpoint",
            setting=f"run.wait_for_machines_s = {patience_s:g}, "
            f"training.max_failures = {training.max_failures}",
        )
    if isinstance(error, WorkerGroupError):
        own = (_inner(failure) for _, failure in sorted(error.worker_failures.items()))
        return next((inner for inner in own if isinstance(inner, MmtppError)), error)
    return error


def _log_failures(error: TrainingFailedError) -> None:
    """Log the errors of ranks that are not the project's own, which carry a traceback."""
    if isinstance(error, WorkerGroupError):
        for rank, failure in sorted(error.worker_failures.items()):
            if not isinstance(_inner(failure), MmtppError):
                logger.error("rank %d: %s", rank, failure)


def _inner(failure: Exception) -> BaseException:
    """The error that a worker raised."""
    return failure.cause if isinstance(failure, RayTaskError) else failure
