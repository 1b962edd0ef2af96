"""The kinds of models that forecast events."""

from enum import StrEnum


class ModelKind(StrEnum):
    """How a model reads events and what it forecasts with.

    ``RunConfig.model_kind`` is the kind of a model to train, and ``describe_model`` reads the kind
    of a trained model from its folder. docs/worked-examples.md lists every place that depends on
    the kind. A mixture is no kind: it is a language model with the expert of ``model.expert``.

    Attributes:
        EXPERT: A temporal expert, without a language model.
        SOFT: A language model that reads one soft token per event, with the heads of an expert.
        LANGUAGE_MODEL: A language model that reads and writes tokens.
    """

    EXPERT = "expert"
    SOFT = "soft"
    LANGUAGE_MODEL = "language_model"
