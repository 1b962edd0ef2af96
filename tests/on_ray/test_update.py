"""Experts that keep up with new events, on a real cluster with a real model registry."""

import csv
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import ConfigError, DataError
from mmtpp.data.prepare import prepare
from mmtpp.expert.expert_folder import load_expert
from mmtpp.storage.parquet import read_table
from mmtpp.storage.paths import exists, join, read_bytes, write_bytes
from mmtpp.track.champion import Champion
from mmtpp.train.launch import TrainingJob, pretrain, run_training_job
from mmtpp.update import prequential as prequential_job
from mmtpp.update import update as update_job
from mmtpp.update.prequential import prequential
from mmtpp.update.update import update
from mmtpp.update.update_result import COMPARISON_FILE
from tests.helpers.job_settings import STORE, make_config

NEW_FROM = datetime(2024, 3, 1, tzinfo=UTC)
NAME = "keeping up"
STRATEGIES = ("frozen", "retrained", "fine_tuned", "replay", "prompts")


def _write_rows(path: Path, *, until: datetime) -> None:
    """Two types in turn: hours after the one, days after the other; in March the other way round.

    Args:
        path: CSV file to write.
        until: Time before which events are written.
    """
    rng = np.random.default_rng(0)
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["who", "when", "what"])
        for user in range(60):
            moment, index = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=user), 0
            while moment < until:
                rows.writerow([f"user {user}", moment.isoformat(), "ab"[index % 2]])
                is_short = (index % 2 == 0) == (moment < NEW_FROM)
                hours = rng.gamma(20.0, 0.1 if is_short else 1.5)
                moment += timedelta(hours=round(hours, 1))
                index += 1


def _settings(folder: Path, **changes: object) -> RunConfig:
    values = {
        "source.kind": "columns",
        "source.uri": str(folder / "raw"),
        "source.columns.time": "when",
        "source.columns.sequence": "who",
        "source.columns.type": "what",
        "source.types": ("a", "b"),
        "store.uri": str(folder / "store"),
        "model.preset": "expert",
        "expert.num_networks": 1,
        "expert.width": 32,
        "expert.epochs": 40,
        "expert.calendar": False,
        "training.num_workers": 1,
        "tracking.register_as": NAME,
    }
    return make_config(**{**values, **changes})


@pytest.fixture(scope="module")
def old(cluster, tmp_path_factory) -> tuple[Path, dict]:
    """Events of January and February, and an expert trained on them, which is the champion."""
    folder = tmp_path_factory.mktemp("update")
    (folder / "raw").mkdir()
    _write_rows(folder / "raw" / "events.csv", until=NEW_FROM)
    prepare(_settings(folder))
    return folder, pretrain(_settings(folder, **{"run.name": "before-march"}))


@pytest.fixture(scope="module")
def new(old) -> tuple[Path, dict]:
    """The same folder with a store of the events up to the middle of March."""
    folder, _ = old
    (folder / "more").mkdir()
    _write_rows(folder / "more" / "events.csv", until=datetime(2024, 3, 16, tzinfo=UTC))
    sources = {"source.uri": str(folder / "more"), "store.uri": str(folder / "new")}
    prepare(_settings(folder, **sources))
    return folder, {"store.uri": str(folder / "new"), "update.new_from": "2024-03-01"}


def test_a_better_expert_becomes_champion_and_is_rolled_back(old, new, stack):
    folder, changes = new
    client = MlflowClient(stack.mlflow_uri)
    client.set_registered_model_alias(NAME, "champion", "1")
    config = _settings(folder, **changes, **{"update.model": f"models:/{NAME}@champion"})
    result = update(config)
    metrics = result["metrics"]
    assert result["is_better"]
    assert metrics["update/minus_before_high"] < -0.3
    assert result["promoted"] == f"models:/{NAME}/2"
    assert client.get_model_version_by_alias(NAME, "champion").version == "2"
    recorded = client.get_run(str(result["run_id"])).data
    assert recorded.metrics["update/minus_before_high"] == metrics["update/minus_before_high"]
    assert recorded.tags["mmtpp.promoted"] == f"models:/{NAME}/2"
    assert recorded.tags["mmtpp.job"] == "update"
    assert update(config) == result  # the champion itself is the result of this update
    # the same after a death between the promotion and its record
    record = f"{str(result['model_uri']).rpartition('/')[0]}/{COMPARISON_FILE}"
    tree = json.loads(read_bytes(record))
    assert tree["result"]["promoted"] == result["promoted"]
    tree["result"]["promoted"] = None
    write_bytes(record, json.dumps(tree).encode())
    assert update(config) == result
    tree["result"]["promoted"] = result["promoted"]
    write_bytes(record, json.dumps(tree).encode())
    assert len(client.search_model_versions(f"name = '{NAME}'")) == 2
    before, after = (load_expert(str(run["model_uri"])) for run in (old[1], result))
    assert after.memory == before.memory

    champion = Champion.from_address(f"models:/{NAME}@champion", tracking_uri=stack.mlflow_uri)
    assert champion.roll_back() == ("2", "1")
    assert client.get_model_version_by_alias(NAME, "champion").version == "1"
    assert update(config) == result  # it was decided once; a repeated job undoes no rollback
    assert client.get_model_version_by_alias(NAME, "champion").version == "1"
    with pytest.raises(Exception, match="version 1 replaced no other version"):
        champion.roll_back()


