"""The record of the tasks that a model is trained on; a training writes it next to the weights."""

from collections.abc import Sequence
from dataclasses import replace

from mmtpp.config.schema import TaskWeights
from mmtpp.core.errors import ModelError
from mmtpp.core.forecasting.interval_forecasts import IntervalRange
from mmtpp.core.representation.tasks import DENSITY_TASKS
from mmtpp.model.folders.record import TrainedTasks, load_trained_tasks
from mmtpp.storage.manifest import Manifest


def build_trained_tasks(
    tasks: TaskWeights, manifest: Manifest, intervals: IntervalRange
) -> TrainedTasks:
    """The record of a model that answers questions.

    Args:
        tasks: Weights of the tasks.
        manifest: Manifest of the store.
        intervals: Range of the intervals in the training split.
    """
    return TrainedTasks(
        tasks=tasks.asked,
        interval_range=intervals,
        type_codes=tuple(manifest.occurring_types),
        type_names=tuple(manifest.type_names),
        seconds_per_unit=manifest.seconds_per_unit,
        trains_history=tasks.history > 0,
    )


def build_density_tasks(
    manifest: Manifest, intervals: IntervalRange, type_codes: Sequence[int]
) -> TrainedTasks:
    """The record of a model that forecasts with densities: an expert, or a model of soft tokens.

    Args:
        manifest: Manifest of the store.
        intervals: Range of the intervals in the training split.
        type_codes: Codes of the types that the model knows.
    """
    return TrainedTasks(
        tasks=DENSITY_TASKS,
        interval_range=intervals,
        type_codes=tuple(type_codes),
        type_names=tuple(manifest.type_names),
        seconds_per_unit=manifest.seconds_per_unit,
        trains_history=False,
    )


def continue_trained_tasks(trained_tasks: TrainedTasks, model_uri: str) -> TrainedTasks:
    """The record of a model that is continued: its types, and the intervals before and now.

    Args:
        trained_tasks: The record of a model that is trained on the present store alone.
        model_uri: Folder of the model that is continued.

    Raises:
        ModelError: The folder has no record.
    """
    before = load_trained_tasks(model_uri)
    if before is None:
        raise ModelError("the folder has no record of the tasks of the model", where=model_uri)
    return replace(
        trained_tasks,
        type_codes=before.type_codes,
        interval_range=before.interval_range.joined(trained_tasks.interval_range),
    )
