"""The training of a temporal expert that every Ray Train worker runs.

Every rank reads the times, types, words and small images of all sequences, and computes its part of
every batch.
"""

import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
import torch
from torch.nn.parallel import DistributedDataParallel

from mmtpp.expert.expert_folder import Expert
from mmtpp.expert.fit import ExpertFit
from mmtpp.expert.network_losses import NetworkLosses, Ranks
from mmtpp.model.folders.card import CARD_FILE
from mmtpp.model.folders.record import write_tasks
from mmtpp.model.tokens.vocabulary import Vocabulary
from mmtpp.runtime.logs import start_logging
from mmtpp.runtime.start_up import StartUp
from mmtpp.storage.paths import copy_folder
from mmtpp.track.tracker import Tracker
from mmtpp.train.build_expert_fit import build_expert, build_fit, with_surprise_limit
from mmtpp.train.checkpoints.expert_checkpoint import (
    restore_expert_checkpoint,
    save_expert_checkpoint,
)
from mmtpp.train.checkpoints.local_checkpoint import remove_leftovers
from mmtpp.train.expert_inputs import ExpertInputs
from mmtpp.train.expert_metrics import final_metrics, validation_metrics, warn_below_marginal
from mmtpp.train.outcome import STEP, TrainingOutcome
from mmtpp.train.ranks.interruption_poll import InterruptionPoll
from mmtpp.train.ranks.rank_sums import sum_tensor_over_ranks
from mmtpp.train.ranks.rank_tracker import build_rank_tracker, log_start_up

logger = logging.getLogger(__name__)


def train_expert(inputs: ExpertInputs, stop_request: Any) -> None:
    """Train an expert from its newest checkpoint, or from the start, to its end or a stop request.

    Args:
        inputs: What the driver sent.
        stop_request: Handle from ``runtime.interruptions.stops_on_sigterm``.
    """
    training = _begin(inputs, stop_request)
    fit = training.fit
    latest: dict[str, float] = {}  # of the last validation; the last report carries it
    while not fit.is_finished:
        training.step()
        interruption = training.interruptions.poll(torch.device("cpu"))
        network = fit.progress.network  # before the validation, which may begin the next one
        validation = training.validate_if_due()
        if validation is not None:
            latest = validation
        if fit.is_finished or interruption.stop_requested:
            break  # the report of the outcome saves the state
        # a network takes a minute or two, so a lost machine costs no more
        network_has_ended = fit.progress.network > network
        training.report(validation, saves=network_has_ended or interruption.machine_leaves)
    _end(training, latest)


def _begin(inputs: ExpertInputs, stop_request: Any) -> "_RankTraining":
    """Read the sequences, and continue from the newest checkpoint, if there is one."""
    context = ray.train.get_context()
    rank, num_ranks = context.get_world_rank(), context.get_world_size()
    start_logging(f"[rank {rank}] ")
    if context.get_local_rank() == 0:
        remove_leftovers(inputs.run.run_uri)
    fit = build_fit(inputs, _build_ranks(rank, num_ranks))
    restore_expert_checkpoint(fit, inputs)
    tracker = build_rank_tracker(inputs.tracking, inputs.run, rank=rank)
    return _RankTraining(
        rank=rank,
        inputs=inputs,
        fit=fit,
        tracker=tracker,
        interruptions=InterruptionPoll(stop_request),
        progress_log=_ProgressLog(tracker, every=inputs.log_every),
        start_up=inputs.start_up.with_part("sequences"),
    )


def _build_ranks(rank: int, num_ranks: int) -> Ranks:
    if num_ranks == 1:
        return Ranks()
    return Ranks(rank, num_ranks, DistributedDataParallel, sum_tensor_over_ranks)


def _end(training: "_RankTraining", latest: dict[str, float]) -> None:
    """Write a finished expert, and report the outcome with the state.

    Args:
        training: The training, finished or stopped.
        latest: Metrics of the last validation.
    """
    rank, inputs, fit = training.rank, training.inputs, training.fit
    if fit.is_finished:
        expert = build_expert(fit, inputs)
        latest = final_metrics(fit, expert)
        training.tracker.log_metrics(fit.total_steps, latest)
        if rank == 0:
            warn_below_marginal(
                latest, where=inputs.train_sequence_settings.sample_settings.store.data_uri
            )
            write_expert(with_surprise_limit(expert, fit, inputs), inputs)
    else:
        logger.warning("stopped after step %d on request", fit.total_steps)
    outcome = TrainingOutcome(fit.total_steps, best_step=0, is_finished=fit.is_finished)
    save_expert_checkpoint(fit, inputs, rank, latest | outcome.as_metrics(), wait=True)
    training.tracker.detach()


