"""Builds the worker of a rank: samples, model, engine and tracker, put together once."""

import logging
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import ray.train
import ray.train.collective
import ray.train.torch
from ray.train import Checkpoint

from mmtpp.config.load import config_from_tree
from mmtpp.config.schema import RunConfig, TrainingSection
from mmtpp.core.errors import StorageError
from mmtpp.core.training.sample_order import num_micro_batches, share_of_rank
from mmtpp.core.training.training_metrics import TRAINED_PARAMETERS
from mmtpp.data.samples.feed import iter_rows, rank_samples
from mmtpp.data.samples.plan import Plan, load_plan
from mmtpp.model.batch import Batcher
from mmtpp.model.event_model import EventModel
from mmtpp.model.flops import FlopCounter, peak_flops
from mmtpp.model.folders.card import CardBackbone, ModelProvenance
from mmtpp.model.folders.companions import read_companions
from mmtpp.model.folders.record import TrainedTasks
from mmtpp.model.parameters.lora import trainable_parameters
from mmtpp.model.tokens.vocabulary import Vocabulary
from mmtpp.runtime.start_up import StartUp
from mmtpp.storage.filesystems import filesystem_of
from mmtpp.storage.paths import join, write_bytes
from mmtpp.train.checkpoints.checkpoint import (
    CheckpointWriter,
    TrainingProgress,
    load_progress,
    restore_checkpoint,
)
from mmtpp.train.checkpoints.local_checkpoint import remove_leftovers
from mmtpp.train.engine.build_engine import EngineSections, build_engine
from mmtpp.train.engine.deepspeed_engine import DeepSpeedEngine
from mmtpp.train.ranks.interruption_poll import InterruptionPoll
from mmtpp.train.ranks.rank_group import RankGroup, join_group
from mmtpp.train.ranks.rank_tracker import build_rank_tracker
from mmtpp.train.ranks.watchdog import Watchdog
from mmtpp.train.reported_metrics import ReportedMetrics
from mmtpp.train.step import LabelWeights, StepContext, build_smoothing
from mmtpp.train.telemetry import Telemetry
from mmtpp.train.trained_output import OutputWriter
from mmtpp.train.validation import Validation
from mmtpp.train.worker import Monitor, RankRows, Worker
from mmtpp.train.worker_inputs import WorkerInputs

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Start:
    """The point from which training starts.

    Attributes:
        checkpoint: Checkpoint to restore; None for a fresh run.
        run_uri: Folder that contains the checkpoint.
        progress: Progress of the run there.
    """

    checkpoint: Checkpoint | None
    run_uri: str
    progress: TrainingProgress


@dataclass(frozen=True, slots=True)
class _WorkerSetup:
    """What the parts of a worker are built from.

    Attributes:
        config: The whole configuration.
        inputs: What the driver sent.
        vocabulary: The vocabulary.
        group: Rank and devices of the workers.
    """

    config: RunConfig
    inputs: WorkerInputs
    vocabulary: Vocabulary
    group: RankGroup


