"""The parts of a Ray Train worker: samples, model, engine and tracker, put together once."""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import ray.train
import ray.train.collective
import ray.train.torch
from ray.train import Checkpoint

from mmtpp.config.load import config_from_tree
from mmtpp.config.schema import RunConfig, TaskWeights, TrainingSection
from mmtpp.core.errors import StorageError
from mmtpp.core.representation.row import PackedRow
from mmtpp.core.training.sample_order import num_micro_batches, share_of_rank
from mmtpp.core.training.training_metrics import TRAINED_PARAMETERS
from mmtpp.data.samples.feed import iter_rows, rank_samples
from mmtpp.data.samples.plan import Plan, load_plan
from mmtpp.data.samples.sample_settings import SampleSettings
from mmtpp.model.batch import Batcher
from mmtpp.model.event_model import EventModel
from mmtpp.model.flops import FlopCounter, peak_flops
from mmtpp.model.folders.card import CardBackbone, ModelProvenance
from mmtpp.model.folders.companions import read_companions
from mmtpp.model.folders.record import TrainedTasks
from mmtpp.model.parameters.lora import trainable_parameters
from mmtpp.model.tokens.vocabulary import Vocabulary
from mmtpp.storage.filesystems import filesystem_of
from mmtpp.storage.paths import join, write_bytes
from mmtpp.track.tracker import Tracker
from mmtpp.train.checkpoints.checkpoint import (
    TrainingProgress,
    load_progress,
    restore_checkpoint,
)
from mmtpp.train.checkpoints.local_checkpoint import remove_leftovers
from mmtpp.train.engine.build_engine import EngineSections, build_engine
from mmtpp.train.engine.deepspeed_engine import DeepSpeedEngine
from mmtpp.train.ranks.interruption_poll import InterruptionPoll
from mmtpp.train.ranks.rank_group import RankGroup, join_group
from mmtpp.train.ranks.rank_tracker import rank_tracker
from mmtpp.train.ranks.watchdog import Stage, Watchdog
from mmtpp.train.step import LabelWeights, StepContext, build_smoothing
from mmtpp.train.telemetry import Telemetry
from mmtpp.train.worker_inputs import WorkerInputs

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Worker:
    """One rank, ready for its first step.

    Attributes:
        inputs: What the driver sent.
        training: Settings of the training loop.
        provenance: Settings that the folder of the trained model records.
        rank: Rank of this worker.
        num_ranks: Number of ranks in the group.
        vocabulary: Vocabulary of store and model.
        plan: Plan of the training samples.
        progress: Progress of the run at the first step of this worker.
        constant_metrics: Metrics of data and model, the same at every step.
        rows: This rank's rows from the first step on, in order.
        rows_per_step: Number of rows that this rank consumes in a step.
        step_context: Engine and settings of every step.
        flop_counter: Counts the operations of rows.
        telemetry: Times of this rank.
        tracker: Tracker of the run on rank 0; records nothing on other ranks.
        watchdog: Thread that reports a hanging rank.
        interruptions: Polled after every step.
        companions: Small files of the base model that belong to a whole model; read on rank 0 when
            training begins.
    """

    inputs: WorkerInputs
    training: TrainingSection
    provenance: ModelProvenance
    rank: int
    num_ranks: int
    vocabulary: Vocabulary
    plan: Plan
    progress: TrainingProgress
    constant_metrics: dict[str, float]
    rows: Iterator[PackedRow]
    rows_per_step: int
    step_context: StepContext
    flop_counter: FlopCounter
    telemetry: Telemetry
    tracker: Tracker
    watchdog: Watchdog
    interruptions: InterruptionPoll
    companions: dict[str, bytes]

    @property
    def engine(self) -> DeepSpeedEngine:
        """The engine that holds the model."""
        return self.step_context.engine

    @property
    def batcher(self) -> Batcher:
        """Moves rows to the device."""
        return self.step_context.batcher

    def enter_micro_batch(self, step: int, index: int) -> None:
        """Report to the watchdog that a micro-batch begins."""
        self.watchdog.record_position(
            step, Stage.COMPUTING, f"computing micro-batch {index + 1}", index=1 + index
        )


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


