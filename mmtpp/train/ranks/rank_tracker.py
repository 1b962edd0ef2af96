"""The tracker of a rank: only the first rank records, so only it loads MLflow."""

import logging

from mmtpp.config.schema import TrackingSection
from mmtpp.runtime.start_up import StartUp
from mmtpp.track.tracker import NullTracker, RunIdentity, Tracker

logger = logging.getLogger(__name__)


def build_rank_tracker(tracking: TrackingSection, run: RunIdentity, *, rank: int) -> Tracker:
    """Tracker of a rank.

    Args:
        tracking: Settings of MLflow.
        run: The run.
        rank: Rank of this worker.
    """
    if rank:
        return NullTracker()
    from mmtpp.track.mlflow_tracker import MlflowTracker

    return MlflowTracker.from_run(tracking, run)


def log_start_up(start_up: StartUp, tracker: Tracker, *, rank: int, step: int) -> None:
    """Log the parts of the start-up of the first rank.

    Args:
        start_up: The start-up of this rank.
        tracker: Tracker of this rank.
        rank: Rank of this worker.
        step: Number of updates made.
    """
    tracker.log_metrics(step, start_up.metrics())
    if rank == 0:
        logger.info("start-up: %s", start_up)