def build_worker(inputs: WorkerInputs, stop_request: Any) -> Worker:
    """Build this rank and restore the newest checkpoint of the run.

    Args:
        inputs: What the driver sent.
        stop_request: Handle from ``runtime.interruptions.stops_on_sigterm``.

    Raises:
        ModelError: Model, vocabulary, plan and checkpoint do not fit each other.
        ClusterError: The ranks have different GPUs.
    """
    config = config_from_tree(inputs.config)
    training = config.training
    group = join_group(training, inputs.precision)
    vocabulary = Vocabulary(inputs.tokenizer_json)
    store = inputs.train_sample_settings.store
    plan = load_plan(inputs.train_plan_uri, store.open_disk_cache)
    if ray.train.get_context().get_local_rank() == 0:  # no rank saves before the next barrier
        remove_leftovers(inputs.run.run_uri)
    start = _find_start(inputs, TrainingProgress(0, plan.fingerprint, vocabulary.hash))
    start_up = inputs.start_up.with_part("load_plan")
    # the first rows are assembled while the model is built
    setup = _WorkerSetup(config, inputs, vocabulary, group)
    rows = _build_rows(setup, plan, start.progress.step)
    engine = _build_engine(setup)
    start_up = start_up.with_part("build_engine")
    _restore(engine, start)
    start_up = start_up.with_part("restore")
    num_trained, num_parameters = trainable_parameters(engine.model)
    if group.rank == 0:
        logger.info("%d of %d parameters are trained", num_trained, num_parameters)
        _log_step_size(
            training, inputs.train_sample_settings.max_tokens, group.num_ranks, start.progress.step
        )
    step_context = _build_step_context(setup, engine)
    monitor = _build_monitor(setup, engine, start_up)
    return Worker(
        training=training,
        group=group,
        start_progress=start.progress,
        rows=rows,
        step_context=step_context,
        validation=_build_validation(setup, step_context, monitor.watchdog),
        checkpoints=CheckpointWriter(
            engine, group.rank, inputs.run.run_uri, training.upload_timeout_s
        ),
        output=_build_output(setup, engine),
        monitor=monitor,
        interruptions=InterruptionPoll(stop_request),
        metrics=ReportedMetrics({**plan.metrics(), TRAINED_PARAMETERS: float(num_trained)}),
        reports_validation=inputs.reports_validation,
    )


def _find_start(inputs: WorkerInputs, fresh: TrainingProgress) -> _Start:
    """Start from the run's newest checkpoint, another run's checkpoint, or nothing.

    Args:
        inputs: What the driver sent.
        fresh: Progress of a run without any checkpoint.

    Raises:
        ModelError: The checkpoint belongs to other data or another vocabulary.
    """
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None or not inputs.start_uri:
        return _Start(checkpoint, inputs.run.run_uri, load_progress(checkpoint, fresh=fresh))
    filesystem, path = filesystem_of(inputs.start_uri)
    checkpoint = Checkpoint(path, filesystem)
    progress = load_progress(checkpoint, fresh=fresh)
    # the other run's best model is not in this run's folder
    progress = replace(progress, best_step=0, best_loss=0.0)
    return _Start(checkpoint, inputs.start_uri.rpartition("/")[0], progress)


def _build_rows(setup: _WorkerSetup, plan: Plan, first_step: int) -> RankRows:
    training, group = setup.config.training, setup.group
    samples = rank_samples(
        plan,
        seed=training.seed,
        first_step=first_step,
        end_step=training.num_steps,
        samples_per_step=training.samples_per_step,
        rank=group.rank,
        num_ranks=group.num_ranks,
    )
    of_a_step = share_of_rank(
        np.arange(training.samples_per_step), rank=group.rank, num_ranks=group.num_ranks
    )
    return RankRows(
        rows=iter_rows(
            plan, samples, setup.inputs.train_sample_settings, setup.vocabulary.token_ids()
        ),
        per_step=len(of_a_step),
        samples_per_epoch=plan.samples_per_epoch,
    )


def _build_engine(setup: _WorkerSetup) -> DeepSpeedEngine:
    config, inputs = setup.config, setup.inputs
    sections = EngineSections(
        model=config.model,
        lora=config.lora,
        training=config.training,
        optimizer=config.optimizer,
        optimizer_precision=config.optimizer_precision,
        zero=config.zero,
        trains_vision=config.trains_vision,
        soft=inputs.soft,
    )
    return build_engine(sections, setup.vocabulary, setup.group, inputs.precision)


def _restore(engine: DeepSpeedEngine, start: _Start) -> None:
    restore_checkpoint(
        engine,
        start.checkpoint,
        run_uri=start.run_uri,
        step=start.progress.step,
        wait_for_ranks=ray.train.collective.barrier,
    )


def _log_step_size(
    training: TrainingSection, max_tokens: int, num_ranks: int, first_step: int
) -> None:
    logger.info(
        "a step = %d samples of up to %d tokens = %d workers x %d micro-batches; steps %d-%d",
        training.samples_per_step,
        max_tokens,
        num_ranks,
        num_micro_batches(training.samples_per_step, num_ranks=num_ranks),
        first_step,
        training.num_steps,
    )


