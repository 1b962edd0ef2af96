"""The alias that an update challenges: in a registry of MLflow, a database in a file."""

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlflow.tracking import MlflowClient

from mmtpp.config.load import load_config
from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import ConfigError, ModelError
from mmtpp.track.logged_model import save_forecaster
from mmtpp.track.tracker import RunIdentity
from mmtpp.update import update as update_job
from mmtpp.update.champion_challenge import Challenge, find_challenge, promote
from mmtpp.update.update_result import find_result, write_result

STORE = SimpleNamespace(manifest=SimpleNamespace(fingerprint="f"), uri="store")


@dataclass
class _Registry:
    """A registry with the versions 1 and 2 of the model ``live``, and their runs."""

    client: MlflowClient
    uri: str
    folder: Path
    run_ids: list[str]

    def config(self, model: str, new_from: str = "5") -> RunConfig:
        return load_config(
            None,
            [
                f"tracking.uri={self.uri}",
                f"update.model={model}",
                f"update.new_from={new_from}",
                f"run.storage_uri={self.folder}",
            ],
        )

    def champion(self) -> str:
        return str(self.client.get_model_version_by_alias("live", "champion").version)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> _Registry:
    folder = tmp_path_factory.mktemp("registry")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = MlflowClient(uri)
    experiment = client.create_experiment("e", artifact_location=(folder / "artifacts").as_uri())
    client.create_registered_model("live")
    run_ids = []
    for number in (1, 2):
        run = client.create_run(experiment)
        run_ids.append(run.info.run_id)
        model = folder / f"saved-{number}"
        save_forecaster(model, path=str(folder / f"run-{number}/model"), base="", known_type=0)
        client.log_artifacts(run.info.run_id, str(model), "forecaster")
        client.create_model_version("live", f"{run.info.artifact_uri}/forecaster", run.info.run_id)
    return _Registry(client, uri, folder, run_ids)


@pytest.fixture
def registry(database: _Registry) -> _Registry:
    """The registry, whose alias names version 1."""
    database.client.set_registered_model_alias("live", "champion", "1")
    return database


def _promote(registry: _Registry, challenge: Challenge, version: int) -> str:
    """Promote the version that the run of this number registered."""
    run = RunIdentity("updated", str(registry.folder / f"run-{version}"), "key")
    return promote(
        challenge,
        registry.config("models:/live@champion"),
        run,
        registry.run_ids[version - 1],
        updated={"model.path": "unused", "model.adapter": ""},
        known_type="0",
    )


def test_a_challenge_is_the_version_that_the_alias_names(registry: _Registry):
    challenge = find_challenge(registry.config("models:/live@champion"))
    assert challenge is not None
    assert (challenge.version, challenge.address) == ("1", "models:/live/1")
    assert challenge.folder == str(registry.folder / "run-1/model")
    config = challenge.with_folder(registry.config("models:/live@champion"))
    assert (config.update.model, config.tracking.register_as) == (challenge.folder, "live")


def test_a_folder_has_no_alias_to_move(registry: _Registry):
    assert find_challenge(registry.config("s3://b/model")) is None


@pytest.mark.parametrize(
    ("address", "error", "message"),
    [
        ("models:/live/1", ConfigError, "not an alias of a registered model"),
        ("models:/live@nobody", ModelError, "no such name, alias or version"),
    ],
)
def test_an_address_without_an_alias_is_an_error(
    registry: _Registry, address: str, error: type[Exception], message: str
):
    with pytest.raises(error, match=message):
        find_challenge(registry.config(address))


def test_the_alias_moves_to_the_version_of_the_run_and_back(registry: _Registry):
    challenge = find_challenge(registry.config("models:/live@champion"))
    assert challenge is not None
    assert _promote(registry, challenge, 2) == "models:/live/2"
    assert registry.champion() == "2"
    assert challenge.champion.roll_back() == ("2", "1")
    assert registry.champion() == "1"


def test_an_alias_that_moved_meanwhile_stays(registry: _Registry, caplog: pytest.LogCaptureFixture):
    challenge = find_challenge(registry.config("models:/live@champion"))
    assert challenge is not None
    registry.client.set_registered_model_alias("live", "champion", "2")
    assert _promote(registry, challenge, 1) == ""
    assert registry.champion() == "2"
    assert "names version 2 now, not version 1" in caplog.text


def test_a_repeated_job_decides_nothing_again(registry: _Registry, monkeypatch: pytest.MonkeyPatch):
    """The champion has learned these events: the job returns its result, without a training."""
    monkeypatch.setattr(update_job, "load_store", lambda uri: STORE)
    monkeypatch.setattr(update_job, "build_updated_model", None)  # a training would fail here
    registry.client.set_registered_model_alias("live", "champion", "2")
    config = registry.config("models:/live@champion")
    made_by = str(registry.folder / "run-2")
    result = {"model_settings": {"model.path": f"{made_by}/model"}, "promoted": "models:/live/2"}
    write_result(made_by, config, STORE, result)
    assert update_job.update(config) == result
    assert registry.champion() == "2"
    # the job ended after the alias had moved, before it wrote that down
    write_result(made_by, config, STORE, {**result, "promoted": None})
    assert update_job.update(config) == result


def test_a_result_counts_only_for_the_same_events_and_once_it_is_decided(tmp_path: Path):
    config = load_config(None, ["update.model=m", "update.new_from=5"])
    later = load_config(None, ["update.model=m", "update.new_from=6"])
    uri = str(tmp_path)
    assert find_result(uri, config, STORE) is None
    write_result(uri, config, STORE, {"model_uri": "m/updated", "promoted": ""})
    # of an earlier version, which did not say how the model is loaded
    assert find_result(uri, config, STORE) == {
        "model_uri": "m/updated",
        "promoted": "",
        "model_settings": {"model.path": "m/updated"},
    }
    assert find_result(uri, later, STORE) is None
    write_result(uri, config, STORE, {"model_settings": {}, "promoted": None})
    assert find_result(uri, config, STORE) is None
    assert json.loads((tmp_path / "comparison.json").read_text())["learned"] == {
        "store": "f",
        "new_from": "5",
    }
