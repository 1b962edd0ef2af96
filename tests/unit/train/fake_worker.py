"""A ``Worker`` whose models, Ray and storage are stand-ins."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast

from mmtpp.config.schema import TrainingSection
from mmtpp.train.checkpoint import TrainingProgress
from mmtpp.train.worker import Worker


class _Telemetry:
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
    training: TrainingSection, *, log_metrics: Callable[[int, dict[str, float]], None]
) -> Worker:
    """Build the only rank of a run, at its first step.

    Args:
        training: Settings of the training loop.
        log_metrics: Receives the calls to the tracker.
    """
    stub = cast(Any, SimpleNamespace)
    return Worker(
        inputs=stub(
            validation=True,
            reports_validation=False,
            output_uri="",
            run=SimpleNamespace(run_uri=""),
        ),
        training=training,
        origin=stub(),
        rank=0,
        num_ranks=1,
        vocabulary=stub(),
        plan=stub(samples=[0]),
        progress=TrainingProgress(0, "plan", "vocabulary"),
        constant_metrics={"model/trained_parameters": 1.0},
        rows=_rows(),
        rows_per_step=1,
        step_context=stub(
            engine=SimpleNamespace(num_gradient_passes=1), batcher=SimpleNamespace(device="cpu")
        ),
        flop_counter=cast(Any, lambda _row: SimpleNamespace(total=1.0)),
        telemetry=cast(Any, _Telemetry()),
        tracker=stub(log_metrics=log_metrics, detach=lambda: None),
        watchdog=stub(record_position=lambda *_, **__: None, stop=lambda: None),
        interruptions=stub(
            poll=lambda _: SimpleNamespace(stop_requested=False, machine_leaves=False)
        ),
        companions={},
    )
