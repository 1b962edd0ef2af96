"""The kinds of models that an evaluation knows."""

from mmtpp.core.model_kind import ModelKind
from mmtpp.evaluate.context import EvaluationContext
from mmtpp.evaluate.kinds.evaluated_expert import EvaluatedExpert
from mmtpp.evaluate.kinds.evaluated_language_model import EvaluatedLanguageModel
from mmtpp.evaluate.kinds.evaluated_model import EvaluatedModel
from mmtpp.evaluate.kinds.evaluated_soft_model import EvaluatedSoftModel
from mmtpp.model.folders.record import TrainedTasks

EVALUATED_KINDS: dict[ModelKind, type[EvaluatedModel]] = {
    ModelKind.EXPERT: EvaluatedExpert,
    ModelKind.SOFT: EvaluatedSoftModel,
    ModelKind.LANGUAGE_MODEL: EvaluatedLanguageModel,
}


def build_evaluated_model(
    kind: ModelKind, context: EvaluationContext, trained_tasks: TrainedTasks
) -> EvaluatedModel:
    """Build the model of an evaluation.

    Args:
        kind: Kind of the model, which ``check_model`` reads from its folder.
        context: The evaluation.
        trained_tasks: Tasks that the model was trained on.
    """
    return EVALUATED_KINDS[kind](context, trained_tasks)
