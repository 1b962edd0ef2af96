"""Settings of learning from new events: of the update of a model, and of its evaluation."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from mmtpp.config.affects import Affects
from mmtpp.config.section import Instant, ModelAddress, Section

STRATEGIES = ("frozen", "retrained", "fine_tuned", "replay", "prompts")


class UpdateSection(Section):
    """Continuing a trained forecaster on new events: ``update``, and ``prequential``, which has
    experts alone. A language model continues with the settings of ``finetune``."""

    model: Annotated[ModelAddress, Affects.UPDATE] = ""
    """Forecaster that is continued, an expert or a fine-tuned language model: its folder or that of
    its adapter, or its address in MLflow's model registry, ``models:/NAME@ALIAS``. An alias moves
    to the updated forecaster if that is better."""
    new_from: Annotated[Instant, Affects.UPDATE] = ""
    """Time of the first new event: a number in the source's unit, or an ISO date, in UTC unless it
    has a time zone. Earlier events are those that the forecaster has learned from."""
    trains: Annotated[Literal["weights", "prompts"], Affects.UPDATE] = "weights"
    """What is trained of an expert: ``weights`` (all weights of the networks) or ``prompts`` (only
    vectors that are added to the inputs, chosen by the state of the history)."""
    replay: Annotated[NonNegativeFloat, Affects.UPDATE, Affects.PREQUENTIAL] = 1.0
    """Number of older training events in an epoch for each new one, at least 0. A language model
    draws whole samples that have this number on average."""
    num_prompts: Annotated[int, Field(ge=1, le=1024), Affects.UPDATE, Affects.PREQUENTIAL] = 16
    """Number of prompts of an expert that has none yet, 1 to 1024."""
    epochs: Annotated[PositiveInt, Affects.UPDATE, Affects.PREQUENTIAL] = 4
    """Largest number of passes of an expert's network over the new and the replayed events."""
    learning_rate: Annotated[PositiveFloat, Affects.UPDATE, Affects.PREQUENTIAL] = 3e-3
    """Largest learning rate of an expert's weights, above 0."""
    prompt_learning_rate: Annotated[PositiveFloat, Affects.UPDATE, Affects.PREQUENTIAL] = 0.1
    """Largest learning rate of the prompts, above 0."""

    @property
    def of_expert(self) -> dict[str, object]:
        """Settings that apply to an expert alone and have another value than by default."""
        names = ("trains", "num_prompts", "epochs", "learning_rate", "prompt_learning_rate")
        defaults = {name: type(self).model_fields[name].default for name in names}
        values = {name: getattr(self, name) for name in names}
        return {
            f"update.{name}": value for name, value in values.items() if value != defaults[name]
        }


class PrequentialSection(Section):
    """Prequential evaluation, ``prequential``: every period is first forecast, then learned."""

    period: Annotated[
        Literal["day", "week", "month", "year"] | PositiveFloat, Affects.PREQUENTIAL
    ] = "month"
    """Length of a period: one of the calendar, with the time zone ``expert.time_zone``, for times
    that are dates; or a number in the source's unit, above 0, counted from the first training
    event."""
    first_periods: Annotated[PositiveInt, Affects.PREQUENTIAL] = 1
    """Number of periods that are learned before the first forecast."""
    strategies: Annotated[
        tuple[Literal["frozen", "retrained", "fine_tuned", "replay", "prompts"], ...],
        Affects.NOTHING,
    ] = Field(default=STRATEGIES, min_length=1, strict=False)
    """Ways to learn from each period. ``frozen``: none; ``retrained``: a new expert from all events
    so far; ``fine_tuned``: the weights continue on the period alone; ``replay``: they continue on
    the period and on ``update.replay`` older events for each of its events; ``prompts``: only the
    prompts are trained, on the period alone."""
