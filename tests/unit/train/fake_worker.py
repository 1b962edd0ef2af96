"""A ``Worker`` whose model, Ray and storage are stand-ins. The steps are real."""

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import count
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import torch

from mmtpp.config.schema import TrainingSection
from mmtpp.core.representation.row import PackedRow
from mmtpp.core.representation.tokens import Modality
from mmtpp.model.batch import Batcher
from mmtpp.model.flops import RowFlops
from mmtpp.runtime.start_up import StartUp
from mmtpp.track.tracker import Tracker
from mmtpp.train.checkpoints.checkpoint import BEST_BY, CheckpointWriter, TrainingProgress
from mmtpp.train.engine.deepspeed_engine import DeepSpeedEngine
from mmtpp.train.ranks.interruption_poll import InterruptionPoll, InterruptionState
from mmtpp.train.ranks.rank_group import RankGroup
from mmtpp.train.ranks.watchdog import Stage, Watchdog
from mmtpp.train.reported_metrics import ReportedMetrics
from mmtpp.train.step import StepContext
from mmtpp.train.telemetry import Telemetry
from mmtpp.train.trained_output import OutputWriter
from mmtpp.train.validation import Validation
from mmtpp.train.worker import Monitor, RankRows, Worker
from tests.helpers.stand_in import stand_in

NO_INTERRUPTION = InterruptionState(machine_leaves=False, stop_requested=False)


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """What a run logs, reports and writes.

    Attributes:
        logged: Arguments of all calls to the tracker.
        saved: Metrics of all checkpoints.
        positions: Step and stage of all calls to the watchdog.
        reported: Metrics that were reported without a checkpoint.
        outputs: Steps after which a model was written.
    """

    logged: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    saved: list[dict[str, float]] = field(default_factory=list)
    positions: list[tuple[int, int]] = field(default_factory=list)
    reported: list[dict[str, float]] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)

    def log_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Receive a call to the tracker."""
        self.logged.append((step, dict(metrics)))

    def record_position(self, step: int, stage: Stage, _activity: str, **_: object) -> None:
        """Receive a call to the watchdog."""
        self.positions.append((step, stage))

    def save_checkpoint(
        self, _progress: TrainingProgress, metrics: dict[str, float], *, wait: bool = False
    ) -> None:
        """Receive a checkpoint."""
        del wait
        self.saved.append(metrics)

    def save_output(self, *, steps: int) -> None:
        """Receive a model."""
        self.outputs.append(steps)


class _Engine:
    """An engine whose loss is the number of the step."""

    num_gradient_passes = 1

    def __init__(self) -> None:
        self.step = 1
        self.learning_rate = 0.0

    def score(self, _batch: object) -> tuple[torch.Tensor, None]:
        return torch.tensor([float(self.step)]), None

    def backward(self, loss: torch.Tensor) -> None:
        assert float(loss) == self.step

    def update(self, _step: int, _where: str) -> float:
        self.learning_rate = 0.1 * self.step
        self.step += 1
        return 1.0


class _Batcher:
    device = torch.device("cpu")

    def __call__(self, row: PackedRow) -> PackedRow:
        return row


class _Telemetry(Telemetry):
    """Timings without a clock."""

    def __init__(self) -> None:
        self.steps = 0
        self.start_up = StartUp(100.0, (("checks", 101.5), ("first_update", 104.0)))

    def add_step(self, tokens: int, labels: int, flops: float) -> None:
        del tokens, labels, flops
        self.steps += 1

    def flush(self) -> dict[str, float]:
        steps, self.steps = self.steps, 0
        return {"time/step_s": 1.0, "speed/tokens_per_s": float(steps)}

    waiting_for_data = validating = saving = staticmethod(nullcontext)


def _rows() -> Iterator[PackedRow]:
    """Rows with one label."""
    modalities = np.array([int(Modality.TIME)])
    while True:
        yield stand_in(
            PackedRow,
            sample_id="s",
            input_ids=np.zeros(1),
            likelihood_modalities=lambda: modalities,
        )


def fake_worker(
    training: TrainingSection,
    run: RecordedRun,
    *,
    interruptions: Mapping[int, InterruptionState] = MappingProxyType({}),
    reports_validation: bool = False,
) -> Worker:
    """Build the only rank of a run, at its first step.

    Args:
        training: Settings of the training loop.
        run: Receives everything that the loop logs, reports and writes.
        interruptions: What the poll after a step finds, by the number of the step.
        reports_validation: Whether validations are reported without a checkpoint, too.
    """
    steps = count(1)
    return Worker(
        training=training,
        group=RankGroup(0, 1, torch.device("cpu"), torch.float32),
        start_progress=TrainingProgress(0, "plan", "vocabulary"),
        rows=RankRows(_rows(), per_step=1, samples_per_epoch=1),
        step_context=StepContext(
            engine=cast(DeepSpeedEngine, _Engine()),
            batcher=cast(Batcher, _Batcher()),
            label_weights=cast(Any, lambda _row: np.ones(1)),
            num_micro_batches=1,
            seed=0,
        ),
        validation=stand_in(
            Validation, run=lambda step: {BEST_BY: 10.0 - step, "validation/accuracy": 0.5}
        ),
        checkpoints=stand_in(
            CheckpointWriter, save=run.save_checkpoint, report=run.reported.append
        ),
        output=stand_in(
            OutputWriter,
            save=run.save_output,
            save_best=run.save_output,
            remove_other_bests=lambda kept: None,
        ),
        monitor=Monitor(
            telemetry=_Telemetry(),
            flop_counter=cast(Any, lambda _row: stand_in(RowFlops, total=1.0)),
            tracker=stand_in(Tracker, log_metrics=run.log_metrics, detach=lambda: None),
            watchdog=stand_in(Watchdog, record_position=run.record_position, stop=lambda: None),
        ),
        interruptions=stand_in(
            InterruptionPoll,
            poll=lambda _: interruptions.get(next(steps), NO_INTERRUPTION),
        ),
        metrics=ReportedMetrics({"model/trained_parameters": 1.0}),
        reports_validation=reports_validation,
    )
