"""The result of a run: its last metrics in MLflow, and a file in the run's folder."""

import json
from dataclasses import dataclass
from typing import Any

from mmtpp.config.schema import TrackingSection
from mmtpp.core.training.training_metrics import TRAINED_PARAMETERS
from mmtpp.model.folders.record import TrainedTasks
from mmtpp.storage.paths import exists, folder_bytes, join, read_bytes, write_bytes
from mmtpp.track.mlflow_tracker import MlflowTracker
from mmtpp.track.tracker import RunIdentity
from mmtpp.train.launch.ray_training import FinishedTraining
from mmtpp.train.worker_inputs import best_uri

RESULT_FILE = "result.json"  # in the run's folder, written last


def load_result(run_uri: str) -> dict[str, Any] | None:
    """The result of a finished run; None for a run that has not finished."""
    uri = join(run_uri, RESULT_FILE)
    return json.loads(read_bytes(uri)) if exists(uri) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedModel:
    """The model that a run trains.

    Attributes:
        kind: ``model`` or ``adapter``.
        uri: Its folder.
        base: Model that the adapter adapts; empty for a model.
        trained_tasks: Tasks that it was trained on; None for a model of stage 1.
    """

    kind: str
    uri: str
    base: str
    trained_tasks: TrainedTasks | None


def record_result(
    tracker: MlflowTracker,
    run: RunIdentity,
    finished: FinishedTraining,
    trained: TrainedModel,
    tracking: TrackingSection,
) -> dict[str, object]:
    """Track the result of a run, and write it into the run's folder.

    Args:
        tracker: Tracker of the run, which stays open.
        run: Name and folder of the run.
        finished: Steps and metrics of the run.
        trained: Model that was trained.
        tracking: Settings of MLflow.

    Returns:
        The result that ``pretrain`` describes.
    """
    _track_result(tracker, finished, trained, tracking)
    best_step = finished.outcome.best_step
    best = {f"best_{trained.kind}_uri": best_uri(trained.uri, best_step)} if best_step else {}
    result: dict[str, object] = {
        "run_id": tracker.run_id,
        "run_name": run.run_name,
        f"{trained.kind}_uri": trained.uri,
        **best,
        "steps": finished.outcome.step,
        "metrics": finished.metrics,
        "tracking_uri": tracking.uri,
    }
    write_bytes(join(run.run_uri, RESULT_FILE), json.dumps(result, indent=2).encode())
    return result


def _track_result(
    tracker: MlflowTracker,
    finished: FinishedTraining,
    trained: TrainedModel,
    tracking: TrackingSection,
) -> None:
    metrics = finished.metrics
    tracker.log_metrics(0, {TRAINED_PARAMETERS: metrics[TRAINED_PARAMETERS]})
    changing = {
        key: metrics[key] for key in metrics if not key.startswith(("data/", "model/", "system/"))
    }
    tracker.log_metrics(
        finished.outcome.step, {f"final/{key}": value for key, value in changing.items()}
    )
    if folder_bytes(trained.uri) <= tracking.max_artifact_mib * 2**20:
        tracker.log_folder(trained.uri, trained.uri.rpartition("/")[2])
    else:
        tracker.log_text("output_uri.txt", trained.uri)
    tasks = trained.trained_tasks
    if tasks is not None and tasks.can_forecast:
        tracker.log_forecaster(
            path=trained.uri,
            base=trained.base,
            known_type=tasks.name_of(tasks.type_codes[0]),
            # a sweep has many trials, most of which are not worth registering
            register_as="" if tracking.parent_run_id else tracking.register_as,
        )
