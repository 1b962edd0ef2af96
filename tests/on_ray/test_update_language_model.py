"""A fine-tuned language model that keeps up with new events, with a real model registry."""

import json

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import ConfigError, DataError
from mmtpp.core.forecasting.gate import Gate
from mmtpp.data.prepare import prepare
from mmtpp.evaluate.evaluate import evaluate
from mmtpp.expert.gated_expert import write_gate
from mmtpp.model.folders.record import load_trained_tasks
from mmtpp.storage.parquet import read_table
from mmtpp.storage.paths import copy_folder, join, write_bytes
from mmtpp.track.champion import Champion
from mmtpp.train.launch import finetune, training_jobs
from mmtpp.train.launch.sample_plans import PLAN_FILE
from mmtpp.update.update import update
from tests.helpers.job_settings import RUNS, STAGE_TWO, make_config

SOURCE, STORE = "s3://mmtpp/t/later", "s3://mmtpp/t/later-store"
NAME = "line keeper"
NEW_FROM = 1000.0
NUM_OLD, NUM_NEW = 40, 12


def _publish_events() -> None:
    """The pattern that the model knows up to ``NEW_FROM``, and then another one."""
    for index in range(24):
        rng = np.random.default_rng(100 + index)
        waits = np.where(np.arange(NUM_OLD) % 4 == 0, 60.0, 5.0) + rng.integers(0, 2, NUM_OLD)
        new_waits = 20.0 + rng.integers(0, 2, NUM_NEW)
        times = np.append(np.cumsum(waits), NEW_FROM + np.cumsum(new_waits))
        events = [
            {
                "time": float(time),
                "text": f"event {row % 4} of line {index % 3}",
                "image_path": None,
                "TPP_attribute": {
                    "time_since_last_event": float(wait),
                    "event_type": row % 4 if time < NEW_FROM else 3 - row % 2,
                },
            }
            for row, (time, wait) in enumerate(zip(times, np.diff(times, prepend=0.0), strict=True))
        ]
        write_bytes(join(SOURCE, f"line-{index:02d}.json"), json.dumps(events).encode())


def _settings(**changes: object) -> RunConfig:
    values = {
        "source.uri": SOURCE,
        "store.uri": STORE,
        "split.validation_fraction": 0.2,
        "split.test_fraction": 0.4,
        "training.num_workers": 1,
        "training.num_steps": 10,
        "training.validate_every": 5,
        "update.new_from": NEW_FROM,
        "update.replay": 0.5,
        **STAGE_TWO,
    }
    return make_config(**{**values, **changes})


@pytest.fixture(scope="module")
def later(base, adapted) -> dict:
    """A store of old and new events, in the vocabulary of the model."""
    _publish_events()
    return prepare(_settings(**{"model.path": base["model_uri"]}))


@pytest.fixture(scope="module")
def champion(adapted, stack) -> Champion:
    """The fine-tuned adapter as version 1 of a registered model of its own."""
    client = MlflowClient(stack.mlflow_uri)
    client.create_registered_model(NAME)
    source = f"{client.get_run(adapted['run_id']).info.artifact_uri}/forecaster"
    client.create_model_version(NAME, source, adapted["run_id"])
    client.set_registered_model_alias(NAME, "champion", "1")
    return Champion(NAME, "champion", stack.mlflow_uri)


@pytest.fixture(scope="module")
def updated(later, champion) -> dict:
    return update(_settings(**{"update.model": f"models:/{NAME}@champion"}))


def test_a_better_adapter_becomes_champion_and_is_rolled_back(
    updated, champion, adapted, base, stack, monkeypatch
):
    config = _settings(**{"update.model": f"models:/{NAME}@champion"})
    metrics = updated["metrics"]
    assert updated["is_better"]
    assert metrics["update/minus_before_high"] < -0.2
    assert updated["promoted"] == f"models:/{NAME}/2"
    assert champion.version() == "2"
    adapter = updated["model_settings"]["model.adapter"]
    assert updated["model_settings"]["model.path"] == base["model_uri"]
    assert adapter == updated["best_adapter_uri"] != adapted["adapter_uri"]
    client = MlflowClient(stack.mlflow_uri)
    recorded = client.get_run(str(updated["run_id"])).data
    assert recorded.metrics["update/minus_before_high"] == metrics["update/minus_before_high"]
    assert (recorded.tags["mmtpp.job"], recorded.tags["mmtpp.promoted"]) == (
        "update",
        f"models:/{NAME}/2",
    )
    before, after = (load_trained_tasks(uri) for uri in (adapted["adapter_uri"], adapter))
    assert before is not None
    assert after is not None
    assert (after.tasks, after.type_codes) == (before.tasks, before.type_codes)
    # the wait between the periods is the longest interval
    assert after.interval_range.smallest == before.interval_range.smallest == 5.0
    assert after.interval_range.largest > before.interval_range.largest

    def fail(*_arguments: object) -> None:
        raise AssertionError("a repeated update trains nothing")

    monkeypatch.setattr(training_jobs, "train_and_record", fail)
    assert update(config) == updated  # the champion itself is the result of this update
    assert champion.roll_back() == ("2", "1")
    assert update(config) == updated  # it was decided once; a repeated job undoes no rollback
    assert champion.version() == "1"


