"""What the files of a model say about it, before any weights are loaded."""

from dataclasses import dataclass

from mmtpp.expert.expert_folder import is_expert
from mmtpp.model.record import TrainedTasks, load_trained_tasks


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDescription:
    """Kind and tasks of a model.

    Attributes:
        uri: Folder of the adapter, or of the model if there is no adapter.
        is_expert: Whether the model is a temporal expert, and no language model.
        trained_tasks: Tasks that the model was trained on; None for a model of stage 1.
    """

    uri: str
    is_expert: bool
    trained_tasks: TrainedTasks | None

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
        uri=uri, is_expert=is_expert(model_uri), trained_tasks=load_trained_tasks(uri)
    )
