"""The kinds of models that forecast events."""

from enum import StrEnum


class ModelKind(StrEnum):
    """How a model reads events and what it forecasts with.

    Attributes:
        EXPERT: A temporal expert, without a language model.
        SOFT: A language model that reads one soft token per event, with the heads of an expert.
        LANGUAGE_MODEL: A language model that reads and writes tokens.
    """

    EXPERT = "expert"
    SOFT = "soft"
    LANGUAGE_MODEL = "language_model"
