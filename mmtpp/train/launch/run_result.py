"""The result of a run: its last metrics in MLflow, and a file in the run's folder."""

import json
from typing import Any

from mmtpp.config.schema import LoraSection, ModelSection, TrackingSection
from mmtpp.core.training_metrics import TRAINED_PARAMETERS
from mmtpp.storage.paths import exists, folder_bytes, join, read_bytes, write_bytes
from mmtpp.track.mlflow_tracker import MlflowTracker
from mmtpp.train.launch.fit_run import FittedRun
from mmtpp.train.worker_inputs import WorkerInputs, best_uri, output_kind

RESULT_FILE = "result.json"  # in the run's folder, written last


def load_result(run_uri: str) -> dict[str, Any] | None:
    """The result of a finished run; None for a run that has not finished."""
    uri = join(run_uri, RESULT_FILE)
    return json.loads(read_bytes(uri)) if exists(uri) else None


def record_result(
    tracker: MlflowTracker,
    inputs: WorkerInputs,
    fitted: FittedRun,
    *,
    model: ModelSection,
    lora: LoraSection,
    tracking: TrackingSection,
) -> dict[str, object]:
    """Track the result of a run, and write it into the run's folder.

    Args:
        tracker: Tracker of the run, which stays open.
        inputs: What the driver sends to every worker.
        fitted: Steps and metrics of the run.
        model: Model that was trained.
        lora: Adapter that was trained.
        tracking: Settings of MLflow.

    Returns:
        The result that ``pretrain`` describes.
    """
    base = model.path if lora.rank else ""
    _track_result(tracker, inputs, fitted, base=base, tracking=tracking)
    kind = output_kind(lora)
    result: dict[str, object] = {
        "run_id": tracker.run_id,
        "run_name": inputs.run.run_name,
        f"{kind}_uri": inputs.output_uri,
        **({f"best_{kind}_uri": best_uri(inputs, fitted.best_step)} if fitted.best_step else {}),
        "steps": fitted.steps,
        "metrics": fitted.metrics,
        "tracking_uri": tracking.uri,
    }
    write_bytes(join(inputs.run.run_uri, RESULT_FILE), json.dumps(result, indent=2).encode())
    return result


def _track_result(
    tracker: MlflowTracker,
    inputs: WorkerInputs,
    fitted: FittedRun,
    *,
    base: str,
    tracking: TrackingSection,
) -> None:
    metrics = fitted.metrics
    tracker.log_metrics(0, {TRAINED_PARAMETERS: metrics[TRAINED_PARAMETERS]})
    changing = {
        key: metrics[key] for key in metrics if not key.startswith(("data/", "model/", "system/"))
    }
    tracker.log_metrics(fitted.steps, {f"final/{key}": value for key, value in changing.items()})
    if folder_bytes(inputs.output_uri) <= tracking.max_artifact_mib * 2**20:
        tracker.log_folder(inputs.output_uri, inputs.output_uri.rpartition("/")[2])
    else:
        tracker.log_text("output_uri.txt", inputs.output_uri)
    if inputs.trained_tasks is not None and {"time", "type"} & set(inputs.trained_tasks.tasks):
        tracker.log_forecaster(
            path=inputs.output_uri,
            base=base,
            known_type=inputs.trained_tasks.name_of(inputs.trained_tasks.type_codes[0]),
            # a sweep has many trials, most of which are not worth registering
            register_as="" if tracking.parent_run_id else tracking.register_as,
        )
