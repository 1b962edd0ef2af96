"""The training jobs: configuration in, trained model or adapter out. They run on the driver.

A job is checked, planned, trained and recorded: ``run_training_job`` chooses the kind of model, and
``_run_language_model_job`` reads top to bottom. ``expert_job.py`` trains a temporal expert.
"""

import logging
from dataclasses import replace

from mmtpp.config.schema import RunConfig
from mmtpp.core.model_kind import ModelKind
from mmtpp.data.from_config import build_sample_settings
from mmtpp.data.prepared_store import PreparedStore
from mmtpp.data.samples.interval_range import interval_range
from mmtpp.data.samples.plan import Plan
from mmtpp.data.samples.sample_settings import SampleSettings
from mmtpp.runtime.hardware import Hardware
from mmtpp.storage.hub import pin_revision
from mmtpp.storage.model_folder import source_tags
from mmtpp.storage.paths import join
from mmtpp.track.mlflow_tracker import import_early
from mmtpp.track.tracker import RunIdentity
from mmtpp.train.launch.planned_training import PlannedTraining, TrainingJob
from mmtpp.train.launch.recorded_training import train_and_record
from mmtpp.train.launch.run_description import describe_training
from mmtpp.train.launch.run_folder import claim_run, find_finished
from mmtpp.train.launch.sample_plans import (
    PLAN_FILE,
    VALIDATION_PLAN_FILE,
    plan_training_samples,
    plan_validation_samples,
)
from mmtpp.train.launch.task_record import build_trained_tasks, continue_trained_tasks
from mmtpp.train.launch.training_checks import check_locations, load_training_store
from mmtpp.train.launch.training_hardware import start_ray_for_training
from mmtpp.train.worker_inputs import WorkerInputs, output_kind

logger = logging.getLogger(__name__)


def pretrain(config: RunConfig) -> dict[str, object]:
    """Train on the compressed sequences of a store (stage 1).

    Args:
        config: The whole configuration.

    Returns:
        ``run_id``, ``model_uri`` or with LoRA ``adapter_uri``, ``steps``, ``metrics`` and the URIs
        of further results. A finished run returns its result again; it continues when
        ``training.num_steps`` was raised.

    Raises:
        StoppedError: The job received SIGTERM; it saved a checkpoint first.
        MmtppError: The store, the model or the settings do not fit, or a worker raised this error.
    """
    return run_training_job(TrainingJob("pretrain", config))


def finetune(config: RunConfig) -> dict[str, object]:
    """Train to answer questions about every event of a store's sequences (stage 2).

    One forward pass asks about all events of a window (``core.representation.branches``). Training
    starts from ``model.adapter`` or ``model.path``, the output of stage 1. Argument, result and
    errors are those of ``pretrain``.

    Source: MM-TPP, stage 2, which draws one target per sequence instead.
    """
    return run_training_job(TrainingJob("finetune", config))


def run_training_job(job: TrainingJob) -> dict[str, object]:
    """Check, plan, train and record. Result and errors are those of ``pretrain``.

    Args:
        job: The training job.
    """
    job.check_settings()
    if job.config.model_kind == ModelKind.EXPERT:
        from mmtpp.train.launch.expert_job import run_expert_job  # imports torch

        return run_expert_job(job)
    return _run_language_model_job(job)


def _run_language_model_job(job: TrainingJob) -> dict[str, object]:
    """Train a language model, also one of soft tokens."""
    job = job.with_value("model.path", pin_revision(job.config.model.path))
    config = job.config
    check_locations(
        config.run.storage_uri, job.start_uri, keep_checkpoints=config.training.keep_checkpoints
    )
    store = load_training_store(config.sample_sections, config.model, config.lora)
    train_sample_settings = build_sample_settings(
        config.sample_sections,
        store.manifest,
        split="train",
        supervision=job.supervision,
        new_targets=job.new_targets(store.manifest),
    )
    result = _load_finished_result(job, store, train_sample_settings)
    if result is not None:
        return result
    job = job.with_start_up_part("checks")
    import_early()  # while Ray connects and the samples are planned
    hardware = start_ray_for_training(
        config.training,
        config.zero,
        precision=config.model.precision,
        data_labels=config.store.machine_labels,
        patience_s=config.run.wait_for_machines_s,
    )
    job = job.with_start_up_part("machines")
    planned = _claim_and_plan(job, store, train_sample_settings, hardware)
    return train_and_record(planned)


def _load_finished_result(
    job: TrainingJob, store: PreparedStore, train_sample_settings: SampleSettings
) -> dict[str, object] | None:
    """Result of the run if it has made all its steps; None otherwise. This needs no machines.

    Args:
        job: The training job.
        store: Store that the job reads.
        train_sample_settings: Settings of the training samples.

    Raises:
        MmtppError: The run was started with other data or settings.
    """
    finished = find_finished(job.config, job.name, store_fingerprint=store.manifest.fingerprint)
    if finished is None:
        return None
    _, planned_job = _plan_samples_and_steps(job, store, train_sample_settings, finished.run_uri)
    if finished.result["steps"] != planned_job.config.training.num_steps:
        return None  # training.num_steps was raised: the run continues
    return finished.log_and_return()


