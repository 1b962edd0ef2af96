"""Fits a planned run with Ray Train, and records its result."""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import ray.train
from ray.exceptions import RayTaskError
from ray.train import (
    CheckpointConfig,
    ControllerError,
    FailureConfig,
    ScalingConfig,
    TrainingFailedError,
    WorkerGroupError,
)
from ray.train.torch import TorchConfig, TorchTrainer

from mmtpp.config.flat_settings import flat_settings
from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import ClusterError, MmtppError, StoppedError
from mmtpp.data.samples.plan import Plan
from mmtpp.runtime.hardware import Hardware, worker_resources
from mmtpp.runtime.interruptions import stops_on_sigterm
from mmtpp.storage.hub import is_hub
from mmtpp.storage.manifest import Manifest
from mmtpp.storage.paths import filesystem_of, folder_bytes, join, write_bytes
from mmtpp.track.mlflow_tracker import MlflowTracker
from mmtpp.track.provenance import versions
from mmtpp.track.run_labels import job_tags, tracked_store
from mmtpp.train.entry import train_loop_per_worker
from mmtpp.train.launch.run_description import describe_training
from mmtpp.train.launch.run_folder import RESULT_FILE
from mmtpp.train.task import Task, TrainingJob, best_uri, output_kind

logger = logging.getLogger(__name__)

TRACKER_WAIT_S = 20.0
# Ray Train's variables, which it reads when a trainer starts
HEALTH_CHECK_TIMEOUT = "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"
GROUP_START_TIMEOUT = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"


def fit_run(
    job: TrainingJob, task: Task, plan: Plan, manifest: Manifest, hardware: Hardware
) -> dict[str, object]:
    """Train on Ray's workers, and write the result into the run's folder.

    Args:
        job: The training job.
        task: Task of every worker.
        plan: Plan of the training samples.
        manifest: Manifest of the store.
        hardware: Device and precision of the workers.

    Returns:
        The result that ``pretrain`` describes.

    Raises:
        StoppedError: The job received SIGTERM; it saved a checkpoint first.
        MmtppError: A worker raised this error, or the workers could not be started.
    """
    tracker = _start_tracking(job, task, plan, manifest)
    run_id = tracker.wait_for_run(TRACKER_WAIT_S)
    task = replace(task, run=replace(task.run, mlflow_run_id=run_id))
    try:
        with _ray_train_timeouts(job.config), stops_on_sigterm() as stop_request:
            trainer = _build_trainer(job, task, hardware, stop_request)
            report = trainer.fit().metrics or {}
    except TrainingFailedError as error:
        tracker.log_text("error.txt", str(error))
        tracker.close("FAILED")
        raise _cause(error, job.config, task.run.run_uri) from error
    except BaseException:  # interrupted: MLflow must not show the run as running
        tracker.close("KILLED")
        raise
    metrics = {key: value for key, value in report.items() if isinstance(value, float)}
    steps, best_step = int(metrics.pop("step")), int(metrics.pop("best_step"))
    if steps < job.config.training.num_steps:
        tracker.close("KILLED")
        raise StoppedError(
            f"stopped after step {steps} of {job.config.training.num_steps}; a checkpoint is saved",
            where=task.run.run_uri,
            cause="SIGTERM, which `ray job stop` sends; run the same command again to resume",
        )
    _track_result(tracker, job.config, task, metrics, steps)
    kind = output_kind(job.config.lora)
    result: dict[str, object] = {
        "run_id": tracker.run_id,
        "run_name": task.run.run_name,
        f"{kind}_uri": task.output_uri,
        **({f"best_{kind}_uri": best_uri(task, best_step)} if best_step else {}),
        "steps": steps,
        "metrics": metrics,
        "tracking_uri": job.config.tracking.uri,
    }
    write_bytes(join(task.run.run_uri, RESULT_FILE), json.dumps(result, indent=2).encode())
    return result


def _start_tracking(job: TrainingJob, task: Task, plan: Plan, manifest: Manifest) -> MlflowTracker:
    config = job.config
    tracker = MlflowTracker.from_run(config.tracking, task.run)
    tracker.log_params(flat_settings(config))
    tracker.set_tags(
        {
            **job_tags(job.name),
            "mmtpp.store_fingerprint": manifest.fingerprint,
            "mmtpp.plan_fingerprint": plan.fingerprint,
            "mmtpp.output_uri": task.output_uri,
            **versions(),
        }
    )
    tracker.log_text("config.json", config.model_dump_json(indent=2))
    tracker.set_description(describe_training(config, job.name, task))
    tracker.log_dataset(tracked_store(config.store.uri, manifest, context="training"))
    tracker.log_metrics(0, plan.figures())
    return tracker