@pytest.mark.slow
def test_an_expert_that_is_no_better_is_not_promoted(old, new, stack):
    """One step with a learning rate of almost zero changes nothing that matters."""
    folder, changes = new
    client = MlflowClient(stack.mlflow_uri)
    client.set_registered_model_alias(NAME, "steady", "1")
    small = {"update.learning_rate": 1e-12, "expert.max_steps": 1}
    config = _settings(folder, **changes, **small, **{"update.model": f"models:/{NAME}@steady"})
    result = update(config)
    assert result["promoted"] == ""
    assert not result["is_better"]
    assert abs(result["metrics"]["update/minus_before_nats_per_event"]) < 1e-3
    assert client.get_model_version_by_alias(NAME, "steady").version == "1"


@pytest.mark.slow
def test_an_alias_that_moved_meanwhile_stays(old, new, stack, monkeypatch):
    folder, changes = new
    client = MlflowClient(stack.mlflow_uri)
    client.set_registered_model_alias(NAME, "moving", "1")

    def train_while_the_alias_moves(job: TrainingJob) -> dict[str, object]:
        result = run_training_job(job)
        client.set_registered_model_alias(NAME, "moving", "2")
        return result

    monkeypatch.setattr(update_job, "run_training_job", train_while_the_alias_moves)
    settings = {"update.model": f"models:/{NAME}@moving", "update.replay": 0.5}
    result = update(_settings(folder, **changes, **settings))
    assert result["is_better"]
    assert result["promoted"] == ""
    assert client.get_model_version_by_alias(NAME, "moving").version == "2"


@pytest.mark.slow
def test_a_folder_is_updated_with_prompts(old, new):
    folder, changes = new
    source = str(old[1]["model_uri"])
    settings = {"update.model": source, "update.trains": "prompts", "tracking.register_as": ""}
    result = update(_settings(folder, **changes, **settings))
    assert result["is_better"]
    assert result["promoted"] == ""
    prompted = load_expert(str(result["model_uri"])).networks[0]
    assert prompted.size.num_prompts == 16
    for name, weights in load_expert(source).networks[0].state_dict().items():
        assert (prompted.state_dict()[name] == weights).all(), name


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"update.new_from": "2024-04-01"}, DataError, "no test event is new"),
        ({"update.model": "models:/nobody@champion"}, Exception, "no such name, alias or version"),
        ({"update.model": f"models:/{NAME}/1"}, ConfigError, "not an alias"),
        ({"store.uri": STORE}, ConfigError, "a date cannot be found"),
    ],
)
def test_what_cannot_be_updated_is_an_error(store, old, new, changes, error, message):
    folder, settings = new
    settings = {**settings, "update.model": str(old[1]["model_uri"]), **changes}
    with pytest.raises(error, match=message):
        update(_settings(folder, **settings))


@pytest.mark.slow
def test_every_period_is_forecast_before_it_is_learned(new, stack, monkeypatch):
    folder, changes = new
    settings = {**changes, "prequential.period": "week", "prequential.first_periods": 8}
    config = _settings(folder, **settings)
    result = prequential(config)
    metrics = result["metrics"]
    nll = {name: metrics[f"prequential/{name}/joint_nll_nats_per_event"] for name in STRATEGIES}
    assert all(nll[name] < nll["frozen"] - 0.1 for name in ("retrained", "fine_tuned", "replay"))
    assert nll["prompts"] < nll["frozen"]
    past = {n: metrics[f"prequential/{n}/past_joint_nll_nats_per_event"] for n in STRATEGIES}
    assert past["fine_tuned"] > past["frozen"] + 0.1  # it forgets
    assert past["replay"] < past["fine_tuned"]
    assert metrics["prequential/frozen/learning_cpu_s"] < 0.1
    seconds = {name: metrics[f"prequential/{name}/learning_cpu_s"] for name in STRATEGIES}
    assert seconds["replay"] < seconds["retrained"]
    # the first week of March is forecast by experts that have not seen it
    history = MlflowClient(stack.mlflow_uri).get_metric_history(
        str(result["run_id"]), "prequential/replay/period_joint_nll_nats_per_event"
    )
    first, *_ = sorted(history, key=lambda point: point.step)
    frozen = MlflowClient(stack.mlflow_uri).get_metric_history(
        str(result["run_id"]), "prequential/frozen/period_joint_nll_nats_per_event"
    )
    assert first.value == min(frozen, key=lambda point: point.step).value
    # eight weeks from Monday, 1 January are learned first; every later event is forecast once
    with (folder / "more" / "events.csv").open() as file:
        later = sum(row["when"] >= "2024-02-26" for row in csv.DictReader(file))
    table = read_table(join(str(result["results_uri"]), "frozen.parquet"))
    period, events = table["period"].to_numpy(), table["events"].to_numpy()
    assert events[period < period.max()].sum() == later  # the last part is the past
    for name in ("prequential.md", "metrics.json", "replay.parquet"):
        assert exists(join(str(result["results_uri"]), name))

    def fail(*arguments: object) -> None:
        raise AssertionError("a finished strategy is not computed again")

    monkeypatch.setattr(prequential_job, "map_blocks", fail)
    assert prequential(config)["metrics"] == metrics


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prequential.period": "year"}, "span 1 periods, of which none is forecast"),
        ({"prequential.period": 1e9}, "span 1 periods, of which none is forecast"),
        ({"store.uri": STORE}, "no month in times that are no dates"),
    ],
)
def test_periods_that_do_not_fit_are_an_error(store, new, changes, message):
    folder, settings = new
    with pytest.raises(ConfigError, match=message):
        prequential(_settings(folder, **{**settings, **changes}))
