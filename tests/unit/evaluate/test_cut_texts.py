"""Texts that a model cannot read whole are counted, whatever the kind of the model."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from mmtpp.data.samples.long_texts import LongTexts
from mmtpp.evaluate.kinds import evaluated_soft_model
from mmtpp.evaluate.kinds.evaluated_soft_model import EvaluatedSoftModel


def test_a_soft_model_counts_the_texts_that_were_cut(monkeypatch: pytest.MonkeyPatch):
    cut = LongTexts(truncated=2)
    plan = SimpleNamespace(long_texts=cut)
    monkeypatch.setattr(evaluated_soft_model, "make_plan", lambda *_: plan)
    monkeypatch.setattr(EvaluatedSoftModel, "_target_settings", None)
    vocabulary = SimpleNamespace(token_ids=lambda: None)
    model = EvaluatedSoftModel(
        cast(Any, SimpleNamespace(vocabulary=vocabulary)), cast(Any, SimpleNamespace())
    )
    assert model.cut_text_counts() == cut.metrics("targets_")
    assert sum(model.cut_text_counts().values()) == 2
