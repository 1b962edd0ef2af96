"""Row of a trial: its settings, metrics and status, as stored in the result of a sweep."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

# ``stopped`` by the scheduler, ``cut short`` by the budget
Status = Literal["finished", "stopped", "cut short", "failed"]
# names of a stored row that are neither settings nor metrics
_FIELDS = ("status", "step", "run_name", "start_uri", "seconds", "error", "trial")


@dataclass(frozen=True, slots=True)
class TrialRow:
    """A trial that was started at least once.

    Attributes:
        settings: Searched and tied settings, by configuration path.
        status: How the trial ended.
        trial_id: Id of the trial in Ray Tune, in its first round.
        metrics: Metrics of the last report, by name; all are finite.
        step: Step of the last report; None for a trial that never reported.
        run_name: Name of the first job's run; None for a trial that never reported.
        start_uri: Checkpoint of another run that this run started from, in a population; empty for
            none. None for a trial that never reported.
        seconds: Seconds until the last report.
        error: Cause of the failure in one line; empty for a trial that did not fail.
    """

    settings: Mapping[str, object]
    status: Status
    trial_id: str
    metrics: Mapping[str, float]
    step: int | None = None
    run_name: str | None = None
    start_uri: str | None = None
    seconds: float = 0.0
    error: str = ""

    def as_dict(self) -> dict[str, object]:
        """The stored form: one flat table, without the names whose value is None."""
        run = {"run_name": self.run_name, "start_uri": self.start_uri}
        return {
            **self.settings,
            "status": self.status,
            **({} if self.step is None else {"step": self.step}),
            **self.metrics,
            **{name: value for name, value in run.items() if value is not None},
            "seconds": self.seconds,
            "error": self.error,
            "trial": self.trial_id,
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "TrialRow":
        """Read the stored form. The name of a metric has a slash, and its value is a float."""
        values = {name: value for name, value in stored.items() if name not in _FIELDS}
        metrics = {name: value for name, value in values.items() if is_metric(name, value)}
        return cls(
            settings={name: value for name, value in values.items() if name not in metrics},
            status=stored["status"],
            trial_id=stored["trial"],
            metrics=metrics,
            step=stored.get("step"),
            run_name=stored.get("run_name"),
            start_uri=stored.get("start_uri"),
            seconds=stored["seconds"],
            error=stored["error"],
        )


def is_metric(name: str, value: object) -> bool:
    """Whether an entry of a report or of a stored row is a metric."""
    return "/" in name and isinstance(value, float)
