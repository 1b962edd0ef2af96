"""The last report of a training: what the driver reads of it, and what a sweep does not repeat."""

from queue import SimpleQueue
from types import SimpleNamespace

import pytest

from mmtpp.sweep.trial import _QueueReports
from mmtpp.train.outcome import STEP, TrainingOutcome, has_outcome


def test_the_driver_reads_the_outcome_and_the_metrics():
    report = {"validation/nll": 1.5, "step": 8.0, "best_step": 4.0, "is_finished": 1.0}
    assert TrainingOutcome.from_report(report) == (
        TrainingOutcome(8, 4, True),
        {"validation/nll": 1.5},
    )
    assert TrainingOutcome(8, 4, True).as_metrics() == {
        "step": 8.0,
        "best_step": 4.0,
        "is_finished": 1.0,
    }
    with pytest.raises(KeyError, match="is_finished"):
        TrainingOutcome.from_report({"step": 8.0, "best_step": 4.0})


def test_a_sweep_sees_every_validation_but_the_last_also_with_a_checkpoint():
    queue: SimpleQueue = SimpleQueue()
    reports = _QueueReports(queue, "validation/nll")
    checkpoint = SimpleNamespace(path="runs/a/checkpoint_1")
    last = {"validation/nll": 1.0, **TrainingOutcome(9, 0, True).as_metrics()}
    for metrics, saved in (
        ({"validation/nll": 3.0, STEP: 3.0}, None),
        ({"validation/nll": 2.0, STEP: 6.0}, checkpoint),
        ({STEP: 7.0}, checkpoint),
        (last, checkpoint),
    ):
        reports.after_report(None, [metrics], saved)
    assert has_outcome(last)
    seen = [queue.get() for _ in range(queue.qsize())]
    assert [(report.metrics[STEP], report.checkpoint) for report in seen] == [
        (3.0, None),
        (6.0, "checkpoint_1"),
    ]
