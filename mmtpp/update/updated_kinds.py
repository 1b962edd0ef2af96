"""The kinds of models that an update continues."""

from mmtpp.core.errors import ConfigError
from mmtpp.core.model_kind import ModelKind
from mmtpp.model.folders.description import describe_model
from mmtpp.update.updated_expert import UpdatedExpert
from mmtpp.update.updated_language_model import UpdatedLanguageModel
from mmtpp.update.updated_model import PresentModel, UpdatedModel

UPDATED_KINDS = {
    ModelKind.EXPERT: UpdatedExpert,
    ModelKind.LANGUAGE_MODEL: UpdatedLanguageModel,
}


def build_updated_model(present: PresentModel) -> UpdatedModel:
    """Build the update of a model, of the kind that its folder holds.

    Args:
        present: The model.

    Raises:
        ConfigError: No update continues this kind of model, or the settings do not fit it.
        ModelError: The folder holds no model, or the model does not fit the store.
    """
    kind = describe_model(present.folder).kind
    if kind not in UPDATED_KINDS:
        raise ConfigError(
            "only a temporal expert or a language model can be updated",
            where=present.folder,
            cause="a model of soft tokens is trained again by pretrain",
            setting=f"update.model = {present.folder}",
        )
    return UPDATED_KINDS[kind](present)
