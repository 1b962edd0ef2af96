"""Stage 2 on a real cluster: fine-tune, forecast every held-out event, compare with baselines."""

import json

import numpy as np
import pyarrow.compute as pc
import pytest
from mlflow.tracking import MlflowClient

from mmtpp.core.errors import ConfigError, ModelError
from mmtpp.data.settings import store_vocabulary
from mmtpp.evaluate.evaluate import evaluate
from mmtpp.storage.manifest import load_manifest
from mmtpp.storage.parquet import read_table
from mmtpp.storage.paths import read_bytes
from mmtpp.train.launch import finetune
from mmtpp.train.template_record import recorded_answers
from tests.on_ray.curves import curve
from tests.on_ray.settings import STORE, make_config

TASKS = {"tasks.text": 0.5, "lora.rank": 8, "training.learning_rate": 1e-2}


@pytest.fixture(scope="module")
def adapted(base) -> dict:
    """LoRA on the base, asked for time, type and text."""
    changes = {"run.name": "stage2", "model.path": base["adapter_uri"], **TASKS}
    return finetune(make_config(**changes))


def test_stage_two_learns_to_answer(adapted, stack):
    client = MlflowClient(stack.mlflow_uri)
    run = client.get_run(adapted["run_id"])
    assert "finetune" == run.data.tags["mmtpp.job"]
    history = client.get_metric_history(adapted["run_id"], "train/time_loss_per_token")
    assert history[0].value > history[-1].value + 0.5
    assert run.data.metrics["validation/events"] > 10
    assert run.data.metrics["validation/type_accuracy"] >= 0
    answers = recorded_answers(adapted["adapter_uri"])
    assert answers is not None
    assert ("time", "type", "joint", "text") == answers.tasks
    assert (5.0, 61.0) == (answers.intervals.smallest, answers.intervals.largest)


def test_every_held_out_event_is_forecast_once(base, adapted, stack):
    settings = {"model.path": base["adapter_uri"], "model.adapter": adapted["adapter_uri"]}
    result = evaluate(make_config(**settings))
    manifest = load_manifest(STORE)
    sequences = manifest.sequences_by_split["test"]
    expected = manifest.events_by_split["test"] - sequences
    targets = read_table(str(result["targets_uri"]))
    assert expected == result["targets"] == len(targets)
    places = set(
        zip(targets["sequence_id"].to_pylist(), targets["position"].to_pylist(), strict=True)
    )
    assert expected == len(places)
    assert 0 == sum(targets[name].null_count for name in targets.column_names)
    # the forecasts are distributions about what happened
    ordered = [targets[f"quantile_{level}"].to_numpy() for level in ("05", "25", "50", "75", "95")]
    assert (np.diff(ordered, axis=0) >= 0).all()
    assert pc.max(targets["crps"]).as_py() < 100
    metrics = result["metrics"]
    assert metrics["time/rmse_s"] > 0
    assert {
        "type/accuracy",
        "joint/nll_nats_per_event",
        "text/nll_nats_per_token",
    } <= metrics.keys()
    assert metrics["type/accuracy/at_1-50"] == metrics["type/accuracy"]
    baselines = result["baselines"]
    assert {"hawkes", "poisson", "marginal", "last"} == {
        name.partition("/")[0] for name in baselines if "/time/" in name
    }
    # 60 after every three of 5: the marginal knows as much, so training beats the last interval
    assert metrics["time/crps_s"] < baselines["last/time/crps_s"]
    tree = json.loads(
        read_bytes(str(result["targets_uri"]).replace("targets.parquet", "metrics.json"))
    )
    accuracy = tree["model"]["type/accuracy"]
    assert accuracy["low"] <= accuracy["value"] == metrics["type/accuracy"] <= accuracy["high"]
    client = MlflowClient(stack.mlflow_uri)
    figures = {item.path for item in client.list_artifacts(result["run_id"], "figures")}
    assert {
        f"figures/{name}.png" for name in ("calibration", "intervals", "types", "positions")
    } == figures
    json.dumps(result, allow_nan=False)


def test_training_goes_on_from_an_adapter(base, adapted, stack):
    changes = {
        "model.path": base["adapter_uri"],
        "model.adapter": adapted["adapter_uri"],
        "run.name": "stage2-more",
        "training.num_steps": 2,
        "training.validation_sequences": 0,
        **TASKS,
    }
    with pytest.raises(ModelError, match=r"(?s)rank 8 and alpha 64.*lora\.rank = 4"):
        finetune(make_config(**{**changes, "lora.rank": 4, "run.name": "other-rank"}))
    with pytest.raises(ConfigError, match=r"model\.adapter"):
        finetune(make_config(**{**changes, "lora.rank": 0}))
    more = finetune(make_config(**changes))
    client = MlflowClient(stack.mlflow_uri)
    before, after = (curve(client, each["run_id"]) for each in (adapted, more))
    # it starts where the other ended, and not where that one started
    last, first = before[max(before)], after[1]
    assert abs(first - last) < 0.5 * abs(first - before[1])
    assert store_vocabulary(STORE, load_manifest(STORE)).hash
