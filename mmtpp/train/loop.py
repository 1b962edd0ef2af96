"""The training loop: what every Ray Train worker runs. Everything else is a call away."""

import logging
from functools import partial
from typing import Any

import ray.train

from mmtpp.core.loss_sums import LossSums
from mmtpp.runtime.logs import start_logging
from mmtpp.train.checkpoint import Progress, save
from mmtpp.train.step import train_step
from mmtpp.train.task import Task, best_uri
from mmtpp.train.validation import validate
from mmtpp.train.worker import SAVING, Worker, remove_other_bests, save_output, set_up

logger = logging.getLogger(__name__)


def train(task: Task, stop_request: Any) -> dict[str, float]:
    """Train from the newest checkpoint, or from the start, to the last step or a request to stop.

    Args:
        task: what to train.
        stop_request: what ``stopping.stops_on_sigterm`` made.

    Returns:
        The metrics of the last step and of the last validation, the same on all ranks; none if the
        run had been finished.
    """
    start_logging(f"[rank {ray.train.get_context().get_world_rank()}] ")
    worker = set_up(task, stop_request)
    training, num_steps = worker.config.training, worker.config.training.num_steps
    progress = worker.progress
    if progress.step == num_steps:  # interrupted after its last checkpoint
        _finish(worker, progress)
        return {}
    newest: dict[str, float] = {}  # the last value of every metric, for the result
    losses: list[LossSums] = []

    while progress.step < num_steps:
        worker.watchdog.at(progress.step, 0, "waiting for data")
        with worker.telemetry.waiting_for_data():
            rows = [next(worker.rows) for _ in range(worker.share)]
        report = train_step(
            worker.engine,
            rows,
            worker.batcher,
            num_micro_batches=worker.num_micro_batches,
            weigh=worker.weigh,
            seed=training.seed,
            step=progress.step,
            moved=partial(worker.is_at_micro_batch, progress.step),
            smoothing=worker.smoothing,
        )
        progress = progress.after_step()
        losses.append(report.losses)
        flops = len(worker.engine.passes) * sum(worker.flops(row).total for row in rows)
        worker.telemetry.add_step(report.num_tokens, int(report.losses.tokens.sum()), flops)
        last = progress.step == num_steps
        if last or progress.step % training.log_every == 0:
            logged = {
                **sum(losses[1:], losses[0]).per_token("train"),
                **worker.telemetry.flush(),
                "train/workers": float(worker.num_ranks),
                "train/grad_norm": report.grad_norm,
                "train/learning_rate": report.learning_rate,
                "train/epoch": progress.step * training.samples_per_step / len(worker.plan.samples),
            }
            losses.clear()
            _log(worker, progress.step, logged)
            newest |= logged
        reported: dict[str, float] = {}
        if worker.task.validation and (last or _is_due(progress.step, training.validate_every)):
            with worker.telemetry.validating():
                scores = validate(worker, progress.step)
            worker.tracker.log_metrics(progress.step, scores)
            newest |= scores
            if training.validate_every:
                progress = _keep_if_best(worker, progress, scores)
            reported = {**worker.figures, **newest, "step": float(progress.step)}
        heard = worker.notices.listen(worker.batcher.device)
        if heard.is_to_stop and not last:
            logger.warning("stopped after step %d, as asked", progress.step)
            break
        is_due = _is_due(progress.step, training.checkpoint_every)
        if not last and (heard.loses_machines or is_due):
            _save(worker, progress, reported)
        elif not last and reported and worker.task.reports_validation:
            worker.watchdog.at(progress.step, SAVING, "reporting", may_take_long=True)
            ray.train.report(reported)

    newest |= worker.figures
    newest |= {"step": float(progress.step), "best_step": float(progress.best_step)}
    _save(worker, progress, newest, wait=True)
    if progress.step == num_steps:
        _finish(worker, progress)
    else:
        _close(worker)
    return newest


def _finish(worker: Worker, progress: Progress) -> None:
    """Write the result. Last, or ranks that wait for rank 0 in a collective would give up."""
    worker.watchdog.at(progress.step, SAVING, "writing the result", may_take_long=True)
    save_output(worker, worker.task.output_uri, steps=progress.step)
    if worker.rank == 0:
        remove_other_bests(worker.task, kept=progress.best_step)
    _close(worker)


def _close(worker: Worker) -> None:
    worker.tracker.close("")
    worker.watchdog.stop()


def _save(
    worker: Worker, progress: Progress, metrics: dict[str, float], *, wait: bool = False
) -> None:
    worker.watchdog.at(progress.step, SAVING, "saving a checkpoint", may_take_long=True)
    with worker.telemetry.saving():
        save(
            worker.engine,
            progress,
            rank=worker.rank,
            run_uri=worker.task.run.run_uri,
            metrics=metrics,
            patience_s=worker.config.training.upload_patience_s,
            wait=wait,
        )


def _keep_if_best(worker: Worker, progress: Progress, scores: dict[str, float]) -> Progress:
    """Keep this model beside the run's output if it scores better than those before."""
    after = progress.with_scores(scores)
    if after.best_step == progress.step:
        worker.watchdog.at(progress.step, SAVING, "keeping the best", may_take_long=True)
        save_output(worker, best_uri(worker.task, progress.step), steps=progress.step)
    return after


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _log(worker: Worker, step: int, metrics: dict[str, float]) -> None:
    worker.tracker.log_metrics(step, metrics)
    if worker.rank == 0:
        logger.info(
            "step %d/%d, loss %.4f, %.0f tokens/s, %.0f s left",
            step,
            worker.config.training.num_steps,
            metrics["train/loss_per_token"],
            metrics["speed/tokens_per_s"],
            (worker.config.training.num_steps - step) * metrics["time/step_s"],
        )