def _build_trainer(
    job: TrainingJob, task: Task, hardware: Hardware, stop_request: Any
) -> TorchTrainer:
    config, training = job.config, job.config.training
    filesystem, storage_path = filesystem_of(config.run.storage_uri)
    if isinstance(filesystem, pafs.LocalFileSystem):
        Path(storage_path).mkdir(parents=True, exist_ok=True)
    num_workers = training.num_workers
    return TorchTrainer(
        train_loop_per_worker,
        train_loop_config={"task": task, "stop_request": stop_request},
        scaling_config=ScalingConfig(
            num_workers=(training.min_workers, num_workers)
            if training.min_workers
            else num_workers,
            use_gpu=hardware.on_gpu,
            resources_per_worker=worker_resources(training, hardware),
            label_selector=training.machine_labels or None,
        ),
        torch_config=TorchConfig(
            backend="nccl" if hardware.on_gpu else "gloo", timeout_s=int(training.hang_timeout_s)
        ),
        run_config=ray.train.RunConfig(
            name=task.run.run_name,
            storage_path=storage_path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(
                max_failures=training.max_failures, controller_failure_limit=training.max_failures
            ),
            checkpoint_config=CheckpointConfig(num_to_keep=training.keep_checkpoints),
            worker_runtime_env={"env_vars": _worker_environment(config.model.path, hardware)},
            callbacks=job.callbacks,
        ),
    )


def _worker_environment(model_path: str, hardware: Hardware) -> dict[str, str]:
    environment = {"TOKENIZERS_PARALLELISM": "false"}
    if not is_hub(model_path):
        environment["HF_HUB_OFFLINE"] = "1"
    if not hardware.on_gpu:
        environment["DS_ACCELERATOR"] = "cpu"
    return environment


@contextmanager
def _ray_train_timeouts(config: RunConfig) -> Iterator[None]:
    """Set Ray Train's timeouts in the environment; variables that the user has set stay."""
    training = config.training
    # Time for new machines in place of lost ones. A run that may continue with fewer workers does
    # so after one minute, Ray's default.
    group_start_s = 60.0 if training.min_workers else max(config.run.wait_for_machines_s, 60.0)
    timeouts_s = {
        HEALTH_CHECK_TIMEOUT: training.hang_timeout_s,  # a worker that does not answer at all
        GROUP_START_TIMEOUT: group_start_s,
    }
    added = {name: f"{value:g}" for name, value in timeouts_s.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def _track_result(
    tracker: MlflowTracker, config: RunConfig, task: Task, metrics: dict[str, float], steps: int
) -> None:
    tracker.log_metrics(0, {"model/trained_parameters": metrics["model/trained_parameters"]})
    changing = {
        key: metrics[key] for key in metrics if not key.startswith(("data/", "model/", "system/"))
    }
    tracker.log_metrics(steps, {f"final/{key}": value for key, value in changing.items()})
    if folder_bytes(task.output_uri) <= config.tracking.max_artifact_mib * 2**20:
        tracker.log_folder(task.output_uri, task.output_uri.rpartition("/")[2])
    else:
        tracker.log_text("output_uri.txt", task.output_uri)
    if task.trained_tasks is not None and {"time", "type"} & set(task.trained_tasks.tasks):
        tracker.log_forecaster(
            path=task.output_uri,
            base=config.model.path if config.lora.rank else "",
            known_type=task.trained_tasks.name_of(task.trained_tasks.type_codes[0]),
            # a sweep has many trials, most of which are not worth registering
            register_as="" if config.tracking.parent_run_id else config.tracking.register_as,
        )
    tracker.close("FINISHED")


def _cause(error: TrainingFailedError, config: RunConfig, run_uri: str) -> Exception:
    """The project's own error behind a failed run; ``error`` itself when there is none."""
    if isinstance(error, ControllerError):
        return ClusterError(
            f"the workers could not be started: {error.controller_failure}",
            where=run_uri,
            cause="machines were lost and no others joined in time; run the same command again to "
            "resume from the last checkpoint",
            setting=f"run.wait_for_machines_s = {config.run.wait_for_machines_s:g}, "
            f"training.max_failures = {config.training.max_failures}",
        )
    if isinstance(error, WorkerGroupError):
        for rank, failure in sorted(error.worker_failures.items()):
            inner = failure.cause if isinstance(failure, RayTaskError) else failure
            if isinstance(inner, MmtppError):
                return inner
            logger.error("rank %d: %s", rank, failure)
    return error