def build_worker(inputs: WorkerInputs, stop_request: Any) -> Worker:
    """Build this rank and restore the newest checkpoint of the run.

    Raises:
        ModelError: Model, vocabulary, plan and checkpoint do not fit each other.
        ClusterError: The ranks have different GPUs.
    """
    config = config_from_tree(inputs.config)
    training, lora = config.training, config.lora
    group = join_group(training, inputs.precision)
    vocabulary = Vocabulary(inputs.tokenizer_json)
    plan = load_plan(inputs.train_plan_uri)
    if ray.train.get_context().get_local_rank() == 0:  # no rank saves before the next barrier
        remove_leftovers(inputs.run.run_uri)
    start = _find_start(inputs, TrainingProgress(0, plan.fingerprint, vocabulary.hash))
    # the first rows are assembled while the model is built
    rows = _rows_of_rank(training, inputs, plan, vocabulary, group, start.progress.step)
    sections = EngineSections(
        model=config.model,
        lora=lora,
        training=training,
        optimizer=config.optimizer,
        optimizer_precision=config.optimizer_precision,
        zero=config.zero,
        trains_vision=config.trains_vision,
        soft=inputs.soft,
    )
    model, engine = build_engine(sections, vocabulary, group, inputs.precision)
    _restore(engine, start)
    num_trained, num_parameters = trainable_parameters(model)
    peak, source = peak_flops(group.device, group.dtype)
    is_first = group.rank == 0
    if is_first:
        logger.info("%d of %d parameters are trained", num_trained, num_parameters)
        logger.info("MFU is the fraction of %.3g TFLOP/s, %s", peak / 1e12, source)
        _log_step_size(
            training, inputs.train_sample_settings.max_tokens, group.num_ranks, start.progress.step
        )
    return Worker(
        inputs=inputs,
        training=training,
        provenance=_build_provenance(config, inputs.trained_tasks, model),
        rank=group.rank,
        num_ranks=group.num_ranks,
        vocabulary=vocabulary,
        plan=plan,
        progress=start.progress,
        constant_metrics={**plan.metrics(), TRAINED_PARAMETERS: float(num_trained)},
        rows=rows,
        rows_per_step=_rows_per_step(training.samples_per_step, group),
        step_context=_build_step_context(training, config.tasks, inputs, vocabulary, group, engine),
        flop_counter=_build_flop_counter(model, inputs.train_sample_settings),
        telemetry=Telemetry(peak),
        tracker=rank_tracker(config.tracking, inputs.run, rank=group.rank),
        watchdog=_build_watchdog(inputs.run.run_uri, training.hang_timeout_s, group),
        interruptions=InterruptionPoll(stop_request),
        companions=read_companions(config.model.path) if is_first and not lora.rank else {},
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


def _rows_of_rank(
    training: TrainingSection,
    inputs: WorkerInputs,
    plan: Plan,
    vocabulary: Vocabulary,
    group: RankGroup,
    first_step: int,
) -> Iterator[PackedRow]:
    samples = rank_samples(
        plan,
        seed=training.seed,
        first_step=first_step,
        end_step=training.num_steps,
        samples_per_step=training.samples_per_step,
        rank=group.rank,
        num_ranks=group.num_ranks,
    )
    return iter_rows(plan, samples, inputs.train_sample_settings, vocabulary.token_ids())


def _rows_per_step(samples_per_step: int, group: RankGroup) -> int:
    samples = np.arange(samples_per_step)
    return len(share_of_rank(samples, rank=group.rank, num_ranks=group.num_ranks))


def _restore(engine: DeepSpeedEngine, start: _Start) -> None:
    restore_checkpoint(
        engine,
        start.checkpoint,
        run_uri=start.run_uri,
        step=start.progress.step,
        wait_for_ranks=ray.train.collective.barrier,
    )


def _build_flop_counter(model: EventModel, settings: SampleSettings) -> FlopCounter:
    return FlopCounter(model, image_px=settings.image_px, blank_frame=settings.shows_images)


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


def _build_step_context(
    training: TrainingSection,
    tasks: TaskWeights,
    inputs: WorkerInputs,
    vocabulary: Vocabulary,
    group: RankGroup,
    engine: DeepSpeedEngine,
) -> StepContext:
    token_ids = vocabulary.token_ids()
    smoothing = build_smoothing(
        training,
        time_bytes=inputs.train_sample_settings.template.time_bytes,
        tick=inputs.train_sample_settings.store.tick,
        byte_ids=token_ids.byte_ids,
    )
    return StepContext(
        engine=engine,
        batcher=Batcher(
            image_pad=token_ids.image_pad,
            image_px=inputs.train_sample_settings.image_px,
            device=group.device,
            dtype=group.dtype,
            blank_frame=inputs.train_sample_settings.shows_images,
            image_format=engine.model.family.image_format,
        ),
        label_weights=LabelWeights(training.loss_weights, tasks),
        num_micro_batches=num_micro_batches(training.samples_per_step, num_ranks=group.num_ranks),
        seed=training.seed,
        smoothing=smoothing,
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
