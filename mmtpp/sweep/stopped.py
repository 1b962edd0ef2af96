"""MLflow runs of trials that a scheduler stops: closed at once, or they would seem to go on."""

from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial

from mmtpp.sweep.search import FINISHED, RUN
from mmtpp.track.mlflow_tracker import MlflowTracker

BY_THE_SWEEP = "by the sweep, before its end"
_parents: dict[str, MlflowTracker] = {}  # by sweep; Tune keeps callbacks, which hold no tracker


class StoppedRuns(Callback):
    """Closes the run of a trial that has ended without a last report of its own.

    Args:
        sweep_name: of the sweep.
    """

    def __init__(self, sweep_name: str) -> None:
        self._sweep_name = sweep_name

    @staticmethod
    def close_with(parent: MlflowTracker, sweep_name: str) -> None:
        """Say which tracker this process has for the sweep, before Tune starts."""
        _parents[sweep_name] = parent

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        result = trial.last_result or {}
        if FINISHED not in result and RUN in result:
            _parents[self._sweep_name].close_children(BY_THE_SWEEP, run_name=result[RUN])
