"""The kinds of models that an evaluation knows."""

from mmtpp.core.representation.style_layout import SOFT
from mmtpp.evaluate.context import EvaluationContext
from mmtpp.evaluate.kinds.evaluated_expert import EvaluatedExpert
from mmtpp.evaluate.kinds.evaluated_language_model import EvaluatedLanguageModel
from mmtpp.evaluate.kinds.evaluated_model import EvaluatedModel
from mmtpp.evaluate.kinds.evaluated_soft_model import EvaluatedSoftModel
from mmtpp.expert.expert_folder import is_expert
from mmtpp.model.record import TrainedTasks


def build_evaluated_model(
    context: EvaluationContext, trained_tasks: TrainedTasks
) -> EvaluatedModel:
    """Build the model of an evaluation, of the kind that its folder holds."""
    if is_expert(context.model.model_uri):
        return EvaluatedExpert(context, trained_tasks)
    if context.held_out.template.style == SOFT:
        return EvaluatedSoftModel(context, trained_tasks)
    return EvaluatedLanguageModel(context, trained_tasks)
