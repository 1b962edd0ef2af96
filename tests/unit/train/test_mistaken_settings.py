"""Settings that leave nothing to train or to validate are reported with their values."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from mmtpp.config.schema import LossWeights, TaskWeights
from mmtpp.core.errors import ConfigError, DataError
from mmtpp.data.store.store_settings import StoreSettings
from mmtpp.train import step as step_module
from mmtpp.train import validation
from mmtpp.train.step import LabelWeights, StepContext, train_step
from tests.parity.tiny import random_row, tiny_vocabulary


def test_a_step_without_weighted_labels_names_the_weights(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(step_module, "sum_over_ranks", lambda values: values)
    weights = LabelWeights(LossWeights(time=0, type=0, text=0, control=0), TaskWeights(history=0.5))
    device = SimpleNamespace(device=torch.device("cpu"))
    context = StepContext(cast(Any, None), cast(Any, device), weights, num_micro_batches=1, seed=0)
    row = random_row(tiny_vocabulary(), [30], seed=0)
    with pytest.raises(ConfigError, match="no label of the step has a positive weight") as caught:
        train_step(context, [row], 7)
    assert caught.value.where.startswith("step 7, samples of this rank")
    for setting in ("training.loss_weights.time = 0", "tasks.time = 1", "tasks.history = 0.5"):
        assert setting in caught.value.setting


def test_a_validation_without_targets_names_the_delta(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(validation, "sum_over_ranks", lambda values: values)
    monkeypatch.setattr(validation, "_rows", lambda _worker: iter(()))
    samples = SimpleNamespace(store=StoreSettings("store/data", "f", 28), targets_delta=3.5)
    model = SimpleNamespace(eval=lambda: None, train=lambda: None)
    worker = SimpleNamespace(
        engine=SimpleNamespace(model=model),
        batcher=SimpleNamespace(device=torch.device("cpu")),
        inputs=SimpleNamespace(type_codes=[0], validation=samples),
        vocabulary=SimpleNamespace(type_ids=lambda codes: np.zeros(len(codes), dtype=np.int64)),
    )
    with pytest.raises(DataError, match="no validation event is a target") as caught:
        validation.validate(cast(Any, worker), 4)
    assert caught.value.setting == "evaluation.targets_delta = 3.5"
    assert caught.value.where == "store/data"
