"""Soft tokens on a real cluster: training with ZeRO-3, evaluation, futures, predict and the API."""

import numpy as np
import pytest

from mmtpp.core.errors import ConfigError
from mmtpp.core.training.training_metrics import (
    VALIDATION_EVENT_NLL,
    VALIDATION_INTERVAL_NLL,
)
from mmtpp.evaluate.evaluate import evaluate
from mmtpp.storage.manifest import load_manifest
from mmtpp.storage.parquet import read_table
from mmtpp.train.launch import finetune, pretrain
from tests.helpers.curves import curve
from tests.helpers.job_settings import STORE, make_config
from tests.on_ray.agreement import check_predict_and_the_api_agree

COIN = np.log(2)  # an interval is 5 or 6 s, or 60 or 61 s, and the type is certain
SOFT = {
    "template.style": "soft",
    "compression.strategy": "none",
    "expert.width": 32,
    "expert.dropout": 0.0,
    "training.learning_rate": 1e-2,
    "training.num_steps": 40,
    "training.checkpoint_every": 20,
}


@pytest.fixture(scope="module")
def soft(store) -> dict:
    """A model of soft tokens, whose parameters two workers shard with ZeRO-3."""
    return pretrain(make_config(**SOFT, **{"run.name": "soft", "zero.stage": 3}))


def test_sharding_does_not_change_the_training(soft, mlflow_client):
    whole = pretrain(
        make_config(
            **SOFT, **{"run.name": "soft-whole", "zero.stage": 0, "training.num_workers": 1}
        )
    )
    sharded, unsharded = (curve(mlflow_client, result["run_id"]) for result in (soft, whole))
    # later steps multiply the differences of rounding
    for step in range(1, 11):
        assert sharded[step] == pytest.approx(unsharded[step], abs=1e-4)
    for name in (VALIDATION_EVENT_NLL, VALIDATION_INTERVAL_NLL):
        assert soft["metrics"][name] == pytest.approx(whole["metrics"][name], abs=0.2)


def test_every_event_is_forecast_once(soft):
    settings = {
        **SOFT,
        "model.path": soft["model_uri"],
        "evaluation.num_futures": 2,
        "evaluation.horizon": 70.0,
        "evaluation.origins_per_sequence": 3,
    }
    result = evaluate(make_config(**settings))
    manifest = load_manifest(STORE)
    sequences = manifest.sequences_by_split["test"]
    targets = read_table(str(result["targets_uri"]))
    assert len(targets) == manifest.events_by_split["test"] - sequences
    assert len(targets.group_by(["sequence_id", "position"]).aggregate([])) == len(targets)
    metrics, baselines = result["metrics"], result["baselines"]
    assert COIN - 0.05 < metrics["joint/nll_nats_per_event"] < COIN + 0.6
    assert metrics["type/accuracy"] > 0.95
    assert metrics["joint/nll_nats_per_event"] < baselines["poisson/joint/nll_nats_per_event"]
    futures = read_table(str(result["targets_uri"]).replace("targets", "futures"))
    assert len(futures) == sequences * 3 * 2
    assert metrics["horizon/otd_s"] > 0


def test_predict_and_the_python_api_agree(soft):
    check_predict_and_the_api_agree(str(soft["model_uri"]), **SOFT)


def test_an_expert_is_not_mixed_with_it(soft):
    settings = {**SOFT, "model.path": soft["model_uri"], "model.expert": soft["model_uri"]}
    with pytest.raises(ConfigError, match="not mixed with a model of soft tokens"):
        evaluate(make_config(**settings))


def test_settings_that_contradict_soft_tokens_are_refused(store):
    with pytest.raises(ConfigError, match="not compressed"):
        pretrain(make_config(**SOFT | {"compression.strategy": "temporal"}))
    with pytest.raises(ConfigError, match="pretrain alone"):
        finetune(make_config(**SOFT))
