"""The kinds of models that an evaluation knows."""

from mmtpp.core.model_kind import ModelKind
from mmtpp.evaluate.context import EvaluationContext
from mmtpp.evaluate.kinds.evaluated_expert import EvaluatedExpert
from mmtpp.evaluate.kinds.evaluated_language_model import EvaluatedLanguageModel
from mmtpp.evaluate.kinds.evaluated_model import EvaluatedModel
from mmtpp.evaluate.kinds.evaluated_soft_model import EvaluatedSoftModel
from mmtpp.model.folders.description import describe_model
from mmtpp.model.folders.record import TrainedTasks

EVALUATED_KINDS: dict[ModelKind, type[EvaluatedModel]] = {
    ModelKind.EXPERT: EvaluatedExpert,
    ModelKind.SOFT: EvaluatedSoftModel,
    ModelKind.LANGUAGE_MODEL: EvaluatedLanguageModel,
}


def build_evaluated_model(
    context: EvaluationContext, trained_tasks: TrainedTasks
) -> EvaluatedModel:
    """Build the model of an evaluation, of the kind that its folder holds."""
    description = describe_model(context.location.model_uri, context.location.adapter_uri)
    return EVALUATED_KINDS[description.kind](context, trained_tasks)
