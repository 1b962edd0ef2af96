"""Report of a trial to Ray Tune: the only message from a trial to the process that runs the sweep.

Ray Tune stores a report as a flat table of metrics. Its keys are part of every sweep on storage.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmtpp.train.outcome import STEP

_FINISHED = "finished"  # only in the last report: 1 for a finished trial, 0 for a failed one
_ERROR = "error"
_RUN_NAME = "run_name"
_START_URI = "start_uri"


@dataclass(frozen=True, slots=True)
class TrialReport:
    """Report of a trial, after a validation or at the end of the trial.

    Attributes:
        metrics: Metrics by name; every name has a slash.
        step: Step of the first job; None for a trial that never reported.
        run_name: Name of the first job's run; None for a trial that never reported.
        start_uri: Checkpoint of another run that this run started from, in a population; empty for
            none. None for a trial that never reported.
        is_last: Whether the trial has ended by itself; a scheduler or the budget ends a trial
            without a last report.
        error: Cause of a failure in one line; empty for a trial that did not fail.
    """

    metrics: Mapping[str, float]
    step: float | None = None
    run_name: str | None = None
    start_uri: str | None = None
    is_last: bool = False
    error: str = ""

    @property
    def has_finished(self) -> bool:
        """Whether the trial has ended by itself and without an error."""
        return self.is_last and not self.error

    def as_metrics(self) -> dict[str, object]:
        """The table that Ray Tune receives, without the fields that are None or empty."""
        fields = {
            STEP: self.step,
            _RUN_NAME: self.run_name,
            _START_URI: self.start_uri,
            _FINISHED: float(not self.error) if self.is_last else None,
            _ERROR: self.error or None,
        }
        present = {key: value for key, value in fields.items() if value is not None}
        return {**self.metrics, **present}

    @classmethod
    def from_metrics(cls, metrics: Mapping[str, Any] | None) -> "TrialReport":
        """Read the table that Ray Tune stores, which also has entries of Ray Tune.

        Args:
            metrics: The stored table; None for a trial that never reported.
        """
        table = metrics or {}
        return cls(
            metrics={name: value for name, value in table.items() if "/" in name},
            step=table.get(STEP),
            run_name=table.get(_RUN_NAME),
            start_uri=table.get(_START_URI),
            is_last=_FINISHED in table,
            error=table.get(_ERROR, ""),
        )
