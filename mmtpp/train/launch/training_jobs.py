"""The training jobs: configuration in, trained model or adapter out. They run on the driver.

The two jobs here, ``expert_job``, ``recorded_training`` and ``run_folder`` read the whole
configuration; other functions of the driver take the sections that they need.
"""

import logging
from dataclasses import dataclass, replace
from typing import Any

from mmtpp.config.job_checks import check_finetune, check_training
from mmtpp.config.load import with_values
from mmtpp.config.schema import RunConfig
from mmtpp.core.model_kind import ModelKind
from mmtpp.core.representation.supervision import AllTokens, Supervision
from mmtpp.data.from_config import sample_settings, training_questions
from mmtpp.data.prepared_store import PreparedStore
from mmtpp.data.samples.interval_range import interval_range
from mmtpp.data.samples.plan import Plan
from mmtpp.data.samples.sample_settings import SampleSettings
from mmtpp.model.tokens.vocabulary import Vocabulary
from mmtpp.runtime.hardware import Hardware
from mmtpp.storage.hub import pin_revision
from mmtpp.storage.manifest import Manifest
from mmtpp.storage.model_folder import source_tags
from mmtpp.storage.paths import join
from mmtpp.track.tracker import RunIdentity
from mmtpp.train.entry import train_loop_per_worker
from mmtpp.train.launch.expert_job import run_expert_job
from mmtpp.train.launch.plan_run import (
    PLAN_FILE,
    VALIDATION_PLAN_FILE,
    build_trained_tasks,
    plan_training,
    plan_validation,
)
from mmtpp.train.launch.ray_training import WorkerCall
from mmtpp.train.launch.recorded_training import TrainingRecord, train_and_record
from mmtpp.train.launch.run_description import describe_training
from mmtpp.train.launch.run_folder import claim_run, identify_run
from mmtpp.train.launch.run_result import RESULT_FILE, TrainedModel, load_result
from mmtpp.train.launch.soft_training import build_soft_start, soft_tasks
from mmtpp.train.launch.training_checks import check_locations, load_training_store
from mmtpp.train.launch.training_hardware import wait_for_hardware
from mmtpp.train.worker_inputs import WorkerInputs, output_kind

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """A training job as the user asked for it.

    Attributes:
        name: ``pretrain`` or ``finetune``.
        config: The whole configuration.
        supervision: Which tokens are labels and which questions are asked.
        callbacks: Ray Train callbacks that receive every validation.
        start_uri: Folder of another run's checkpoint to start from; empty for none.
    """

    name: str
    config: RunConfig
    supervision: Supervision
    callbacks: list[Any]
    start_uri: str

    def with_value(self, key: str, value: object) -> "TrainingJob":
        """The job with another value of one setting."""
        return replace(self, config=with_values(self.config, {key: value}))


def pretrain(
    config: RunConfig, callbacks: list | None = None, start_uri: str = ""
) -> dict[str, object]:
    """Train on the compressed sequences of a store (stage 1).

    Args:
        config: The whole configuration.
        callbacks: Ray Train callbacks that receive every validation, used by sweeps.
        start_uri: Folder of a checkpoint of another run on the same samples. A fresh run continues
            from there with this run's optimiser settings.

    Returns:
        ``run_id``, ``model_uri`` or with LoRA ``adapter_uri``, ``steps``, ``metrics`` and the URIs
        of further results. A finished run returns its result again; it continues when
        ``training.num_steps`` was raised.

    Raises:
        StoppedError: The job received SIGTERM; it saved a checkpoint first.
        MmtppError: The store, the model or the settings do not fit, or a worker raised this error.
    """
    check_training(config)
    return _train(TrainingJob("pretrain", config, AllTokens(), callbacks or [], start_uri))


def finetune(
    config: RunConfig, callbacks: list | None = None, start_uri: str = ""
) -> dict[str, object]:
    """Train to answer questions about every event of a store's sequences (stage 2).

    One forward pass asks about all events of a window (``core.representation.branches``). Training
    starts from ``model.adapter`` or ``model.path``, the output of stage 1. Arguments, result and
    errors are those of ``pretrain``.

    Source: MM-TPP, stage 2, which draws one target per sequence instead.
    """
    check_finetune(config)
    questions = training_questions(config.tasks)
    return _train(TrainingJob("finetune", config, questions, callbacks or [], start_uri))


