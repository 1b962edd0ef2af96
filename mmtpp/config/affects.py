"""The results that a setting shapes. With another value, these results get another name."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Any

from pydantic import BaseModel


class Affects(StrEnum):
    """Results of jobs that depend on a setting.

    Every setting declares at least one kind in its annotation: ``Annotated[int, Affects.RUN]``.
    """

    STORE = "store"
    """Content of the event store."""
    PLAN = "plan"
    """Samples of training, validation and evaluation."""
    RUN = "run"
    """Trained weights, and the choice of the best model."""
    FINETUNE = "finetune"
    """Trained weights of ``finetune`` alone."""
    STEPS = "steps"
    """Number of updates. A run with a ``run.name`` continues when the number grows."""
    EVALUATION = "evaluation"
    """Scores and generated texts."""
    PREDICTION = "prediction"
    """Forecasts of new events."""
    NOTHING = "nothing"
    """No result: names, locations, speed and the treatment of failures."""


def declared_effects(
    model: type[BaseModel], prefix: str = ""
) -> Iterator[tuple[str, frozenset[Affects]]]:
    """Path and declared kinds of every setting of a section."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from declared_effects(kind, f"{prefix}{name}.")
        else:
            yield (
                f"{prefix}{name}",
                frozenset(item for item in field.metadata if isinstance(item, Affects)),
            )


def settings_that_shape(config: BaseModel, *kinds: Affects) -> dict[str, Any]:
    """JSON values of the settings that shape one of these kinds, by path."""
    tree = config.model_dump(mode="json")
    wanted = frozenset(kinds)
    values: dict[str, Any] = {}
    for path, shapes in declared_effects(type(config)):
        if shapes & wanted:
            value: Any = tree
            for name in path.split("."):
                value = value[name]
            values[path] = value
    return values
