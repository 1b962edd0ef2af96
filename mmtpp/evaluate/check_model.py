"""Checks that a model, and an expert that is mixed with it, fit a store and the settings."""

import logging

from mmtpp.config.schema import ModelSection, RunConfig
from mmtpp.core.errors import ConfigError, ModelError
from mmtpp.core.representation.tasks import EVENT_TASKS, check_futures
from mmtpp.expert.expert_folder import is_expert
from mmtpp.expert.gated_expert import GatedExpert, load_gated_expert
from mmtpp.model.backbones.registry import check_backbone
from mmtpp.model.folder import load_model_vocabulary
from mmtpp.model.record import EventDescription, TrainedTasks, check_template, load_trained_tasks
from mmtpp.model.vocabulary import Vocabulary, check_same_vocabulary
from mmtpp.storage.manifest import Manifest

logger = logging.getLogger(__name__)


def check_model(
    config: RunConfig, manifest: Manifest, vocabulary: Vocabulary
) -> TrainedTasks | None:
    """Check that the model fits the store and the settings.

    Returns:
        Tasks that the model was trained on; None for a model of stage 1.

    Raises:
        ModelError: The model does not fit the store or the template.
        ConfigError: The model cannot do what the settings ask for.
    """
    check_backbone(config.model, config.template)
    for uri in filter(None, (config.model.path, config.model.adapter)):
        check_same_vocabulary(load_model_vocabulary(uri).hash, vocabulary.hash, where=uri)
    scored = config.model.adapter or config.model.path
    if scored:
        check_template(config.sample_sections, scored, to_train=False)
    trained_tasks = load_trained_tasks(scored)
    if trained_tasks is not None and set(trained_tasks.tasks) & set(EVENT_TASKS):
        trained_tasks.check(manifest, where=config.store.uri)
    if futures := config.evaluation.num_futures:
        check_futures(
            () if trained_tasks is None else trained_tasks.tasks,
            where=scored,
            setting=f"evaluation.num_futures = {futures}",
        )
    if config.model.expert:
        check_mixture(config.model, trained_tasks)
        warn_of_other_model(load_gated_expert(config.model.expert), config.model)
        expert_tasks = check_expert(
            config.model.expert, manifest, vocabulary, where=config.store.uri
        )
        check_clock(expert_tasks, manifest, where=config.store.uri)
    if trained_tasks is not None and is_expert(config.model.path):
        check_clock(trained_tasks, manifest, where=config.store.uri)
    return trained_tasks


def check_mixture(model: ModelSection, trained_tasks: TrainedTasks | None) -> TrainedTasks:
    """Check that the model is a language model that forecasts, which an expert can be mixed with.

    Args:
        model: Section ``model`` of the settings.
        trained_tasks: Tasks that the model was trained on; None for a model of stage 1.

    Returns:
        The tasks.

    Raises:
        ConfigError: The model is an expert, or was not fine-tuned to forecast.
    """
    setting = f"model.expert = {model.expert}"
    if is_expert(model.path):
        raise ConfigError(
            "an expert is mixed with a language model only, not with another expert",
            where=model.path,
            setting=setting,
        )
    if trained_tasks is None or not {"time", "type"} <= set(trained_tasks.tasks):
        raise ConfigError(
            "an expert is mixed only with a model that forecasts times and types",
            where=model.adapter or model.path,
            cause="the model was not fine-tuned on tasks.time and tasks.type",
            setting=setting,
        )
    return trained_tasks


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
    check_same_vocabulary(load_model_vocabulary(uri).hash, vocabulary.hash, where=uri)
    trained_tasks = load_trained_tasks(uri)
    if trained_tasks is None or not is_expert(uri):
        raise ModelError(
            "the folder holds no temporal expert",
            where=uri,
            cause="only pretrain with model.preset = expert, and combine, write such folders",
            setting=f"model.expert = {uri}",
        )
    trained_tasks.check(events, where=where)
    return trained_tasks


def check_clock(trained_tasks: TrainedTasks, manifest: Manifest, *, where: str) -> None:
    """Check that the likelihoods of an expert have the clock of the store.

    Args:
        trained_tasks: The record of the expert.
        manifest: Manifest of the store.
        where: Location of the store, for the error.

    Raises:
        ModelError: The ticks differ.
    """
    if trained_tasks.intervals.tick != manifest.tick:
        raise ModelError(
            f"the store's clock has ticks of {manifest.tick:g}, the expert was trained with ticks "
            f"of {trained_tasks.intervals.tick:g}",
            where=where,
            cause="the expert was trained on another store, whose times were finer or coarser; "
            "their likelihoods cannot be compared",
        )
