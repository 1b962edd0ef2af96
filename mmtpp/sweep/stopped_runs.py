"""Close the MLflow runs of stopped trials; otherwise they would stay RUNNING."""

from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial

from mmtpp.sweep.trial_report import TrialReport
from mmtpp.track.mlflow_tracker import MlflowTracker

# values of the tag mmtpp.stopped
STOPPED_EARLY, INTERRUPTED = "by the sweep, before its end", "by an interruption of the sweep"
# trackers of parent runs by name of the sweep, here because Ray Tune pickles its callbacks and a
# tracker cannot be pickled
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
        report = TrialReport.from_metrics(trial.last_result)
        if report.run_name is not None and not report.is_last:
            tracker = _trackers[self._sweep_name]
            tracker.close_children(STOPPED_EARLY, run_name=report.run_name)
