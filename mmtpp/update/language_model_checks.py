"""Checks that a language model can be updated, before any machine is asked for."""

from mmtpp.config.load import with_values
from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import ConfigError, ModelError
from mmtpp.core.model_kind import ModelKind
from mmtpp.inference.mixture_checks import check_clock
from mmtpp.model.folders.adapter import base_of_adapter
from mmtpp.model.folders.record import TrainedTasks
from mmtpp.storage.hub import is_hub, pin_revision
from mmtpp.update.updated_model import PresentModel


def continue_config(present: PresentModel) -> RunConfig:
    """Settings of the training that continues an adapter, or a whole model.

    Args:
        present: The model.

    Raises:
        ConfigError: Settings are those of an expert, or name another base than the adapter's.
    """
    config, folder = present.config, present.folder
    if config.model_kind == ModelKind.EXPERT:
        raise ConfigError(
            "the settings are those of an expert, but the model is a language model",
            where=folder,
            setting="model.preset = expert; set that of the language model",
        )
    if settings := config.update.of_expert:
        names = ", ".join(f"{name} = {value}" for name, value in settings.items())
        raise ConfigError(
            "a language model does not have these settings of an update",
            where=folder,
            cause="they apply to a temporal expert; a language model continues with the settings "
            "of finetune, such as training.num_steps, training.learning_rate and lora.rank",
            setting=names,
        )
    base = base_of_adapter(folder)
    if base is None:
        return with_values(config, {"model.path": pin_revision(folder), "model.adapter": ""})
    base = _checked_base(present, present.registered_base or base)
    return with_values(config, {"model.path": base, "model.adapter": folder})


def _checked_base(present: PresentModel, named: str) -> str:
    """The base of an adapter, which the settings may name too.

    Args:
        present: The model.
        named: Base that the adapter names; empty for none.

    Raises:
        ConfigError: There is no base, or the settings name another one.
    """
    given = present.config.model.path.rstrip("/")
    if not (named or given):
        raise ConfigError(
            "the adapter does not name the model that it adapts",
            where=present.folder,
            cause="it was trained on a new tiny model with random weights, which was not kept",
            setting="model.path, which is empty",
        )
    # the settings of a training name a model of the hub without its commit, its adapter with it
    unpinned = named.partition("@")[0] if is_hub(named) else named.rstrip("/")
    if given and named and given not in (named.rstrip("/"), unpinned):
        raise ConfigError(
            f"the adapter belongs to another base model, {named}",
            where=present.folder,
            cause="an adapter is continued on the model that it was trained on",
            setting=f"model.path = {present.config.model.path}; leave it empty, or set that model",
        )
    return pin_revision(named or given)


def check_tasks(config: RunConfig, trained_tasks: TrainedTasks | None) -> TrainedTasks:
    """Check that a model forecasts times and types, and is continued on its own tasks.

    Args:
        config: Settings of the training.
        trained_tasks: Record of the model; None for a model of stage 1 or a pretrained base.

    Returns:
        The record.

    Raises:
        ConfigError: The model has no forecasts to compare, or the settings have other tasks.
    """
    where = config.model.adapter or config.model.path
    tasks = () if trained_tasks is None else trained_tasks.tasks
    if trained_tasks is None or "time" not in tasks or not {"type", "joint"} & set(tasks):
        raise ConfigError(
            "only a language model that forecasts times and types can be updated",
            where=where,
            cause=f"the model was fine-tuned on {', '.join(tasks) or 'no task'}, so there is no "
            "joint likelihood to compare; run jobs/finetune.py with tasks.time, and tasks.type or "
            "tasks.joint, above 0",
            setting=f"update.model = {config.update.model}",
        )
    if "qa" in tasks:
        raise ConfigError(
            "a model that answers questions in words cannot be updated",
            where=where,
            cause="these questions are about whole sequences, which are neither new nor old; "
            "continue the model with jobs/finetune.py and model.adapter",
            setting=f"update.model = {config.update.model}",
        )
    if config.tasks.asked != tasks:
        weights = config.tasks.model_dump()
        raise ConfigError(
            f"the model was fine-tuned on the tasks {', '.join(tasks)}, and an update keeps them",
            where=where,
            cause="the weights of other tasks are above 0, or those of these tasks are 0",
            setting=", ".join(f"tasks.{name} = {weight:g}" for name, weight in weights.items()),
        )
    return trained_tasks


def check_update_events(present: PresentModel, trained_tasks: TrainedTasks) -> None:
    """Check that a model knows the types of a store, and that its clock is that of the store.

    Args:
        present: The model.
        trained_tasks: Its record.

    Raises:
        ModelError: A type is unknown, or the clocks differ.
    """
    store = present.store
    known = set(trained_tasks.type_codes)
    if unknown := [code for code in store.manifest.occurring_types if code not in known]:
        names = ", ".join(trained_tasks.name_of(code) for code in unknown)
        raise ModelError(
            f"the store has events of types that the model has never seen: {names}",
            where=store.uri,
            cause="an update keeps the types of a model; fine-tune a new one on all events",
            setting=f"update.model = {present.folder}",
        )
    check_clock(trained_tasks.interval_range.tick, store.manifest, where=store.uri)
