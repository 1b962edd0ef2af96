"""How a training ended, as fields of its last report to Ray Train."""

from collections.abc import Mapping
from dataclasses import dataclass

STEP = "step"
"""Field of every report with a validation: the updates before it."""
_BEST_STEP = "best_step"
_IS_FINISHED = "is_finished"


@dataclass(frozen=True, slots=True)
class TrainingOutcome:
    """How a training ended. The workers report it once, and the driver reads it.

    Attributes:
        step: Number of updates.
        best_step: Step of the model with the best validation; 0 for none.
        is_finished: Whether the training reached its last step; False if it was asked to stop.
    """

    step: int
    best_step: int
    is_finished: bool

    def as_metrics(self) -> dict[str, float]:
        """Fields of the report."""
        return {
            STEP: float(self.step),
            _BEST_STEP: float(self.best_step),
            _IS_FINISHED: float(self.is_finished),
        }

    @classmethod
    def from_report(cls, report: Mapping[str, float]) -> tuple["TrainingOutcome", dict[str, float]]:
        """The outcome in the last report of a training, and the report's metrics."""
        fields = (STEP, _BEST_STEP, _IS_FINISHED)
        step, best_step, is_finished = (report[name] for name in fields)
        metrics = {name: value for name, value in report.items() if name not in fields}
        return cls(int(step), int(best_step), bool(is_finished)), metrics


def has_outcome(report: Mapping[str, float]) -> bool:
    """Whether a report is the last one of its training."""
    return _IS_FINISHED in report
