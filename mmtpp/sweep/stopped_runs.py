"""Close the MLflow runs of stopped trials; otherwise they would stay RUNNING."""

from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial

from mmtpp.sweep.search import FINISHED, RUN
from mmtpp.track.mlflow_tracker import MlflowTracker

STOPPED_EARLY = "by the sweep, before its end"  # value of the tag mmtpp.stopped
# by name of the sweep: Tune pickles its callbacks, and a tracker cannot be pickled
_trackers: dict[str, MlflowTracker] = {}


class StoppedRunCloser(Callback):
    """Close the MLflow run of a trial that ended without a last report of its own.

    Args:
        sweep_name: Name of the sweep.
    """

    def __init__(self, sweep_name: str) -> None:
        self._sweep_name = sweep_name

    @staticmethod
    def set_tracker(tracker: MlflowTracker, sweep_name: str) -> None:
        """Set the tracker of the sweep's parent run in this process, before Ray Tune starts."""
        _trackers[sweep_name] = tracker

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        result = trial.last_result or {}
        if FINISHED not in result and RUN in result:
            _trackers[self._sweep_name].close_children(STOPPED_EARLY, run_name=result[RUN])
