"""The training loop: what every Ray Train worker runs. Everything else is a call away."""

import logging
import tempfile
from pathlib import Path

import numpy as np
import ray.train
import ray.train.torch
import torch

from mmtpp.config.job import start_logging
from mmtpp.config.load import config_from_tree
from mmtpp.core.order import num_micro_batches, share_of_rank
from mmtpp.core.scores import LossSums
from mmtpp.data.feed import iter_rows, rank_samples
from mmtpp.data.plan import load_plan
from mmtpp.model.batch import Batcher
from mmtpp.model.event_model import build_event_model, save_trained
from mmtpp.model.folder import local_folder
from mmtpp.model.lora import trainable_parameters
from mmtpp.model.vocabulary import Vocabulary
from mmtpp.storage.paths import copy_folder
from mmtpp.track.mlflow_tracker import MlflowTracker
from mmtpp.track.tracker import NullTracker, Tracker
from mmtpp.train.checkpoint import Progress, restore, save, saved_step
from mmtpp.train.engine import DeepSpeedEngine
from mmtpp.train.step import train_step
from mmtpp.train.task import Task
from mmtpp.train.telemetry import Telemetry
from mmtpp.train.validation import validate

logger = logging.getLogger(__name__)


def train_loop_per_worker(arguments: dict[str, Task]) -> dict[str, float]:
    """Train from the newest checkpoint, or from the start, to the last step.

    Returns:
        The metrics of the last step and of the validation, the same on all ranks.
    """
    task = arguments["task"]
    config = config_from_tree(task.config)
    training, num_steps = config.training, config.training.num_steps
    rank = ray.train.get_context().get_world_rank()
    num_ranks = ray.train.get_context().get_world_size()
    start_logging(f"[rank {rank}] ")
    device = ray.train.torch.get_device()
    dtype = torch.bfloat16 if task.precision == "bfloat16" else torch.float32
    vocabulary = Vocabulary(task.tokenizer_json)
    token_ids = vocabulary.token_ids()
    type_ids = torch.tensor(vocabulary.type_ids(task.type_codes), device=device)

    plan = load_plan(task.train_plan_uri)

    def place(step: int) -> Progress:
        return Progress(step, plan.fingerprint, vocabulary.hash)

    checkpoint = ray.train.get_checkpoint()
    step = saved_step(checkpoint, expected=place(0))
    samples = rank_samples(
        plan,
        seed=training.seed,
        first_step=step,
        num_steps=num_steps,
        samples_per_step=training.samples_per_step,
        rank=rank,
        num_ranks=num_ranks,
    )
    # the first samples are assembled while the model is built
    rows = iter_rows(plan, samples, task.train, token_ids)
    with local_folder(config.model.path) as folder:
        model = build_event_model(
            path=folder,
            vocabulary=vocabulary,
            lora_rank=config.lora.rank,
            lora_alpha=config.lora.alpha,
            lora_dropout=config.lora.dropout,
            activation_checkpointing=training.activation_checkpointing,
            seed=training.seed,
            dtype=dtype,
        ).to(device)
    num_trained, num_parameters = trainable_parameters(model.backbone)
    engine = DeepSpeedEngine(
        model, config, rank=rank, num_ranks=num_ranks, precision=task.precision, device=device
    )
    restore(engine, checkpoint, step=step)
    micro_batches = num_micro_batches(training.samples_per_step, num_ranks=num_ranks)
    share = len(share_of_rank(np.arange(training.samples_per_step), rank=rank, num_ranks=num_ranks))
    if rank == 0:
        logger.info("%d of %d parameters are trained", num_trained, num_parameters)
        logger.info(
            "a step = %d samples of up to %d tokens = %d workers x %d micro-batches; steps %d-%d",
            training.samples_per_step,
            config.window.max_tokens,
            num_ranks,
            micro_batches,
            step,
            num_steps,
        )
    batcher = Batcher(
        image_pad=token_ids.image_pad, image_px=task.train.image_px, device=device, dtype=dtype
    )
    telemetry = Telemetry(num_parameters, num_trained)
    tracker: Tracker = NullTracker() if rank else MlflowTracker.of_run(config.tracking, task.run)
    metrics: dict[str, float] = {}
    losses: list[LossSums] = []

    while step < num_steps:
        with telemetry.waiting_for_data():
            step_rows = [next(rows) for _ in range(share)]
        report = train_step(
            engine,
            step_rows,
            batcher,
            num_micro_batches=micro_batches,
            weights=training.loss_weights,
            seed=training.seed,
            step=step,
        )
        step += 1
        losses.append(report.losses)
        telemetry.add_step(report.num_tokens, int(report.losses.tokens.sum()))
        if step % training.log_every == 0 or step == num_steps:
            metrics = {
                **sum(losses[1:], losses[0]).per_token("train"),
                **telemetry.flush(),
                "train/grad_norm": report.grad_norm,
                "train/epoch": step * training.samples_per_step / len(plan.samples),
            }
            losses.clear()
            tracker.metrics(step, metrics)
            if rank == 0:
                left = (num_steps - step) * metrics["time/step_s"]
                logger.info(
                    "step %d/%d, loss %.4f, %.0f tokens/s, %.0f s left",
                    step,
                    num_steps,
                    metrics["train/loss_per_token"],
                    metrics["speed/tokens_per_s"],
                    left,
                )
        if step % training.checkpoint_every == 0 and step < num_steps:
            save(engine, place(step), rank=rank, metrics={"step": float(step)})

    if task.validation is not None:
        scores = validate(
            engine,
            task,
            batcher,
            token_ids=token_ids,
            type_ids=type_ids,
            rank=rank,
            num_ranks=num_ranks,
        )
        tracker.metrics(step, scores)
        metrics |= scores
    with engine.gathered(), tempfile.TemporaryDirectory() as output:
        if rank == 0:
            save_trained(engine.model, vocabulary, Path(output), base=config.model.path)
            copy_folder(output, task.output_uri)
    tracker.close("")
    save(engine, place(step), rank=rank, metrics={"step": float(step), **metrics})
    return metrics