def _train(job: TrainingJob) -> dict[str, object]:
    if job.config.model_kind == ModelKind.EXPERT:
        return run_expert_job(job.config, job.name, job.callbacks, job.start_uri)
    job = job.with_value("model.path", pin_revision(job.config.model.path))
    config = job.config
    check_locations(
        config.run.storage_uri, job.start_uri, keep_checkpoints=config.training.keep_checkpoints
    )
    store = load_training_store(config.sample_sections, config.model, config.lora)
    train_sample_settings = sample_settings(
        config.sample_sections, store.manifest, split="train", supervision=job.supervision
    )
    if (result := _load_finished_result(job, store, train_sample_settings)) is not None:
        return result
    hardware = wait_for_hardware(
        config.training,
        config.zero,
        precision=config.model.precision,
        data_labels=config.store.machine_labels,
        patience_s=config.run.wait_for_machines_s,
    )
    # claimed after the wait: until then, settings may change under the same name of a run
    run = claim_run(config, job.name, store_fingerprint=store.manifest.fingerprint)
    plan = plan_training(train_sample_settings, store.vocabulary, run.run_uri)
    num_steps = _num_steps(config, train_sample_settings, plan, store.vocabulary)
    planned_job = job.with_value("training.num_steps", num_steps)
    logger.info("training: %s", plan.describe(train_sample_settings.max_tokens))
    # saves the plan; the workers load it
    validation_sample_settings = plan_validation(
        config.sample_sections,
        store.manifest,
        store.vocabulary,
        run.run_uri,
        num_sequences=config.training.validation_sequences,
        supervision=job.supervision,
    )
    worker_inputs = _build_worker_inputs(
        planned_job,
        run,
        store,
        train_sample_settings,
        validation_sample_settings,
        precision=hardware.precision,
    )
    return _train_planned(planned_job, worker_inputs, plan, store.manifest, hardware)


def _load_finished_result(
    job: TrainingJob, store: PreparedStore, train_sample_settings: SampleSettings
) -> dict[str, object] | None:
    """Result of the run if it has made all its steps; this needs no machines.

    Args:
        job: The training job.
        store: Store that the job reads.
        train_sample_settings: Settings of the training samples.

    Raises:
        MmtppError: The run was started with other data or settings.
    """
    config, store_fingerprint = job.config, store.manifest.fingerprint
    run = identify_run(config, job.name, store_fingerprint=store_fingerprint)
    result = load_result(run.run_uri)
    if result is None:
        return None
    claim_run(config, job.name, store_fingerprint=store_fingerprint)  # refuses other settings
    plan = plan_training(train_sample_settings, store.vocabulary, run.run_uri)
    if result["steps"] != _num_steps(config, train_sample_settings, plan, store.vocabulary):
        return None
    logger.info("this run is finished; its result is %s", join(run.run_uri, RESULT_FILE))
    return result


def _num_steps(
    config: RunConfig, train_sample_settings: SampleSettings, plan: Plan, vocabulary: Vocabulary
) -> int:
    """``training.num_steps``, or the number of steps within ``training.max_flops``."""
    if not config.training.max_flops:
        return config.training.num_steps
    from mmtpp.train.launch.flops_budget import num_steps_within  # imports the model's classes

    num_steps = num_steps_within(
        train_sample_settings,
        plan,
        vocabulary,
        training=config.training,
        optimizer=config.optimizer,
        model=config.model,
        trains_vision=config.trains_vision,
    )
    logger.info("training.max_flops = %.3g: %d steps", config.training.max_flops, num_steps)
    return num_steps


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
    soft = None
    if config.model_kind == ModelKind.SOFT:
        # both read all training events
        soft = build_soft_start(config.expert, config.model, manifest, train_sample_settings)
        trained_tasks = soft_tasks(manifest, train_sample_settings)
        train_sample_settings = replace(train_sample_settings, memory=soft.settings.memory)
        if validation_sample_settings is not None:
            validation_sample_settings = replace(
                validation_sample_settings, memory=soft.settings.memory
            )
    return WorkerInputs(
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
        soft=soft,
        precision=precision,
        start_uri=job.start_uri,
        reports_validation=bool(job.callbacks),
    )


def _train_planned(
    job: TrainingJob,
    worker_inputs: WorkerInputs,
    plan: Plan,
    manifest: Manifest,
    hardware: Hardware,
) -> dict[str, object]:
    """Train what is planned.

    Args:
        job: The training job.
        worker_inputs: What every worker needs.
        plan: Plan of the training samples.
        manifest: Manifest of the store.
        hardware: Device and precision of the workers.
    """
    config = job.config
    description = describe_training(
        job.name,
        worker_inputs,
        model=config.model,
        lora=config.lora,
        num_steps=config.training.num_steps,
        store_uri=config.store.uri,
    )
    return train_and_record(
        WorkerCall(train_loop_per_worker, worker_inputs),
        config,
        hardware,
        job.callbacks,
        TrainingRecord(
            job=job.name,
            manifest=manifest,
            model=TrainedModel(
                kind=output_kind(config.lora),
                uri=worker_inputs.output_uri,
                base=config.model.path if config.lora.rank else "",
                trained_tasks=worker_inputs.trained_tasks,
            ),
            description=description,
            tags={
                "mmtpp.plan_fingerprint": plan.fingerprint,
                **source_tags(config.model.path),
            },
            metrics=plan.metrics(),
        ),
    )
