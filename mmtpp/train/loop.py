"""The training loop that every Ray Train worker runs."""

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

import ray.train

from mmtpp.core.representation.row import PackedRow
from mmtpp.core.training.loss_sums import LossSums
from mmtpp.runtime.logs import start_logging
from mmtpp.train.checkpoints.checkpoint import TrainingProgress, save_checkpoint
from mmtpp.train.outcome import STEP, Outcome
from mmtpp.train.ranks.watchdog import Stage
from mmtpp.train.step import StepReport, train_step
from mmtpp.train.trained_output import remove_other_bests, save_output
from mmtpp.train.validation import validate
from mmtpp.train.worker import Worker, build_worker
from mmtpp.train.worker_inputs import WorkerInputs, best_uri

logger = logging.getLogger(__name__)


def train(inputs: WorkerInputs, stop_request: Any) -> None:
    """Train from the newest checkpoint, or from the start, to the last step or a stop request.

    Args:
        inputs: What the driver sent.
        stop_request: Handle from ``runtime.interruptions.stops_on_sigterm``.
    """
    start_logging(f"[rank {ray.train.get_context().get_world_rank()}] ")
    worker = build_worker(inputs, stop_request)
    training, progress = worker.training, worker.progress
    if progress.step == training.num_steps:  # interrupted between last checkpoint and result
        _finish(worker, progress)
        return
    # the newest value of every metric: the report with the last checkpoint carries them to the
    # driver
    latest: dict[str, float] = {}
    losses: list[LossSums] = []  # of the steps since the last log line

    while progress.step < training.num_steps:
        rows = _next_rows(worker, progress.step)
        on_micro_batch = partial(worker.enter_micro_batch, progress.step)
        report = train_step(worker.step_context, rows, progress.step, on_micro_batch=on_micro_batch)
        progress = progress.after_step()
        is_last = progress.step == training.num_steps
        losses.append(report.losses)
        _count_step(worker, rows, report)
        if is_last or _is_due(progress.step, training.log_every):
            latest |= _log_step(worker, progress.step, report, losses)
            losses.clear()

        to_report: dict[str, float] = {}
        validates_now = is_last or _is_due(progress.step, training.validate_every)
        if inputs.validation_sample_settings and validates_now:
            validation = _validate(worker, progress.step)
            latest |= validation
            if training.validate_every:
                progress = _keep_if_best(worker, progress, validation)
            to_report = {**worker.constant_metrics, **latest, STEP: float(progress.step)}

        interruption = worker.interruptions.poll(worker.batcher.device)
        if interruption.stop_requested and not is_last:
            logger.warning("stopped after step %d on request", progress.step)
            break
        if not is_last:
            is_due = _is_due(progress.step, training.checkpoint_every)
            if is_due or interruption.machine_leaves:
                _save(worker, progress, to_report)
            elif to_report and inputs.reports_validation:
                _report(worker, progress.step, to_report)

    is_finished = progress.step == training.num_steps
    outcome = Outcome(progress.step, progress.best_step, is_finished)
    _save(worker, progress, latest | worker.constant_metrics | outcome.as_metrics(), wait=True)
    if is_finished:
        _finish(worker, progress)
    else:
        _close(worker)


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _next_rows(worker: Worker, step: int) -> list[PackedRow]:
    worker.watchdog.record_position(step, Stage.WAITING_FOR_DATA, "waiting for data")
    with worker.telemetry.waiting_for_data():
        rows = [next(worker.rows) for _ in range(worker.rows_per_step)]
    worker.watchdog.record_position(step, Stage.COMPUTING, "adding up the weights of all ranks")
    return rows


def _count_step(worker: Worker, rows: Sequence[PackedRow], report: StepReport) -> None:
    row_flops = sum(worker.flop_counter(row).total for row in rows)
    flops = worker.engine.num_gradient_passes * row_flops
    worker.telemetry.add_step(report.num_tokens, int(report.losses.num_labels.sum()), flops)


def _log_step(
    worker: Worker, step: int, report: StepReport, losses: Sequence[LossSums]
) -> dict[str, float]:
    """Log and return the metrics since the last log line."""
    training = worker.training
    metrics = {
        **sum(losses[1:], losses[0]).per_token("train"),
        **worker.telemetry.flush(),
        "train/workers": float(worker.num_ranks),
        "train/grad_norm": report.grad_norm,
        "train/learning_rate": report.learning_rate,
        "train/epoch": step * training.samples_per_step / len(worker.plan.samples),
    }
    worker.tracker.log_metrics(step, metrics)
    if worker.rank == 0:
        logger.info(
            "step %d/%d, loss %.4f, %.0f tokens/s, %.0f s left",
            step,
            training.num_steps,
            metrics["train/loss_per_token"],
            metrics["speed/tokens_per_s"],
            (training.num_steps - step) * metrics["time/step_s"],
        )
    return metrics


def _validate(worker: Worker, step: int) -> dict[str, float]:
    with worker.telemetry.validating():
        metrics = validate(worker, step)
    worker.tracker.log_metrics(step, metrics)
    return metrics


def _keep_if_best(
    worker: Worker, progress: TrainingProgress, validation: dict[str, float]
) -> TrainingProgress:
    """Keep this model next to the run's output if no earlier one has a better validation."""
    progress = progress.with_validation(validation)
    if progress.best_step == progress.step:
        worker.watchdog.record_position(
            progress.step, Stage.SAVING, "keeping the best", may_take_long=True
        )
        save_output(worker, best_uri(worker.inputs.output_uri, progress.step), steps=progress.step)
    return progress


def _save(
    worker: Worker, progress: TrainingProgress, metrics: dict[str, float], *, wait: bool = False
) -> None:
    worker.watchdog.record_position(
        progress.step, Stage.SAVING, "saving a checkpoint", may_take_long=True
    )
    with worker.telemetry.saving():
        save_checkpoint(
            worker.engine,
            progress,
            rank=worker.rank,
            run_uri=worker.inputs.run.run_uri,
            metrics=metrics,
            patience_s=worker.training.upload_timeout_s,
            wait=wait,
        )


def _report(worker: Worker, step: int, metrics: dict[str, float]) -> None:
    worker.watchdog.record_position(step, Stage.SAVING, "reporting", may_take_long=True)
    ray.train.report(metrics)


def _finish(worker: Worker, progress: TrainingProgress) -> None:
    """Write the result. Call this last: other ranks would wait for rank 0 and time out."""
    worker.watchdog.record_position(
        progress.step, Stage.SAVING, "writing the result", may_take_long=True
    )
    save_output(worker, worker.inputs.output_uri, steps=progress.step)
    if worker.rank == 0:
        remove_other_bests(worker.inputs, kept=progress.best_step)
    _close(worker)


def _close(worker: Worker) -> None:
    worker.tracker.detach()
    worker.watchdog.stop()
