"""Checks that a model fits a store and the settings of an evaluation."""

from mmtpp.config.schema import RunConfig
from mmtpp.core.model_kind import ModelKind
from mmtpp.core.representation.tasks import EVENT_TASKS, check_futures
from mmtpp.data.prepared_store import PreparedStore
from mmtpp.inference.mixture_checks import check_clock, load_mixed_expert
from mmtpp.model.backbones.registry import check_backbone
from mmtpp.model.folders.description import ModelDescription, describe_model
from mmtpp.model.folders.folder import check_vocabularies
from mmtpp.model.folders.record import check_template


def check_model(config: RunConfig, store: PreparedStore) -> ModelDescription:
    """Check that the model, and an expert that is mixed with it, fit the store and the settings.

    Returns:
        Kind and tasks of the model.

    Raises:
        ModelError: The model does not fit the store or the template.
        ConfigError: The model cannot do what the settings ask for.
    """
    model, manifest = config.model, store.manifest
    check_backbone(model, config.template)
    check_vocabularies((model.path, model.adapter), store.vocabulary)
    description = describe_model(model.path, model.adapter)
    if description.uri:
        check_template(config.sample_sections, description.uri, to_train=False)
    trained_tasks = description.trained_tasks
    if trained_tasks is not None and set(trained_tasks.tasks) & set(EVENT_TASKS):
        trained_tasks.check(manifest, where=store.uri)
    if futures := config.evaluation.num_futures:
        check_futures(
            () if trained_tasks is None else trained_tasks.tasks,
            where=description.uri,
            setting=f"evaluation.num_futures = {futures}",
        )
    if model.expert:
        gated = load_mixed_expert(model, description, manifest, store.vocabulary, where=store.uri)
        check_clock(gated.expert.tick, manifest, where=store.uri)
    if trained_tasks is not None and description.kind == ModelKind.EXPERT:
        check_clock(trained_tasks.interval_range.tick, manifest, where=store.uri)
    return description
