"""What an update asks of a model, whatever its kind."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from mmtpp.config.schema import RunConfig
from mmtpp.core.split import parse_instant
from mmtpp.data.prepared_store import PreparedStore
from mmtpp.model.folders.record import TrainedTasks


@dataclass(frozen=True, slots=True)
class PresentModel:
    """The model that an update continues.

    Attributes:
        config: The whole configuration; ``update.model`` is the folder of the model.
        store: Store with the new events.
        registered_base: Folder of the model that it adapts, as the registry has it; empty for a
            model that is no adapter or is not from the registry.
    """

    config: RunConfig
    store: PreparedStore
    registered_base: str = ""

    @property
    def folder(self) -> str:
        """Folder of the model or adapter."""
        return self.config.update.model

    @property
    def new_from(self) -> float:
        """Time of the first new event, in the source's unit."""
        seconds = self.store.manifest.seconds_per_unit
        new_from = parse_instant(self.config.update.new_from, seconds_per_unit=seconds)
        assert new_from is not None  # the job requires it
        return new_from


class UpdatedModel(ABC):
    """A model that is continued on new events, and compared with its continuation.

    A kind of model is one subclass, and one line in ``updated_kinds.UPDATED_KINDS``. The
    constructor checks that the model can be continued on the store.

    Args:
        present: The model.

    Attributes:
        config: Settings of the training that continues the model.
        trained_tasks: Record of the model's tasks and types.
    """

    config: RunConfig
    trained_tasks: TrainedTasks

    @property
    def known_type(self) -> str:
        """Name of a type that the model knows."""
        return self.trained_tasks.name_of(self.trained_tasks.type_codes[0])

    @abstractmethod
    def read_new_events(self) -> None:
        """Find the new events of the test split; called once, when Ray runs.

        Raises:
            DataError: No test event is new.
        """

    @abstractmethod
    def updated_settings(self, result: Mapping[str, object]) -> dict[str, str]:
        """Settings ``model.path`` and, of an adapter, ``model.adapter`` of the updated model.

        Args:
            result: Result of the training.
        """

    @abstractmethod
    def losses(self, updated: Mapping[str, str]) -> tuple[pa.Table, pa.Table]:
        """Losses on the new test events, before and after, ``sequence_losses.LOSS_SCHEMA``.

        Args:
            updated: Result of ``updated_settings``.
        """
