"""Settings that leave nothing to train or to validate are reported with their values."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from mmtpp.config.schema import LossWeights, TaskWeights
from mmtpp.core.errors import ConfigError, DataError
from mmtpp.core.training.training_metrics import VALIDATION_INTERVAL_NLL
from mmtpp.data.samples.sample_settings import SampleSettings
from mmtpp.data.store.store_settings import StoreSettings
from mmtpp.model.batch import Batcher
from mmtpp.model.tokens.vocabulary import Vocabulary
from mmtpp.train import step as step_module
from mmtpp.train.engine.deepspeed_engine import DeepSpeedEngine
from mmtpp.train.ranks.rank_group import RankGroup
from mmtpp.train.ranks.watchdog import Watchdog
from mmtpp.train.step import LabelWeights, StepContext, train_step
from mmtpp.train.validation import Validation
from mmtpp.train.worker_inputs import WorkerInputs
from tests.helpers.stand_in import stand_in
from tests.helpers.tiny_models import random_row, tiny_vocabulary


def test_a_step_without_weighted_labels_names_the_weights(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        step_module, "sum_numbers_over_ranks", lambda values, _device: np.array(values)
    )
    weights = LabelWeights(LossWeights(time=0, type=0, text=0, control=0), TaskWeights(history=0.5))
    batcher = stand_in(Batcher, device=torch.device("cpu"))
    context = StepContext(cast(Any, None), batcher, weights, num_micro_batches=1, seed=0)
    row = random_row(tiny_vocabulary(), [30], seed=0)
    with pytest.raises(ConfigError, match="no label of the step has a positive weight") as caught:
        train_step(context, [row], 7)
    assert caught.value.where.startswith("step 7, samples of this rank")
    for setting in ("training.loss_weights.time = 0", "tasks.time = 1", "tasks.history = 0.5"):
        assert setting in caught.value.setting


@pytest.mark.parametrize("is_target", [False, True])
def test_a_validation_without_targets_names_the_delta(
    monkeypatch: pytest.MonkeyPatch, is_target: bool
):
    """Every token is a label; an event that targets_delta leaves out is no target."""
    event_is_target = np.array([is_target])
    row = replace(random_row(tiny_vocabulary(), [30], seed=0), event_is_target=event_is_target)
    # time, type and text of one event
    modality = np.repeat(np.array([1, 2, 3], np.uint8), [10, 1, 19])
    row = replace(row, modality=modality, event=np.zeros(30, np.int32))
    monkeypatch.setattr(Validation, "_rows", lambda _: iter([(row, True)]))
    store = StoreSettings("store/data", "f", 28)
    samples = stand_in(SampleSettings, store=store, targets_delta=3.5)
    model = SimpleNamespace(eval=lambda: None, train=lambda: None)
    num_labels = len(row.label_positions())
    scores = torch.ones(num_labels), torch.zeros(num_labels, dtype=torch.int64)
    engine = stand_in(DeepSpeedEngine, model=model, score=lambda *_: scores)
    validation = Validation(
        settings=samples,
        inputs=stand_in(WorkerInputs, type_codes=[0], trained_tasks=None, soft=None),
        group=RankGroup(0, 1, torch.device("cpu"), torch.float32),
        vocabulary=stand_in(Vocabulary, type_ids=lambda codes: [0] * len(codes)),
        step_context=stand_in(
            StepContext,
            engine=engine,
            batcher=lambda row: row,
            label_weights=LabelWeights(LossWeights(), TaskWeights()),
        ),
        watchdog=stand_in(Watchdog, record_position=lambda *_, **__: None),
    )
    monkeypatch.setattr("mmtpp.train.validation.sum_tensor_over_ranks", lambda values: values)
    if is_target:
        # ten bytes of the time code at 1 nat each; the first token has no predecessor
        assert validation.run(4)[VALIDATION_INTERVAL_NLL] == num_labels - 20 == 9
        return
    with pytest.raises(DataError, match="no validation event is a target") as caught:
        validation.run(4)
    assert caught.value.setting == "evaluation.targets_delta = 3.5"
    assert caught.value.where == "store/data"
