"""The tracker of a rank: only the first rank records, so only it loads MLflow."""

from mmtpp.config.schema import TrackingSection
from mmtpp.track.tracker import NullTracker, RunIdentity, Tracker


def rank_tracker(tracking: TrackingSection, run: RunIdentity, *, rank: int) -> Tracker:
    """Tracker of a rank.

    Args:
        tracking: Settings of MLflow.
        run: The run.
        rank: Rank of this worker.
    """
    if rank:
        return NullTracker()
    from mmtpp.track.mlflow_tracker import MlflowTracker  # takes seconds

    return MlflowTracker.from_run(tracking, run)
