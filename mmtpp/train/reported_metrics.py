"""The metrics of a training that its workers report to Ray Train."""

from collections.abc import Mapping

from mmtpp.train.outcome import STEP, TrainingOutcome


class ReportedMetrics:
    """The newest value of every metric. Reports carry them to the driver, and to sweeps.

    Args:
        constant: Metrics of data and model, the same at every step.
    """

    def __init__(self, constant: Mapping[str, float]) -> None:
        self._constant = dict(constant)
        self._latest: dict[str, float] = {}

    def record(self, metrics: Mapping[str, float]) -> None:
        """Replace the values of metrics that have new ones."""
        self._latest |= metrics

    def after_validation(self, step: int) -> dict[str, float]:
        """The report of a validation.

        Args:
            step: Number of updates before it.
        """
        return self._constant | self._latest | {STEP: float(step)}

    def at_end(self, outcome: TrainingOutcome) -> dict[str, float]:
        """The last report of a training.

        Args:
            outcome: How the training ended.
        """
        return self._constant | self._latest | outcome.as_metrics()