def test_new_targets_are_learned_with_the_older_ones_that_are_replayed(updated, later):
    metrics, run_uri = updated["metrics"], str(updated["adapter_uri"]).rpartition("/")[0]
    plan = read_table(join(run_uri, PLAN_FILE))
    num_train = len(set(plan["sequence_id"].to_pylist()))
    assert metrics["data/new_targets"] == num_train * NUM_NEW
    assert metrics["data/older_targets"] == num_train * (NUM_OLD - 1)
    first, start = (plan[name].to_numpy() for name in ("first_scored", "start"))
    begins = first == NUM_OLD  # the window with the first new event of a sequence
    assert begins.sum() == num_train
    assert (start[begins] < NUM_OLD).all()  # older events are its history
    sample, is_new = plan["sample"].to_numpy(), first >= NUM_OLD
    assert not set(sample[is_new]) & set(sample[~is_new])
    half = num_train * NUM_NEW / 2
    assert 0.5 * half < metrics["data/replayed_targets_per_epoch"] < 1.5 * half
    assert metrics["validation/events"] == 3 * NUM_NEW


@pytest.mark.parametrize("which", ["updated", pytest.param("before", marks=pytest.mark.slow)])
def test_the_compared_likelihoods_are_those_of_an_evaluation(updated, adapted, which: str):
    adapter = adapted["adapter_uri"]
    if which == "updated":
        adapter = updated["model_settings"]["model.adapter"]
    settings = {**updated["model_settings"], "model.adapter": adapter}
    _check_evaluation(updated, settings, which)


def _check_evaluation(updated: dict, settings: dict, which: str) -> None:
    targets = read_table(str(evaluate(_settings(**settings))["targets_uri"]))
    is_new = targets["time"].to_numpy() >= NEW_FROM
    nll = targets["time_nll"].to_numpy() + targets["joint_type_nll"].to_numpy()
    metrics = updated["metrics"]
    assert metrics["update/compared_events"] == is_new.sum() < len(targets)
    assert metrics[f"update/{which}_nats_per_event"] == pytest.approx(nll[is_new].mean(), abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "kind"), [(0, "model"), (8, "adapter")])
def test_a_whole_model_is_continued_itself_or_with_an_adapter(later, base, rank: int, kind: str):
    settings = {**STAGE_TWO, "training.num_steps": 4, "training.num_workers": 1, "lora.rank": 0}
    whole = finetune(make_config(**settings, **{"model.path": base["model_uri"]}))
    folder = str(whole["model_uri"])
    changes = {"update.model": folder, "lora.rank": rank, "training.validate_every": 0}
    result = update(_settings(**changes))
    assert result["is_better"]
    expected = {"model.path": folder} | {
        f"model.{'path' if kind == 'model' else kind}": (result[f"{kind}_uri"])
    }
    assert result["model_settings"] == expected
    _check_evaluation(result, {**expected, "lora.rank": rank}, "updated")


@pytest.mark.slow
def test_mixtures_with_the_same_expert_and_gate_are_compared(
    updated, later, adapted, base, expert, tmp_path
):
    copy_folder(str(expert["model_uri"]), str(tmp_path / "gated"))
    write_gate(Gate(0.3, 0.6), tmp_path / "gated", {})
    mixed = {"model.expert": str(tmp_path / "gated")}
    result = update(_settings(**mixed, **{"update.model": adapted["adapter_uri"]}))
    assert result["promoted"] == ""  # a folder has no alias
    before = result["metrics"]["update/before_nats_per_event"]
    assert before != pytest.approx(updated["metrics"]["update/before_nats_per_event"], abs=0.01)
    settings = {**result["model_settings"], **mixed}
    _check_evaluation(result, settings, "updated")
    _check_evaluation(result, {**settings, "model.adapter": adapted["adapter_uri"]}, "before")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"update.new_from": 1e6}, DataError, "no test event is new"),
        ({"update.trains": "prompts"}, ConfigError, "does not have these settings of an update"),
        ({"tasks.text": 0.0}, ConfigError, "fine-tuned on the tasks time, type, joint, text"),
        ({"model.path": RUNS}, ConfigError, "belongs to another base model"),
        ({"model.preset": "expert"}, ConfigError, "the settings are those of an expert"),
        ({"lora.rank": 4}, Exception, "the adapter has rank 8"),
    ],
)
def test_what_cannot_be_updated_is_an_error(later, adapted, changes, error, message):
    with pytest.raises(error, match=message):
        update(_settings(**{"update.model": adapted["adapter_uri"], **changes}))


def test_a_model_of_stage_one_is_refused(later, base):
    with pytest.raises(ConfigError, match="only a language model that forecasts times and types"):
        update(_settings(**{"update.model": base["model_uri"]}))
