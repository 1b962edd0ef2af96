"""The order of the parts of an evaluation."""

import pytest

from mmtpp.core.errors import DataError
from mmtpp.core.forecasting.interval_forecasts import IntervalRange
from mmtpp.core.model_kind import ModelKind
from mmtpp.evaluate import evaluate
from mmtpp.evaluate.context import EvaluationContext
from mmtpp.model.folders.description import ModelDescription
from mmtpp.model.folders.record import TrainedTasks
from tests.helpers.stand_in import stand_in


def test_a_split_without_questions_stops_it_before_anything_is_computed(
    monkeypatch: pytest.MonkeyPatch,
):
    def has_no_question(_context: EvaluationContext) -> None:
        raise DataError("no sequence of the test split has a question")

    def compute(*_arguments: object) -> None:
        raise AssertionError("computed before the check")

    monkeypatch.setattr(evaluate, "plan_answers", has_no_question)
    for name in ("evaluate_likelihoods", "evaluate_forecasts", "evaluate_answers"):
        monkeypatch.setattr(evaluate, name, compute)
    tasks = TrainedTasks(
        ("time", "qa"), IntervalRange(1.0, 9.0, 1.0), (0, 1), ("a", "b"), 60.0, trains_history=True
    )
    with pytest.raises(DataError, match="has a question"):
        evaluate._score(
            stand_in(EvaluationContext),
            ModelDescription(uri="model", kind=ModelKind.LANGUAGE_MODEL, trained_tasks=tasks),
        )
