"""A training on the workers, with its settings and its result in MLflow and in the run's folder."""

from dataclasses import dataclass, field, replace
from typing import Any

from mmtpp.config.schema import RunConfig
from mmtpp.runtime.hardware import Hardware
from mmtpp.storage.manifest import Manifest
from mmtpp.track.tracked_run import tracked_run
from mmtpp.train.launch.ray_training import (
    TrainerSettings,
    WorkerCall,
    train_on_workers,
)
from mmtpp.train.launch.run_result import TrainedModel, record_result


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRecord:
    """What is recorded of a training, besides its settings and metrics.

    Attributes:
        job: ``pretrain`` or ``finetune``.
        manifest: Manifest of the store.
        model: Model that is trained.
        description: Description of the run, in Markdown.
        tags: Further tags of the run, by name.
        metrics: Metrics at step 0, by name.
    """

    job: str
    manifest: Manifest
    model: TrainedModel
    description: str
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)


def train_and_record(
    call: WorkerCall,
    config: RunConfig,
    hardware: Hardware,
    callbacks: list[Any],
    record: TrainingRecord,
) -> dict[str, object]:
    """Train on the workers, and record the result.

    Args:
        call: What every worker runs. Its inputs are a dataclass with the identity of the run,
            ``run``; the workers receive it with the id of its MLflow run.
        config: The whole configuration.
        hardware: Device and precision of the workers.
        callbacks: Ray Train callbacks that receive every validation.
        record: What is recorded.

    Returns:
        The result that ``pretrain`` describes.

    Raises:
        StoppedError: The job received SIGTERM; it saved a checkpoint first.
        MmtppError: A worker raised this error, or the workers could not be started.
    """
    settings = TrainerSettings(
        training=config.training,
        hardware=hardware,
        storage_uri=config.run.storage_uri,
        model_path=config.model.path,
        patience_s=config.run.wait_for_machines_s,
        callbacks=callbacks,
    )
    tags = {"mmtpp.output_uri": record.model.uri, **record.tags}
    with tracked_run(
        config,
        record.manifest,
        call.inputs.run,
        job=record.job,
        description=record.description,
        tags=tags,
    ) as tracker:
        tracker.log_text("config.json", config.model_dump_json(indent=2))
        if record.metrics:
            tracker.log_metrics(0, record.metrics)
        run = replace(call.inputs.run, mlflow_run_id=tracker.wait_for_run())
        call = replace(call, inputs=replace(call.inputs, run=run))
        finished = train_on_workers(call, run, settings, tracker)
        return record_result(tracker, run, finished, record.model, config.tracking)