def _claim_and_plan(
    job: TrainingJob,
    store: PreparedStore,
    train_sample_settings: SampleSettings,
    hardware: Hardware,
) -> PlannedTraining:
    """Claim the run, and plan its samples and what its workers need.

    Args:
        job: The training job.
        store: Store that the job reads.
        train_sample_settings: Settings of the training samples.
        hardware: Device and precision of the workers.
    """
    config, manifest = job.config, store.manifest
    # claimed after the wait for machines: until then, settings may change under the same name of a
    # run
    run = claim_run(config, job.name, store_fingerprint=manifest.fingerprint)
    plan, job = _plan_samples_and_steps(job, store, train_sample_settings, run.run_uri)
    logger.info("training: %s", plan.describe(train_sample_settings.max_tokens))
    # writes the validation plan into the run's folder, where the workers load it
    validation_sample_settings = plan_validation_samples(
        config.sample_sections,
        store,
        run.run_uri,
        num_sequences=config.training.validation_sequences,
        supervision=job.supervision,
        new_targets=job.new_targets(manifest),
    )
    inputs = _build_worker_inputs(
        job,
        run,
        store,
        train_sample_settings,
        validation_sample_settings,
        precision=hardware.precision,
    )
    return PlannedTraining(
        job=job,
        manifest=manifest,
        hardware=hardware,
        inputs=inputs,
        output_kind=output_kind(config.lora),
        description=describe_training(job, inputs),
        tags={"mmtpp.plan_fingerprint": plan.fingerprint, **source_tags(config.model.path)},
        metrics=plan.metrics(),
    )


def _plan_samples_and_steps(
    job: TrainingJob, store: PreparedStore, train_sample_settings: SampleSettings, run_uri: str
) -> tuple[Plan, TrainingJob]:
    """Plan and write the training samples; return the plan, and the job with its number of steps.

    The number of steps is ``training.num_steps``, or that within ``training.max_flops``, which
    depends on the samples.
    """
    plan = plan_training_samples(train_sample_settings, store.vocabulary, run_uri)
    config = job.config
    if not config.training.max_flops:
        return plan, job
    from mmtpp.train.launch.flops_budget import num_steps_within  # imports the model's classes

    num_steps = num_steps_within(
        train_sample_settings,
        plan,
        store.vocabulary,
        training=config.training,
        optimizer=config.optimizer,
        model=config.model,
        trains_vision=config.trains_vision,
        blank_frame=config.shows_blank_frame,
    )
    logger.info("training.max_flops = %.3g: %d steps", config.training.max_flops, num_steps)
    return plan, job.with_value("training.num_steps", num_steps)


def _build_worker_inputs(
    job: TrainingJob,
    run: RunIdentity,
    store: PreparedStore,
    train_sample_settings: SampleSettings,
    validation_sample_settings: SampleSettings | None,
    *,
    precision: str,
) -> WorkerInputs:
    """What every worker needs.

    Args:
        job: The training job.
        run: Name and folder of its run.
        store: Store that the job reads.
        train_sample_settings: Settings of the training samples.
        validation_sample_settings: Settings of the validation samples; None without validation.
        precision: ``float32`` or ``bfloat16``.
    """
    config, manifest, vocabulary = job.config, store.manifest, store.vocabulary
    trained_tasks = None
    if job.supervision.asks_questions:
        intervals = interval_range(train_sample_settings)  # reads the times of all training events
        trained_tasks = build_trained_tasks(config.tasks, manifest, intervals)
        if job.is_update:
            trained_tasks = continue_trained_tasks(trained_tasks, config.update.model)
    inputs = WorkerInputs(
        config=config.model_dump(mode="json"),
        run=run,
        train_sample_settings=train_sample_settings,
        validation_sample_settings=validation_sample_settings,
        train_plan_uri=join(run.run_uri, PLAN_FILE),
        validation_plan_uri=join(run.run_uri, VALIDATION_PLAN_FILE),
        tokenizer_json=vocabulary.tokenizer_json,
        type_codes=list(manifest.occurring_types),
        output_uri=join(run.run_uri, output_kind(config.lora)),
        trained_tasks=trained_tasks,
        soft=None,
        precision=precision,
        start_uri=job.start_uri,
        reports_validation=bool(job.callbacks),
        start_up=job.start_up,
    )
    if config.model_kind == ModelKind.SOFT:
        from mmtpp.train.launch.soft_training import with_soft_tokens  # imports torch

        inputs = with_soft_tokens(inputs, config, manifest)
    return replace(inputs, start_up=job.start_up.with_part("plan"))
