"""Checks that a language model and a temporal expert can be mixed, for every job and the API."""

import logging

from mmtpp.config.schema import ModelSection
from mmtpp.core.errors import ConfigError, ModelError
from mmtpp.core.model_kind import ModelKind
from mmtpp.expert.gated_expert import GatedExpert, load_gated_expert
from mmtpp.model.folders.description import ModelDescription, describe_model
from mmtpp.model.folders.folder import check_vocabularies
from mmtpp.model.folders.record import EventDescription, TrainedTasks
from mmtpp.model.tokens.vocabulary import Vocabulary
from mmtpp.storage.manifest import Manifest

logger = logging.getLogger(__name__)


def load_mixed_expert(
    model: ModelSection,
    description: ModelDescription,
    events: EventDescription,
    vocabulary: Vocabulary,
    *,
    where: str,
) -> GatedExpert:
    """Load the expert and the gate of a mixture, and check that they fit the language model.

    Args:
        model: Section ``model`` of the settings; ``model.expert`` is a folder of ``combine``.
        description: The language model.
        events: Time unit and type names: a store's manifest, or the record of a language model.
        vocabulary: Vocabulary of the store or of the model.
        where: Location of the store or of the model, for the error.

    Raises:
        ConfigError: The model is an expert, or was not fine-tuned to forecast.
        ModelError: The expert has no gate, or its types, time unit or vocabulary differ.
    """
    check_language_model(model, description)
    gated = load_gated_expert(model.expert)
    warn_of_other_model(gated, model)
    check_expert(model.expert, events, vocabulary, where=where)
    return gated


def check_language_model(model: ModelSection, description: ModelDescription) -> TrainedTasks:
    """Check that a model is a language model that forecasts, so an expert can be mixed with it.

    Args:
        model: Section ``model`` of the settings.
        description: The model.

    Returns:
        Tasks that the model was trained on.

    Raises:
        ConfigError: The model is an expert, was not fine-tuned to forecast, or reads soft tokens.
    """
    setting = f"model.expert = {model.expert}"
    if description.kind == ModelKind.EXPERT:
        raise ConfigError(
            "an expert is mixed with a language model only, not with another expert",
            where=model.path,
            setting=setting,
        )
    if description.trained_tasks is None or not description.trained_on("time", "type"):
        raise ConfigError(
            "an expert is mixed only with a model that forecasts times and types",
            where=description.uri,
            cause="the model was not fine-tuned on tasks.time and tasks.type",
            setting=setting,
        )
    if description.kind == ModelKind.SOFT:
        raise ConfigError(
            "an expert is not mixed with a model of soft tokens",
            where=description.uri,
            cause="the model has the network of an expert itself, which reads the same memory",
            setting=setting,
        )
    return description.trained_tasks


def warn_of_other_model(gated: GatedExpert, model: ModelSection) -> None:
    """Warn if the gate was fitted with another language model; a copied folder has another path.

    Args:
        gated: Expert and gate of ``model.expert``.
        model: Section ``model`` of the settings.
    """
    if gated.fitted_with not in (None, (model.path, model.adapter)):
        logger.warning(
            "the gate of model.expert = %s was fitted with model.path = %s, model.adapter = %s; if "
            "these are other models than model.path = %s, model.adapter = %s, run combine again",
            model.expert,
            *gated.fitted_with,
            model.path,
            model.adapter,
        )


def check_expert(
    uri: str, events: EventDescription, vocabulary: Vocabulary, *, where: str
) -> TrainedTasks:
    """Check that the expert of a mixture fits a store, or a language model.

    Args:
        uri: Folder of the expert.
        events: Time unit and type names: a store's manifest, or the record of a language model.
        vocabulary: Vocabulary of the store or of the model.
        where: Location of the store or of the model, for the error.

    Returns:
        The record of the expert's types.

    Raises:
        ModelError: The folder holds no expert, or its types, time unit or vocabulary differ.
    """
    check_vocabularies([uri], vocabulary)
    expert = describe_model(uri)
    if expert.trained_tasks is None or expert.kind != ModelKind.EXPERT:
        raise ModelError(
            "the folder holds no temporal expert",
            where=uri,
            cause="only pretrain with model.preset = expert, and combine, write such folders",
            setting=f"model.expert = {uri}",
        )
    expert.trained_tasks.check(events, where=where)
    return expert.trained_tasks


def check_clock(tick: float, manifest: Manifest, *, where: str) -> None:
    """Check that the likelihoods of a model have the clock of the store.

    Args:
        tick: Tick of the model's clock, in the source's unit.
        manifest: Manifest of the store.
        where: Location of the store, for the error.

    Raises:
        ModelError: The ticks differ.
    """
    if tick != manifest.tick:
        raise ModelError(
            f"the store's clock has ticks of {manifest.tick:g}, the model was trained with ticks "
            f"of {tick:g}",
            where=where,
            cause="the model was trained on another store, whose times were finer or coarser; "
            "their likelihoods cannot be compared",
        )
