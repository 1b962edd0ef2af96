"""The results that a setting affects. With another value, these results get another name."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Any

from pydantic import BaseModel


class Affects(StrEnum):
    """Results of jobs that depend on a setting.

    Every setting declares at least one of them in its annotation: ``Annotated[int, Affects.RUN]``.
    """

    STORE = "store"
    """Content of the event store."""
    PLAN = "plan"
    """Samples of training, validation and evaluation."""
    RUN = "run"
    """Trained weights, and the choice of the best model."""
    FINETUNE = "finetune"
    """Trained weights of ``finetune`` alone."""
    UPDATE = "update"
    """Weights of ``update``, which continues a trained forecaster."""
    PREQUENTIAL = "prequential"
    """Weights and scores of ``prequential``."""
    STEPS = "steps"
    """Number of updates. A run with a ``run.name`` continues when the number grows."""
    EVALUATION = "evaluation"
    """Scores and generated texts."""
    PREDICTION = "prediction"
    """Forecasts of new events."""
    NOTHING = "nothing"
    """No result: names, locations, speed and the treatment of failures."""


def declared_affects(
    model: type[BaseModel], prefix: str = ""
) -> Iterator[tuple[str, frozenset[Affects]]]:
    """Path of every setting of a section, and the results that it affects."""
    for name, field in model.model_fields.items():
        field_type = field.annotation
        if isinstance(field_type, type) and issubclass(field_type, BaseModel):
            yield from declared_affects(field_type, f"{prefix}{name}.")
        else:
            yield (
                f"{prefix}{name}",
                frozenset(item for item in field.metadata if isinstance(item, Affects)),
            )


def settings_that_affect(config: BaseModel, *results: Affects) -> dict[str, Any]:
    """JSON values of the settings that affect one of these results, by path."""
    tree = config.model_dump(mode="json")
    wanted = frozenset(results)
    values: dict[str, Any] = {}
    for path, affected in declared_affects(type(config)):
        if affected & wanted:
            value: Any = tree
            for name in path.split("."):
                value = value[name]
            values[path] = value
    return values
