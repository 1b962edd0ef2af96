"""The training loop that every Ray Train worker of a language model runs."""

import logging
from collections.abc import Sequence
from typing import Any

import ray.train

from mmtpp.core.training.loss_sums import LossSums
from mmtpp.runtime.logs import start_logging
from mmtpp.train.build_worker import build_worker
from mmtpp.train.checkpoints.checkpoint import TrainingProgress
from mmtpp.train.outcome import TrainingOutcome
from mmtpp.train.ranks.rank_tracker import log_start_up
from mmtpp.train.ranks.watchdog import Stage
from mmtpp.train.step import StepReport, train_step
from mmtpp.train.validation import Validation
from mmtpp.train.worker import Worker
from mmtpp.train.worker_inputs import WorkerInputs

logger = logging.getLogger(__name__)


def train(inputs: WorkerInputs, stop_request: Any) -> None:
    """Train from the newest checkpoint, or from the start, to the last step or a stop request.

    Args:
        inputs: What the driver sent.
        stop_request: Handle from ``runtime.interruptions.stops_on_sigterm``.
    """
    start_logging(f"[rank {ray.train.get_context().get_world_rank()}] ")
    worker = build_worker(inputs, stop_request)
    run_loop(worker)


def run_loop(worker: Worker) -> None:
    """Train from the progress of a worker to the last step or a stop request.

    Args:
        worker: This rank.
    """
    training, metrics, progress = worker.training, worker.metrics, worker.start_progress
    if progress.step == training.num_steps:  # interrupted between last checkpoint and result
        _finish(worker, progress)
        return
    losses: list[LossSums] = []  # of the steps since the last log line

    while progress.step < training.num_steps:
        report = _update(worker, progress.step)
        progress = progress.after_step()
        is_last = progress.step == training.num_steps
        losses.append(report.losses)
        if is_last or _is_due(progress.step, training.log_every):
            metrics.record(_log_step(worker, progress.step, report, losses))
            losses.clear()

        to_report: dict[str, float] = {}
        validates_now = is_last or _is_due(progress.step, training.validate_every)
        if worker.validation is not None and validates_now:
            validated = _validate(worker, worker.validation, progress.step)
            metrics.record(validated)
            if training.validate_every:
                progress = _keep_if_best(worker, progress, validated)
            to_report = metrics.after_validation(progress.step)

        interruption = worker.interruptions.poll(worker.group.device)
        if interruption.stop_requested and not is_last:
            logger.warning("stopped after step %d on request", progress.step)
            break
        if not is_last:
            is_due = _is_due(progress.step, training.checkpoint_every)
            if is_due or interruption.machine_leaves:
                _save(worker, progress, to_report)
            elif to_report and worker.reports_validation:
                _report(worker, progress.step, to_report)

    is_finished = progress.step == training.num_steps
    outcome = TrainingOutcome(progress.step, progress.best_step, is_finished)
    _save(worker, progress, metrics.at_end(outcome), wait=True)
    if is_finished:
        _finish(worker, progress)
    else:
        _close(worker)


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _update(worker: Worker, step: int) -> StepReport:
    """Wait for the rows of a step, update the model, and count what was computed."""
    monitor, context = worker.monitor, worker.step_context
    monitor.watchdog.record_position(step, Stage.WAITING_FOR_DATA, "waiting for data")
    with monitor.telemetry.waiting_for_data():
        rows = worker.rows.next_step()
    monitor.watchdog.record_position(step, Stage.COMPUTING, "adding up the weights of all ranks")

    def enter_micro_batch(index: int) -> None:
        monitor.watchdog.record_position(
            step, Stage.COMPUTING, f"computing micro-batch {index + 1}", index=1 + index
        )

    report = train_step(context, rows, step, on_micro_batch=enter_micro_batch)
    row_flops = sum(monitor.flop_counter(row).total for row in rows)
    flops = context.engine.num_gradient_passes * row_flops
    monitor.telemetry.add_step(report.num_tokens, int(report.losses.num_labels.sum()), flops)
    if step == worker.start_progress.step:  # the first step ends the start-up
        start_up, rank = monitor.telemetry.start_up, worker.group.rank
        log_start_up(start_up, monitor.tracker, rank=rank, step=step + 1)
    return report


def _log_step(
    worker: Worker, step: int, report: StepReport, losses: Sequence[LossSums]
) -> dict[str, float]:
    """Log and return the metrics since the last log line."""
    training = worker.training
    metrics = {
        **sum(losses[1:], losses[0]).per_token("train"),
        **worker.monitor.telemetry.flush(),
        "train/workers": float(worker.group.num_ranks),
        "train/grad_norm": report.grad_norm,
        "train/learning_rate": report.learning_rate,
        "train/epoch": step * training.samples_per_step / worker.rows.samples_per_epoch,
    }
    worker.monitor.tracker.log_metrics(step, metrics)
    if worker.group.rank == 0:
        logger.info(
            "step %d/%d, loss %.4f, %.0f tokens/s, %.0f s left",
            step,
            training.num_steps,
            metrics["train/loss_per_token"],
            metrics["speed/tokens_per_s"],
            (training.num_steps - step) * metrics["time/step_s"],
        )
    return metrics


def _validate(worker: Worker, validation: Validation, step: int) -> dict[str, float]:
    with worker.monitor.telemetry.validating():
        metrics = validation.run(step)
    worker.monitor.tracker.log_metrics(step, metrics)
    return metrics


def _keep_if_best(
    worker: Worker, progress: TrainingProgress, validated: dict[str, float]
) -> TrainingProgress:
    """Keep this model next to the run's output if no earlier one has a better validation."""
    progress = progress.with_validation(validated)
    if progress.best_step == progress.step:
        _enter_saving(worker, progress.step, "keeping the best")
        with worker.monitor.telemetry.saving():
            worker.output.save_best(steps=progress.step)
    return progress


def _enter_saving(worker: Worker, step: int, activity: str) -> None:
    worker.monitor.watchdog.record_position(step, Stage.SAVING, activity, may_take_long=True)


def _save(
    worker: Worker, progress: TrainingProgress, metrics: dict[str, float], *, wait: bool = False
) -> None:
    _enter_saving(worker, progress.step, "saving a checkpoint")
    with worker.monitor.telemetry.saving():
        worker.checkpoints.save(progress, metrics, wait=wait)


def _report(worker: Worker, step: int, metrics: dict[str, float]) -> None:
    _enter_saving(worker, step, "reporting")
    with worker.monitor.telemetry.saving():
        worker.checkpoints.report(metrics)


def _finish(worker: Worker, progress: TrainingProgress) -> None:
    """Write the result. Call this last: other ranks would wait for rank 0 and time out."""
    _enter_saving(worker, progress.step, "writing the result")
    worker.output.save(steps=progress.step)
    worker.output.remove_other_bests(kept=progress.best_step)
    _close(worker)


def _close(worker: Worker) -> None:
    worker.monitor.tracker.detach()
    worker.monitor.watchdog.stop()
