"""Settings that leave nothing to train or to validate are reported with their values."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from mmtpp.config.schema import LossWeights, TaskWeights
from mmtpp.core.errors import ConfigError, DataError
from mmtpp.data.samples.sample_settings import SampleSettings
from mmtpp.data.store.store_settings import StoreSettings
from mmtpp.model.batch import Batcher
from mmtpp.model.tokens.vocabulary import Vocabulary
from mmtpp.train import step as step_module
from mmtpp.train import validation
from mmtpp.train.engine.deepspeed_engine import DeepSpeedEngine
from mmtpp.train.step import LabelWeights, StepContext, train_step
from mmtpp.train.worker import Worker
from mmtpp.train.worker_inputs import WorkerInputs
from tests.helpers.stand_in import stand_in
from tests.helpers.tiny_models import random_row, tiny_vocabulary


def test_a_step_without_weighted_labels_names_the_weights(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(step_module, "sum_over_ranks", lambda values: values)
    weights = LabelWeights(LossWeights(time=0, type=0, text=0, control=0), TaskWeights(history=0.5))
    batcher = stand_in(Batcher, device=torch.device("cpu"))
    context = StepContext(cast(Any, None), batcher, weights, num_micro_batches=1, seed=0)
    row = random_row(tiny_vocabulary(), [30], seed=0)
    with pytest.raises(ConfigError, match="no label of the step has a positive weight") as caught:
        train_step(context, [row], 7)
    assert caught.value.where.startswith("step 7, samples of this rank")
    for setting in ("training.loss_weights.time = 0", "tasks.time = 1", "tasks.history = 0.5"):
        assert setting in caught.value.setting


def test_a_validation_without_targets_names_the_delta(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(validation, "sum_over_ranks", lambda values: values)
    monkeypatch.setattr(validation, "_rows", lambda _worker: iter(()))
    store = StoreSettings("store/data", "f", 28)
    samples = stand_in(SampleSettings, store=store, targets_delta=3.5)
    model = SimpleNamespace(eval=lambda: None, train=lambda: None)
    worker = stand_in(
        Worker,
        engine=stand_in(DeepSpeedEngine, model=model),
        batcher=stand_in(Batcher, device=torch.device("cpu")),
        inputs=stand_in(WorkerInputs, type_codes=[0], validation_sample_settings=samples),
        vocabulary=stand_in(Vocabulary, type_ids=lambda codes: [0] * len(codes)),
    )
    with pytest.raises(DataError, match="no validation event is a target") as caught:
        validation.validate(worker, 4)
    assert caught.value.setting == "evaluation.targets_delta = 3.5"
    assert caught.value.where == "store/data"
