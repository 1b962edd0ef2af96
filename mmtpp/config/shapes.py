"""What a setting shapes: which results change with it, and so need a name of their own."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Any

from pydantic import BaseModel


class Shapes(StrEnum):
    """Results of jobs that depend on a setting.

    Every setting declares at least one, in its annotation: ``Annotated[int, Shapes.RUN]``.
    """

    STORE = "store"
    """Content of the event store."""
    PLAN = "plan"
    """Samples of training, validation and evaluation."""
    RUN = "run"
    """Trained weights, or which of them are kept as the best."""
    FINETUNE = "finetune"
    """The same, in ``finetune`` alone."""
    STEPS = "steps"
    """Number of updates. A run with a name of its own continues when it grows."""
    EVALUATION = "evaluation"
    """Scores and written texts."""
    PREDICTION = "prediction"
    """Forecasts of new events."""
    NOTHING = "nothing"
    """Names, places, speed, and how failures are handled."""


def declared(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, frozenset[Shapes]]]:
    """Path and declarations of every setting of a section; empty where one declares nothing."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from declared(kind, f"{prefix}{name}.")
        else:
            shapes = (each for each in field.metadata if isinstance(each, Shapes))
            yield f"{prefix}{name}", frozenset(shapes)


def shaping(config: BaseModel, *kinds: Shapes) -> dict[str, Any]:
    """Values of the settings that shape one of these, as JSON has them, by path."""
    tree = config.model_dump(mode="json")
    wanted = frozenset(kinds)
    found: dict[str, Any] = {}
    for path, shapes in declared(type(config)):
        if shapes & wanted:
            value: Any = tree
            for name in path.split("."):
                value = value[name]
            found[path] = value
    return found
