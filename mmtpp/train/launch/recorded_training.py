"""A training on the workers, with its settings and its result in MLflow and in the run's folder."""

from mmtpp.track.tracked_run import tracked_run
from mmtpp.train.launch.planned_training import PlannedTraining
from mmtpp.train.launch.ray_training import train_on_workers
from mmtpp.train.launch.run_result import record_result


def train_and_record(planned: PlannedTraining) -> dict[str, object]:
    """Train on the workers, and record the result.

    Args:
        planned: Training to start.

    Returns:
        The result that ``pretrain`` describes.

    Raises:
        StoppedError: The job received SIGTERM; it saved a checkpoint first.
        MmtppError: A worker raised this error, or the workers could not be started.
    """
    config = planned.job.config
    with tracked_run(
        config,
        planned.manifest,
        planned.inputs.run,
        job=planned.job.name,
        description=planned.description,
        tags={"mmtpp.output_uri": planned.inputs.output_uri, **planned.tags},
    ) as tracker:
        tracker.log_text("config.json", config.model_dump_json(indent=2))
        if planned.metrics:
            tracker.log_metrics(0, planned.metrics)
        planned = planned.with_mlflow_run(tracker.wait_for_run())
        finished = train_on_workers(planned, tracker)
        return record_result(tracker, planned, finished)