def write_expert(expert: Expert, inputs: ExpertInputs) -> None:
    """Write the folder of an expert."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        expert.save(folder)
        Vocabulary(inputs.tokenizer_json).save(folder)
        write_tasks(inputs.trained_tasks, folder)
        (folder / CARD_FILE).write_text(inputs.card, encoding="utf-8")
        copy_folder(name, inputs.output_uri)


@dataclass(slots=True, kw_only=True)
class _RankTraining:
    """The parts of a rank's training.

    Attributes:
        rank: Rank of this worker.
        inputs: What the driver sent.
        fit: The networks in training.
        tracker: Tracker of this rank.
        interruptions: Requests to stop, and notices of machines that leave.
        progress_log: Log of losses and speed.
        start_up: The start-up so far; None after the first step.
    """

    rank: int
    inputs: ExpertInputs
    fit: ExpertFit
    tracker: Tracker
    interruptions: InterruptionPoll
    progress_log: "_ProgressLog"
    start_up: StartUp | None

    def step(self) -> None:
        """Train one step; the first one ends the start-up."""
        self.progress_log.add(self.fit, self.fit.run_step())
        if self.start_up is not None:
            first_update = self.start_up.with_part("first_update")
            log_start_up(first_update, self.tracker, rank=self.rank, step=self.fit.total_steps)
            self.start_up = None

    def validate_if_due(self) -> dict[str, float] | None:
        """Validate the present network where it is due; the next network may begin.

        Returns:
            Metrics to report, none of them without validation events; None if no validation was
            due.
        """
        if not self.fit.validation_is_due:
            return None
        with self.progress_log.outside_training("validation"):
            losses, metrics = _validate(self.fit, self.tracker)
        self.fit.record_validation(losses)
        return metrics

    def report(self, validation: dict[str, float] | None, *, saves: bool) -> None:
        """Report the step to Ray Train where something has to be saved or validated.

        Args:
            validation: Result of ``validate_if_due`` for this step.
            saves: Whether the report has a checkpoint. All ranks must agree.
        """
        report = {**(validation or {}), STEP: float(self.fit.total_steps)}
        if saves:
            with self.progress_log.outside_training("checkpoint"):
                save_expert_checkpoint(self.fit, self.inputs, self.rank, report)
        elif validation is not None and self.inputs.reports_validation:
            ray.train.report(report)


def _validate(fit: ExpertFit, tracker: Tracker) -> tuple[NetworkLosses | None, dict[str, float]]:
    """Validate the present network.

    Returns:
        Its losses, and the metrics to report; none of both without validation events.
    """
    losses = fit.validate()
    if losses is None:
        return None, {}
    progress = fit.progress
    logger.info(
        "network %d, step %d: validation NLL %.4f nats per event",
        progress.network + 1,
        progress.step,
        losses.nll,
    )
    metrics = validation_metrics(losses)
    tracker.log_metrics(fit.total_steps, metrics)
    return losses, metrics


class _ProgressLog:
    """Logs loss and speed of the training, and the shares of other work, every few steps.

    Args:
        tracker: Tracker of the run.
        every: Number of steps between two log lines.
    """

    def __init__(self, tracker: Tracker, *, every: int) -> None:
        self._tracker, self._every = tracker, every
        self._reset()

    def _reset(self) -> None:
        self._losses: list[NetworkLosses] = []
        self._outside_s = {"validation": 0.0, "checkpoint": 0.0}
        self._started = time.monotonic()

    @contextmanager
    def outside_training(self, activity: str) -> Iterator[None]:
        """Count the time within as ``validation`` or as ``checkpoint``, not as training."""
        started = time.monotonic()
        yield
        self._outside_s[activity] += time.monotonic() - started

    def add(self, fit: ExpertFit, losses: NetworkLosses) -> None:
        """Count a step."""
        self._losses.append(losses)
        if not self._every or len(self._losses) < self._every:
            return
        num_events = sum(step.num_events for step in self._losses)
        seconds = time.monotonic() - self._started
        metrics = {
            "train/joint_nll_nats_per_event": sum(
                step.nll * step.num_events for step in self._losses
            )
            / num_events,
            "speed/events_per_s": num_events / (seconds - sum(self._outside_s.values())),
            **{
                f"time/{activity}_fraction": outside_s / seconds
                for activity, outside_s in self._outside_s.items()
            },
        }
        self._tracker.log_metrics(fit.total_steps, metrics)
        self._reset()
