"""What a Ray Train worker is made of: samples, model, engine and tracker, put together once."""

import logging
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
import ray.train.collective
import ray.train.torch
import torch
from ray.train import Checkpoint

from mmtpp.config.load import config_from_tree
from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import StorageError
from mmtpp.core.row import Row
from mmtpp.core.sample_order import num_micro_batches, share_of_rank
from mmtpp.core.time_smoothing import TimeSmoothing
from mmtpp.data.samples.feed import iter_rows, rank_samples
from mmtpp.data.samples.plan import Plan, load_plan
from mmtpp.model.batch import Batcher
from mmtpp.model.card import write_card
from mmtpp.model.companions import read_companions
from mmtpp.model.cpu_bfloat16 import adapt_to_processor
from mmtpp.model.event_model import EventModel, build_event_model, save_trained
from mmtpp.model.flops import FlopCounter, peak_flops
from mmtpp.model.folder import local_folder
from mmtpp.model.lora import trainable_parameters
from mmtpp.model.record import write_template
from mmtpp.model.vocabulary import Vocabulary
from mmtpp.runtime.hardware import check_same_gpus
from mmtpp.storage.paths import (
    copy_folder,
    filesystem_of,
    join,
    list_files,
    remove_folder,
    write_bytes,
)
from mmtpp.track.mlflow_tracker import MlflowTracker
from mmtpp.track.tracker import NullTracker, Tracker
from mmtpp.train.checkpoint import Progress, remove_leftovers, restore, saved_progress
from mmtpp.train.engine import DeepSpeedEngine, Engine
from mmtpp.train.notices import Notices
from mmtpp.train.step import LabelWeights, smoothing_of
from mmtpp.train.task import Task, best_uri
from mmtpp.train.telemetry import Telemetry
from mmtpp.train.watchdog import Watchdog
from mmtpp.train.zero import deepspeed_config, stage_of
from mmtpp.train.zero3_loading import Zero3Sharding

logger = logging.getLogger(__name__)

VALIDATING, SAVING = 10**6, 2 * 10**6  # places within a step, after its micro-batches


@dataclass(frozen=True, slots=True)
class Worker:
    """One rank, ready for its first step.

    Attributes:
        task: what the driver asked for.
        config: the same as an object.
        rank: of this worker.
        num_ranks: workers in the group.
        vocabulary: of store and model.
        plan: of the training samples.
        progress: where the run stands.
        figures: of data and model, the same at every step.
        rows: this rank's samples from there on, in order.
        share: how many of them it consumes in a step.
        num_micro_batches: of every rank in a step.
        engine: holds the model.
        batcher: moves rows to the device.
        weigh: weighs the labels.
        smoothing: spreads the labels of intervals; None where they stay as they are.
        flops: counts the operations of rows.
        telemetry: of this rank.
        tracker: of the run on rank 0, of nothing elsewhere.
        watchdog: knows where this rank is.
        notices: what it hears from outside.
        companions: Small files of the base that come with a whole model; read on rank 0 when
            training begins.
    """

    task: Task
    config: RunConfig
    rank: int
    num_ranks: int
    vocabulary: Vocabulary
    plan: Plan
    progress: Progress
    figures: dict[str, float]
    rows: Iterator[Row]
    share: int
    num_micro_batches: int
    engine: Engine
    batcher: Batcher
    weigh: LabelWeights
    smoothing: TimeSmoothing | None
    flops: FlopCounter
    telemetry: Telemetry
    tracker: Tracker
    watchdog: Watchdog
    notices: Notices
    companions: dict[str, bytes]

    def is_at_micro_batch(self, step: int, index: int) -> None:
        """Tell the watchdog."""
        self.watchdog.at(step, 1 + index, f"computing micro-batch {index + 1}")