def _build_step_context(setup: _WorkerSetup, engine: DeepSpeedEngine) -> StepContext:
    config, group, sample_settings = setup.config, setup.group, setup.inputs.train_sample_settings
    training, token_ids = config.training, setup.vocabulary.token_ids()
    smoothing = build_smoothing(
        training,
        time_bytes=sample_settings.template.time_bytes,
        tick=sample_settings.store.tick,
        byte_ids=token_ids.byte_ids,
    )
    return StepContext(
        engine=engine,
        batcher=Batcher(
            image_pad=token_ids.image_pad,
            image_px=sample_settings.image_px,
            device=group.device,
            dtype=group.dtype,
            blank_frame=config.shows_blank_frame,
            image_format=engine.model.family.image_format,
        ),
        label_weights=LabelWeights(training.loss_weights, config.tasks),
        num_micro_batches=num_micro_batches(training.samples_per_step, num_ranks=group.num_ranks),
        seed=training.seed,
        smoothing=smoothing,
    )


def _build_monitor(setup: _WorkerSetup, engine: DeepSpeedEngine, start_up: StartUp) -> Monitor:
    config, inputs, group = setup.config, setup.inputs, setup.group
    peak, source = peak_flops(group.device, group.dtype)
    if group.rank == 0:
        logger.info("MFU is the fraction of %.3g TFLOP/s, %s", peak / 1e12, source)
    image_px = inputs.train_sample_settings.image_px
    return Monitor(
        telemetry=Telemetry(peak, start_up),
        flop_counter=FlopCounter(
            engine.model, image_px=image_px, blank_frame=config.shows_blank_frame
        ),
        tracker=build_rank_tracker(config.tracking, inputs.run, rank=group.rank),
        watchdog=_build_watchdog(inputs.run.run_uri, config.training.hang_timeout_s, group),
    )


def _build_watchdog(run_uri: str, hang_timeout_s: float, group: RankGroup) -> Watchdog:
    """Build the watchdog; it writes reports below the run's folder, where they outlive workers."""

    def keep_report(text: str) -> None:
        uri = join(run_uri, "hangs", f"{time.time():.0f}-rank-{group.rank}.txt")
        try:
            write_bytes(uri, text.encode())
        except StorageError as error:
            logger.warning("the report of the hang could not be written: %s", error)

    return Watchdog(
        rank=group.rank, num_ranks=group.num_ranks, timeout_s=hang_timeout_s, report=keep_report
    )


def _build_validation(
    setup: _WorkerSetup, step_context: StepContext, watchdog: Watchdog
) -> Validation | None:
    settings = setup.inputs.validation_sample_settings
    if settings is None:
        return None
    return Validation(
        settings=settings,
        inputs=setup.inputs,
        group=setup.group,
        vocabulary=setup.vocabulary,
        step_context=step_context,
        watchdog=watchdog,
    )


def _build_output(setup: _WorkerSetup, engine: DeepSpeedEngine) -> OutputWriter:
    config, inputs, group = setup.config, setup.inputs, setup.group
    has_companions = group.rank == 0 and not config.lora.rank
    return OutputWriter(
        engine=engine,
        rank=group.rank,
        vocabulary=setup.vocabulary,
        provenance=_build_provenance(config, inputs.trained_tasks, engine.model),
        companions=read_companions(config.model.path) if has_companions else {},
        uri=inputs.output_uri,
    )


def _build_provenance(
    config: RunConfig, trained_tasks: TrainedTasks | None, model: EventModel
) -> ModelProvenance:
    family, head = model.family, model.head
    return ModelProvenance(
        sections=config.sample_sections,
        model=config.model,
        lora=config.lora,
        training=config.training,
        trained_tasks=trained_tasks,
        backbone=CardBackbone(
            family.model_type,
            family.class_name,
            head.num_tokens if head.num_tokens > head.num_shared else 0,
        ),
    )
