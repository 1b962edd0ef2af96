"""A ``Worker`` whose models, Ray and storage are stand-ins."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from itertools import count
from types import MappingProxyType
from typing import Any, cast

from mmtpp.config.schema import TrainingSection
from mmtpp.data.samples.plan import Plan
from mmtpp.model.batch import Batcher
from mmtpp.model.flops import RowFlops
from mmtpp.model.folders.card import ModelProvenance
from mmtpp.model.tokens.vocabulary import Vocabulary
from mmtpp.track.tracker import RunIdentity, Tracker
from mmtpp.train.checkpoints.checkpoint import TrainingProgress
from mmtpp.train.engine.deepspeed_engine import DeepSpeedEngine
from mmtpp.train.ranks.interruption_poll import InterruptionPoll, InterruptionState
from mmtpp.train.ranks.watchdog import Watchdog
from mmtpp.train.step import StepContext
from mmtpp.train.telemetry import Telemetry
from mmtpp.train.worker import Worker
from mmtpp.train.worker_inputs import WorkerInputs
from tests.helpers.stand_in import stand_in

NO_INTERRUPTION = InterruptionState(machine_leaves=False, stop_requested=False)


class _Telemetry(Telemetry):
    """Timings without a clock."""

    def __init__(self) -> None:
        self.steps = 0

    def add_step(self, tokens: int, labels: int, flops: float) -> None:
        del tokens, labels, flops
        self.steps += 1

    def flush(self) -> dict[str, float]:
        steps, self.steps = self.steps, 0
        return {"time/step_s": 1.0, "speed/tokens_per_s": float(steps)}

    waiting_for_data = validating = saving = staticmethod(nullcontext)


def _rows() -> Iterator[Any]:
    while True:
        yield "row"


def fake_worker(
    training: TrainingSection,
    *,
    log_metrics: Callable[[int, dict[str, float]], None],
    record_position: Callable[..., None] = lambda *_, **__: None,
    interruptions: Mapping[int, InterruptionState] = MappingProxyType({}),
    reports_validation: bool = False,
) -> Worker:
    """Build the only rank of a run, at its first step.

    Args:
        training: Settings of the training loop.
        log_metrics: Receives the calls to the tracker.
        record_position: Receives the calls to the watchdog.
        interruptions: What the poll after a step finds, by the number of the step.
        reports_validation: Whether validations are reported without a checkpoint, too.
    """
    steps = count(1)
    return Worker(
        inputs=stand_in(
            WorkerInputs,
            validation_sample_settings=True,
            reports_validation=reports_validation,
            output_uri="",
            run=stand_in(RunIdentity, run_uri=""),
        ),
        training=training,
        provenance=stand_in(ModelProvenance),
        rank=0,
        num_ranks=1,
        vocabulary=stand_in(Vocabulary),
        plan=stand_in(Plan, samples=[0]),
        progress=TrainingProgress(0, "plan", "vocabulary"),
        constant_metrics={"model/trained_parameters": 1.0},
        rows=_rows(),
        rows_per_step=1,
        step_context=stand_in(
            StepContext,
            engine=stand_in(DeepSpeedEngine, num_gradient_passes=1),
            batcher=stand_in(Batcher, device="cpu"),
        ),
        flop_counter=cast(Any, lambda _row: stand_in(RowFlops, total=1.0)),
        telemetry=_Telemetry(),
        tracker=stand_in(Tracker, log_metrics=log_metrics, detach=lambda: None),
        watchdog=stand_in(Watchdog, record_position=record_position, stop=lambda: None),
        interruptions=stand_in(
            InterruptionPoll,
            poll=lambda _: interruptions.get(next(steps), NO_INTERRUPTION),
        ),
        companions={},
    )
