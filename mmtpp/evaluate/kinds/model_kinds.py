"""The kinds of models that an evaluation knows."""

from mmtpp.evaluate.context import EvaluationContext
from mmtpp.evaluate.kinds.evaluated_model import EvaluatedModel
from mmtpp.evaluate.kinds.expert_model_forecasts import ExpertModelForecasts
from mmtpp.evaluate.kinds.language_model_forecasts import LanguageModelForecasts
from mmtpp.expert.expert_folder import is_expert
from mmtpp.model.record import TrainedTasks


def build_evaluated_model(
    context: EvaluationContext, trained_tasks: TrainedTasks
) -> EvaluatedModel:
    """Build the model of an evaluation, of the kind that its folder holds."""
    if is_expert(context.model.model_uri):
        return ExpertModelForecasts(context, trained_tasks)
    return LanguageModelForecasts(context, trained_tasks)
