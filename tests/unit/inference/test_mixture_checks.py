"""Checks of the parts of a mixture."""

import logging
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from mmtpp.config.schema import ModelSection
from mmtpp.core.errors import ConfigError, ModelError
from mmtpp.core.forecasting.gate import Gate
from mmtpp.core.forecasting.interval_forecasts import IntervalRange
from mmtpp.core.model_kind import ModelKind
from mmtpp.expert.gated_expert import GatedExpert
from mmtpp.inference import mixture_checks
from mmtpp.model.folders import folder
from mmtpp.model.folders.description import ModelDescription
from mmtpp.model.folders.record import TrainedTasks

TASKS = TrainedTasks(("time", "type"), IntervalRange(1.0, 9.0, 1.0), (0, 1), ("a", "b"), 1.0, False)
MODEL = ModelSection(path="/models/m", adapter="/models/a", expert="/models/e")


def _described(
    trained_tasks: TrainedTasks | None, kind: ModelKind = ModelKind.LANGUAGE_MODEL
) -> ModelDescription:
    return ModelDescription(uri="/models/a", kind=kind, trained_tasks=trained_tasks)


def test_a_gate_of_another_model_is_named(caplog: pytest.LogCaptureFixture):
    expert: Any = SimpleNamespace()
    gated = GatedExpert(expert, (0, 1), Gate(0.5, 0.5), ("/models/m", "/models/a"))
    with caplog.at_level(logging.WARNING):
        mixture_checks.warn_of_other_model(gated, MODEL)
        mixture_checks.warn_of_other_model(replace(gated, fitted_with=None), MODEL)
        assert not caplog.records
        mixture_checks.warn_of_other_model(
            replace(gated, fitted_with=("/models/m", "/models/x")), MODEL
        )
    expected = "/models/e was fitted with model.path = /models/m, model.adapter = /models/x"
    assert expected in caplog.text


def test_a_model_that_forecasts_no_types_is_refused():
    with pytest.raises(ConfigError) as error:
        mixture_checks.check_language_model(MODEL, _described(replace(TASKS, tasks=("time",))))
    assert "model.expert = /models/e" in str(error.value)
    with pytest.raises(ConfigError, match="was not fine-tuned"):
        mixture_checks.check_language_model(MODEL, _described(None))
    assert mixture_checks.check_language_model(MODEL, _described(TASKS)) == TASKS


def test_two_experts_are_not_mixed():
    with pytest.raises(ConfigError, match="not with another expert"):
        mixture_checks.check_language_model(MODEL, _described(TASKS, ModelKind.EXPERT))


def test_another_clock_is_refused():
    manifest: Any = SimpleNamespace(tick=0.5)
    with pytest.raises(ModelError, match=r"ticks of 0\.5, the model was trained with ticks of 1"):
        mixture_checks.check_clock(1.0, manifest, where="store")


def test_an_expert_with_other_types_or_units_is_refused(monkeypatch: pytest.MonkeyPatch):
    vocabulary: Any = SimpleNamespace(hash="h")
    descriptions = {"e": _described(TASKS, ModelKind.EXPERT), "m": _described(TASKS)}
    monkeypatch.setattr(folder, "load_model_vocabulary", lambda uri: vocabulary)
    monkeypatch.setattr(mixture_checks, "describe_model", lambda uri: descriptions[uri])
    assert mixture_checks.check_expert("e", TASKS, vocabulary, where="m") == TASKS
    for other in (replace(TASKS, type_names=("b", "a")), replace(TASKS, seconds_per_unit=60.0)):
        with pytest.raises(ModelError):
            mixture_checks.check_expert("e", other, vocabulary, where="m")
    with pytest.raises(ModelError, match="holds no temporal expert"):
        mixture_checks.check_expert("m", TASKS, vocabulary, where="m")
