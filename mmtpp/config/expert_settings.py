"""Settings of the temporal expert."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, field_validator

from mmtpp.config.affects import Affects
from mmtpp.config.section import Fraction, Section
from mmtpp.core.times.calendar import find_zone

FEW_EVENTS = 8192
"""Number of training events below which an expert needs stronger dropout. It and the probabilities
below were chosen by ``benchmarks/quality/little_data.py --held-out validation``."""
DROPOUT, FEW_EVENTS_DROPOUT, FEW_EVENTS_MEMORY_DROPOUT = 0.3, 0.5, 0.2
EPOCHS, FEW_EVENTS_EPOCHS = 30, 90
FEW_EVENTS_HAWKES_FRACTION, MAX_HAWKES_TYPES = 0.9, 32


class ExpertSection(Section):
    """The temporal expert, ``model.preset = "expert"``: small networks that forecast from a memory
    of all earlier events. ``pretrain`` trains it in minutes on a CPU. Models of soft tokens
    (``template.style = "soft"``) read ``width``, ``num_components``, ``dropout``, ``calendar``,
    ``time_zone`` and ``texts``, too."""

    num_networks: Annotated[int, Field(ge=1, le=16), Affects.RUN] = 3
    """Number of networks, 1 to 16. Their forecasts are averaged."""
    width: Annotated[int, Field(ge=8, le=1024), Affects.RUN] = 64
    """Width of a network, 8 to 1024."""
    num_components: Annotated[int, Field(ge=2, le=256), Affects.RUN] = 32
    """Number of log-normal components of the distribution of an interval, 2 to 256."""
    dropout: Annotated[Literal["auto"] | Fraction, Affects.RUN] = "auto"
    """Probability of dropout of the widest layer and of the features of text and image, 0 to below
    1. ``auto``: 0.3, and for an expert 0.5 with fewer than 8,192 training events."""
    memory_dropout: Annotated[Literal["auto"] | Fraction, Affects.RUN] = "auto"
    """Probability of dropout of each column of the memory, 0 to below 1. ``auto``: 0, and 0.2 with
    fewer than 8,192 training events."""
    hawkes_fraction: Annotated[Literal["auto"] | Fraction, Affects.RUN] = "auto"
    """Share of the training targets, 0 to below 1, that are first drawn from a Hawkes process, in
    place of the events that occurred. It falls to 0 within two thirds of the training. The process
    is fitted to the training events before. ``auto``: 0, and 0.9 with fewer than 8,192 training
    events and at most 32 types."""
    epochs: Annotated[Literal["auto"] | PositiveInt, Affects.RUN] = "auto"
    """Largest number of passes of a network over the training events. ``auto``: 30, and 90 with
    fewer than 8,192 training events if there are validation events. A network is finished earlier
    when it has not improved on the validation events for a third of its training."""
    max_steps: Annotated[PositiveInt, Affects.RUN] = 5000
    """Largest number of steps of a network."""
    events_per_step: Annotated[Literal["auto"] | PositiveInt, Affects.RUN] = "auto"
    """Number of events in a step, over all workers, above 0. ``auto``: 1,024. With images: fewer,
    down to 128, as long as all epochs fit into ``expert.max_steps``. Images take more steps to
    learn. With few training events a step has fewer of them, but about 32 or more, so that an epoch
    has 8 steps."""
    learning_rate: Annotated[PositiveFloat, Affects.RUN] = 3e-3
    """Largest learning rate of AdamW, above 0."""
    weight_decay: Annotated[NonNegativeFloat, Affects.RUN] = 0.01
    """Decoupled weight decay, at least 0."""
    num_validations: Annotated[int, Field(ge=1, le=1000), Affects.RUN] = 12
    """Number of validations of a network, 1 to 1000. The best weights are kept."""
    calendar: Annotated[bool, Affects.RUN] = True
    """Whether the expert reads the time of day, week and year, each of them only if the training
    events span it at least twice."""
    time_zone: Annotated[str, Affects.RUN] = "UTC"
    """IANA name of the calendar's time zone, such as ``Europe/Berlin``; only for times that are
    dates."""
    texts: Annotated[Literal["none", "length", "words"], Affects.RUN] = "words"
    """What the expert reads of texts: ``words`` (the number of tokens of each text, and the first
    and last 16 tokens of the newest one), ``length`` (only the numbers) or ``none``."""
    images: Annotated[Literal["none", "last"], Affects.RUN] = "none"
    """What the expert reads of images: ``none`` or ``last`` (the image of the newest event and that
    of the one before, shrunk to 24 x 24 pixels). With images, the training takes about 20 times as
    long (games of chess, docs/results.md)."""
    next_image_weight: Annotated[Literal["auto"] | NonNegativeFloat, Affects.RUN] = "auto"
    """Weight of the nats of where the next image will differ, at least 0, in the training of an
    expert that reads images. ``auto``: 0.3 if fewer than one in 16 patches of the next images
    differ, and otherwise 0: where much of an image changes, this says little about the event."""

    def dropout_for(self, num_events: int) -> float:
        """Probability of dropout with a number of training events."""
        if self.dropout != "auto":
            return self.dropout
        return FEW_EVENTS_DROPOUT if num_events < FEW_EVENTS else DROPOUT

    def memory_dropout_for(self, num_events: int) -> float:
        """Probability of dropout of the memory's columns with a number of training events."""
        if self.memory_dropout != "auto":
            return self.memory_dropout
        return FEW_EVENTS_MEMORY_DROPOUT if num_events < FEW_EVENTS else 0.0

    def hawkes_fraction_for(self, num_events: int, num_types: int) -> float:
        """Share of drawn targets with a number of training events and of types."""
        if self.hawkes_fraction != "auto":
            return self.hawkes_fraction
        is_small = num_events < FEW_EVENTS and num_types <= MAX_HAWKES_TYPES
        return FEW_EVENTS_HAWKES_FRACTION if is_small else 0.0

    def epochs_for(self, num_events: int, *, has_validation: bool) -> int:
        """Largest number of epochs with a number of training events."""
        if self.epochs != "auto":
            return self.epochs
        return FEW_EVENTS_EPOCHS if num_events < FEW_EVENTS and has_validation else EPOCHS

    @field_validator("texts", mode="before")
    @classmethod
    def _texts_are_named(cls, texts: object) -> object:
        if isinstance(texts, bool):
            raise ValueError(
                f"is no longer true or false: set {'words or length' if texts else 'none'}"
            )
        return texts

    @field_validator("time_zone")
    @classmethod
    def _zone_exists(cls, name: str) -> str:
        find_zone(name)
        return name
