"""What the files of a model say about it, before any weights are loaded."""

from dataclasses import dataclass

from mmtpp.core.model_kind import ModelKind
from mmtpp.core.representation.style_layout import SOFT
from mmtpp.model.folders.folder import read_model_file
from mmtpp.model.folders.record import TrainedTasks, load_recorded_settings, load_trained_tasks

EXPERT_FILE = "expert.json"
"""Settings of a temporal expert; the folders of other models have no such file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDescription:
    """Kind and tasks of a model.

    Attributes:
        uri: Folder of the adapter, or of the model if there is no adapter.
        kind: Kind of the model.
        trained_tasks: Tasks that the model was trained on; None for a model of stage 1.
    """

    uri: str
    kind: ModelKind
    trained_tasks: TrainedTasks | None

    @property
    def reads_template(self) -> bool:
        """Whether the model reads events as the template writes them; an expert does not."""
        return self.kind != ModelKind.EXPERT

    def trained_on(self, *names: str) -> bool:
        """Whether the model was trained on all these tasks."""
        return self.trained_tasks is not None and set(names) <= set(self.trained_tasks.tasks)


def describe_model(model_uri: str, adapter_uri: str = "") -> ModelDescription:
    """Read the description of a model.

    Args:
        model_uri: Folder of the model; empty for a new one.
        adapter_uri: Folder of the adapter; empty for none.

    Raises:
        StorageError: A folder cannot be read.
    """
    uri = adapter_uri or model_uri
    return ModelDescription(
        uri=uri, kind=_read_kind(model_uri, uri), trained_tasks=load_trained_tasks(uri)
    )


def _read_kind(model_uri: str, uri: str) -> ModelKind:
    if model_uri and read_model_file(model_uri, EXPERT_FILE) is not None:
        return ModelKind.EXPERT
    if load_recorded_settings(uri).get("template.style") == SOFT:
        return ModelKind.SOFT
    return ModelKind.LANGUAGE_MODEL
