"""What an evaluation asks of a model, whatever its kind."""

from abc import ABC, abstractmethod
from collections.abc import Iterable

import pyarrow as pa

from mmtpp.core.errors import DataError
from mmtpp.evaluate.context import EvaluationContext
from mmtpp.evaluate.example import Example
from mmtpp.model.folders.record import TrainedTasks


class EvaluatedModel(ABC):
    """A model that forecasts the held-out events of a store.

    A kind of model is one subclass, and one line in ``model_kinds.EVALUATED_KINDS``.

    Args:
        context: The evaluation.
        trained_tasks: Tasks that the model was trained on.
    """

    def __init__(self, context: EvaluationContext, trained_tasks: TrainedTasks) -> None:
        self.context, self.trained_tasks = context, trained_tasks

    def forecast_targets(self) -> pa.Table:
        """Forecasts of every target, ``targets.TARGET_SCHEMA``, sorted by sequence and position.

        Raises:
            DataError: No event is a target.
        """
        tables = list(self._target_tables())
        if not sum(map(len, tables)):
            raise DataError(
                "no event is a target",
                where=self.context.store_uri,
                setting=f"evaluation.targets_delta = {self.context.evaluation.targets_delta}",
            )
        order = [("sequence_id", "ascending"), ("position", "ascending")]
        return pa.concat_tables(tables).sort_by(order)

    @abstractmethod
    def _target_tables(self) -> Iterable[pa.Table]:
        """Forecasts of every target, ``targets.TARGET_SCHEMA``, in any order."""

    @abstractmethod
    def sample_futures(self) -> Iterable[pa.Table]:
        """Futures of all origins, ``future_actor.FUTURE_SCHEMA``, in any order."""

    def examples(self, targets: pa.Table) -> list[Example]:
        """Windows of the report with the model's attention; none for a model without windows.

        Args:
            targets: Result of ``forecast_targets``.
        """
        del targets
        return []

    def cut_text_counts(self) -> dict[str, float]:
        """Numbers of texts that were cut for the targets; none for a model without windows."""
        return {}

    @abstractmethod
    def facts(self) -> dict[str, str]:
        """What the report says about the model, by name."""