def set_up(task: Task, stop_request: Any) -> Worker:
    """Build this rank and restore the newest checkpoint of the run.

    Raises:
        ModelError: model, vocabulary, plan and checkpoint do not belong together.
        ClusterError: the ranks have different GPUs.
    """
    config = config_from_tree(task.config)
    training = config.training
    context = ray.train.get_context()
    rank, num_ranks = context.get_world_rank(), context.get_world_size()
    device = ray.train.torch.get_device()
    if device.type == "cuda":
        names: list[str] = [""] * num_ranks
        torch.distributed.all_gather_object(names, torch.cuda.get_device_name(device))
        check_same_gpus(names, training.machine_labels)
    dtype = torch.bfloat16 if task.precision == "bfloat16" else torch.float32
    adapt_to_processor(device, dtype)
    vocabulary = Vocabulary(task.tokenizer_json)
    token_ids = vocabulary.token_ids()
    plan = load_plan(task.train_plan_uri)
    if context.get_local_rank() == 0:  # the others of this machine do not save before a barrier
        remove_leftovers(task.run.run_uri)
    checkpoint, checkpoint_run_uri = ray.train.get_checkpoint(), task.run.run_uri
    is_foreign = checkpoint is None and bool(task.start_uri)
    if is_foreign:
        filesystem, path = filesystem_of(task.start_uri)
        checkpoint = Checkpoint(path, filesystem)
        checkpoint_run_uri = task.start_uri.rpartition("/")[0]
    progress = saved_progress(checkpoint, expected=Progress(0, plan.fingerprint, vocabulary.hash))
    if is_foreign:  # the other run's best model is not in this run's folder
        progress = replace(progress, best_step=0, best_loss=0.0)
    samples = rank_samples(
        plan,
        seed=training.seed,
        first_step=progress.step,
        num_steps=training.num_steps,
        samples_per_step=training.samples_per_step,
        rank=rank,
        num_ranks=num_ranks,
    )
    # the first samples are assembled while the model is built
    rows = iter_rows(plan, samples, task.train, token_ids)
    tree = deepspeed_config(
        config, num_ranks=num_ranks, precision=task.precision, on_gpu=device.type == "cuda"
    )
    model = _build_model(config, vocabulary, tree, device=device, dtype=dtype)
    num_trained, num_parameters = trainable_parameters(model.backbone)
    engine = DeepSpeedEngine(model, config, tree, rank=rank, num_ranks=num_ranks)
    restore(
        engine,
        checkpoint,
        run_uri=checkpoint_run_uri,
        step=progress.step,
        ready=ray.train.collective.barrier,
    )
    peak, source = peak_flops(device, dtype)
    micro_batches = num_micro_batches(training.samples_per_step, num_ranks=num_ranks)
    if rank == 0:
        logger.info("%d of %d parameters are trained", num_trained, num_parameters)
        logger.info("MFU is the share of %.3g TFLOP/s, %s", peak / 1e12, source)
        logger.info(
            "a step = %d samples of up to %d tokens = %d workers x %d micro-batches; steps %d-%d",
            training.samples_per_step,
            config.window.max_tokens,
            num_ranks,
            micro_batches,
            progress.step,
            training.num_steps,
        )
    step_samples = np.arange(training.samples_per_step)
    return Worker(
        task=task,
        config=config,
        rank=rank,
        num_ranks=num_ranks,
        vocabulary=vocabulary,
        plan=plan,
        progress=progress,
        figures={**plan.figures(), "model/trained_parameters": float(num_trained)},
        rows=rows,
        share=len(share_of_rank(step_samples, rank=rank, num_ranks=num_ranks)),
        num_micro_batches=micro_batches,
        engine=engine,
        batcher=Batcher(
            image_pad=token_ids.image_pad,
            image_px=task.train.image_px,
            device=device,
            dtype=dtype,
            blank_frame=config.shows_images,
        ),
        weigh=LabelWeights(training.loss_weights, config.tasks),
        smoothing=smoothing_of(config, tick=task.tick, byte_ids=token_ids.byte_ids),
        flops=FlopCounter(model, image_px=task.train.image_px, blank_frame=config.shows_images),
        telemetry=Telemetry(peak),
        tracker=NullTracker() if rank else MlflowTracker.from_run(config.tracking, task.run),
        watchdog=Watchdog(
            rank=rank,
            num_ranks=num_ranks,
            timeout_s=training.hang_timeout_s,
            report=lambda text: _keep_report(task, rank, text),
        ),
        notices=Notices(stop_request),
        companions={} if rank or config.lora.rank else read_companions(config.model.path),
    )


def _keep_report(task: Task, rank: int, text: str) -> None:
    """Of a hang, below the run's folder: the workers and their logs will be gone."""
    uri = join(task.run.run_uri, "hangs", f"{time.time():.0f}-rank-{rank}.txt")
    try:
        write_bytes(uri, text.encode())
    except StorageError as error:
        logger.warning("the report of the hang is not kept: %s", error)


def _build_model(
    config: RunConfig,
    vocabulary: Vocabulary,
    deepspeed: dict[str, object],
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> EventModel:
    with local_folder(config.model.path) as folder, local_folder(config.model.adapter) as adapter:
        # machines that have to copy it first take minutes, which collectives do not wait
        ray.train.collective.barrier()
        return build_event_model(
            path=folder,
            adapter=adapter,
            vocabulary=vocabulary,
            lora_rank=config.lora.rank,
            lora_alpha=config.lora.alpha,
            lora_dropout=config.lora.dropout,
            freeze_vision=not config.trains_vision,
            activation_checkpointing=config.training.activation_checkpointing,
            seed=config.training.seed,
            dtype=dtype,
            sharding=Zero3Sharding(deepspeed) if stage_of(deepspeed) == 3 else None,
            tiny_width=config.model.tiny_width,
            tiny_layers=config.model.tiny_layers,
        ).to(device)


def save_output(worker: Worker, uri: str, *, steps: int) -> None:
    """Write the adapter or model as it is now, trained for ``steps``; a call for all ranks."""
    parameters = worker.engine.whole_parameters()
    if worker.rank:
        return
    with tempfile.TemporaryDirectory() as folder:
        save_trained(
            worker.engine.model,
            worker.vocabulary,
            Path(folder),
            base=worker.config.model.path,
            parameters=parameters,
            companions=worker.companions,
        )
        write_template(worker.config, Path(folder), worker.task.answers)
        write_card(worker.config, Path(folder), worker.task.answers, steps=steps)
        copy_folder(folder, uri)


def remove_other_bests(task: Task, *, kept: int) -> None:
    """Delete what was the best model for a while.

    Only at the end: an earlier checkpoint, from which the run might have gone on, still named it.
    """
    folder, _, name = best_uri(task, kept).rpartition("/")
    prefix = name.removesuffix(f"{kept:06d}")
    found = {info.path.rpartition("/")[0].rpartition("/")[2] for info in list_files(folder, "")}
    for each in sorted(found):
        if each.startswith(prefix) and each != name:
            remove_folder(join(folder, each))
