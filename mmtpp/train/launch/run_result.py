"""The result of a run: its last metrics in MLflow, and a file in the run's folder."""

import json

from mmtpp.core.training.training_metrics import TRAINED_PARAMETERS
from mmtpp.storage.paths import folder_bytes, join, write_bytes
from mmtpp.track.mlflow_tracker import MlflowTracker
from mmtpp.train.launch.planned_training import PlannedTraining
from mmtpp.train.launch.ray_training import FinishedTraining
from mmtpp.train.launch.run_folder import RESULT_FILE
from mmtpp.train.worker_inputs import best_uri


def record_result(
    tracker: MlflowTracker, planned: PlannedTraining, finished: FinishedTraining
) -> dict[str, object]:
    """Track the result of a run, and write it into the run's folder.

    Args:
        tracker: Tracker of the run, which stays open.
        planned: The training as it was started.
        finished: Steps and metrics of the run.

    Returns:
        The result that ``pretrain`` describes.
    """
    best_step = finished.outcome.best_step
    uri = planned.inputs.output_uri
    # an update compares the best model, so it is the one that is registered
    is_best = planned.job.is_update and best_step > 0
    _track_result(tracker, planned, finished, best_uri(uri, best_step) if is_best else uri)
    run, kind = planned.inputs.run, planned.output_kind
    best = {f"best_{kind}_uri": best_uri(uri, best_step)} if best_step else {}
    result: dict[str, object] = {
        "run_id": tracker.run_id,
        "run_name": run.run_name,
        f"{kind}_uri": uri,
        **best,
        "steps": finished.outcome.step,
        "metrics": finished.metrics,
        "tracking_uri": planned.job.config.tracking.uri,
    }
    write_bytes(join(run.run_uri, RESULT_FILE), json.dumps(result, indent=2).encode())
    return result


def _track_result(
    tracker: MlflowTracker, planned: PlannedTraining, finished: FinishedTraining, uri: str
) -> None:
    """Track the metrics, and the model or adapter in the folder ``uri``."""
    config, inputs = planned.job.config, planned.inputs
    metrics = finished.metrics
    tracker.log_metrics(0, {TRAINED_PARAMETERS: metrics[TRAINED_PARAMETERS]})
    changing = {
        key: metrics[key] for key in metrics if not key.startswith(("data/", "model/", "system/"))
    }
    tracker.log_metrics(
        finished.outcome.step, {f"final/{key}": value for key, value in changing.items()}
    )
    if folder_bytes(uri) <= config.tracking.max_artifact_mib * 2**20:
        tracker.log_folder(uri, planned.output_kind)
    else:
        tracker.log_text("output_uri.txt", uri)
    tasks = inputs.trained_tasks
    if tasks is not None and tasks.can_forecast:
        tracker.log_forecaster(
            path=uri,
            base=config.model.path if planned.output_kind == "adapter" else "",
            known_type=tasks.name_of(tasks.type_codes[0]),
            # a sweep has many trials, most of which are not worth registering
            register_as="" if config.tracking.parent_run_id else config.tracking.register_as,
        )
