"""The reports of a training carry the newest value of every metric."""

from mmtpp.train.outcome import TrainingOutcome
from mmtpp.train.reported_metrics import ReportedMetrics


def _metrics() -> ReportedMetrics:
    """Metrics after two log lines and a validation."""
    metrics = ReportedMetrics({"data/events": 7.0})
    metrics.record({"train/loss": 3.0, "train/grad_norm": 1.0})
    metrics.record({"train/loss": 2.0})
    metrics.record({"validation/loss": 4.0})
    return metrics


NEWEST = {"data/events": 7.0, "train/loss": 2.0, "train/grad_norm": 1.0, "validation/loss": 4.0}


def test_a_report_of_a_validation_has_its_step():
    assert _metrics().after_validation(6) == {**NEWEST, "step": 6.0}


def test_the_last_report_says_how_the_training_ended():
    report = _metrics().at_end(TrainingOutcome(step=9, best_step=6, is_finished=True))
    assert TrainingOutcome.from_report(report) == (TrainingOutcome(9, 6, is_finished=True), NEWEST)


def test_a_report_does_not_change_after_it_was_made():
    metrics = _metrics()
    report = metrics.after_validation(6)
    metrics.record({"train/loss": 1.0})
    assert report["train/loss"] == 2.0
