"""The parts of a rank of a training."""

from collections.abc import Iterator
from dataclasses import dataclass

from mmtpp.config.schema import TrainingSection
from mmtpp.core.representation.row import PackedRow
from mmtpp.model.flops import FlopCounter
from mmtpp.track.tracker import Tracker
from mmtpp.train.checkpoints.checkpoint import CheckpointWriter, TrainingProgress
from mmtpp.train.ranks.interruption_poll import InterruptionPoll
from mmtpp.train.ranks.rank_group import RankGroup
from mmtpp.train.ranks.watchdog import Watchdog
from mmtpp.train.reported_metrics import ReportedMetrics
from mmtpp.train.step import StepContext
from mmtpp.train.telemetry import Telemetry
from mmtpp.train.trained_output import OutputWriter
from mmtpp.train.validation import Validation


@dataclass(frozen=True, slots=True)
class RankRows:
    """The training rows of a rank.

    Attributes:
        rows: This rank's rows from the first step on, in order.
        per_step: Number of rows that this rank consumes in a step.
        samples_per_epoch: Number of samples of all ranks in an epoch.
    """

    rows: Iterator[PackedRow]
    per_step: int
    samples_per_epoch: int

    def next_step(self) -> list[PackedRow]:
        """Rows of the next step; waits until they are assembled."""
        return [next(self.rows) for _ in range(self.per_step)]


@dataclass(frozen=True, slots=True)
class Monitor:
    """What measures and records the training of a rank.

    Attributes:
        telemetry: Times of this rank.
        flop_counter: Counts the operations of rows.
        tracker: Tracker of the run on rank 0; records nothing on other ranks.
        watchdog: Thread that reports a hanging rank.
    """

    telemetry: Telemetry
    flop_counter: FlopCounter
    tracker: Tracker
    watchdog: Watchdog


@dataclass(frozen=True, slots=True)
class Worker:
    """One rank, ready for its first step.

    Attributes:
        training: Settings of the training loop.
        group: Place of this rank among the ranks.
        start_progress: Progress of the run at the first step of this worker.
        rows: Training rows of this rank.
        step_context: Engine and settings of every step.
        validation: Scores held-out windows; None skips validation.
        checkpoints: Writes checkpoints and reports to Ray Train.
        output: Writes the trained model or adapter.
        monitor: Telemetry, tracker and watchdog.
        interruptions: Polled after every step.
        metrics: Metrics for the reports to Ray Train.
        reports_validation: Whether validations are reported without a checkpoint, too.
    """

    training: TrainingSection
    group: RankGroup
    start_progress: TrainingProgress
    rows: RankRows
    step_context: StepContext
    validation: Validation | None
    checkpoints: CheckpointWriter
    output: OutputWriter
    monitor: Monitor
    interruptions: InterruptionPoll
    metrics: ReportedMetrics
    reports_validation: bool
