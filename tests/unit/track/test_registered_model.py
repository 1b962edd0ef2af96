"""Addresses of MLflow's model registry: the version that a name stands for, and clear errors."""

from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from mmtpp.core.errors import ModelError
from mmtpp.track.logged_model import save_forecaster
from mmtpp.track.registered_model import RegisteredModel, find_registered_model


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> tuple[MlflowClient, str, Path]:
    """A registry in a file, with two versions of one model, and the folder of their runs."""
    folder = tmp_path_factory.mktemp("registry")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = MlflowClient(uri)
    experiment = client.create_experiment("e", artifact_location=(folder / "runs").as_uri())
    client.create_registered_model("live")
    for path, base in (("s3://b/first", ""), ("s3://b/second", "s3://b/base")):
        run = client.create_run(experiment)
        model = folder / run.info.run_id
        save_forecaster(model, path=path, base=base, known_type=0)
        client.log_artifacts(run.info.run_id, str(model), "forecaster")
        client.create_model_version("live", f"{run.info.artifact_uri}/forecaster", run.info.run_id)
    return client, uri, folder


def test_an_alias_and_a_version_name_a_model(registry):
    client, uri, _ = registry
    first = RegisteredModel("models:/live/1", "s3://b/first", "")
    second = RegisteredModel("models:/live/2", "s3://b/second", "s3://b/base")
    for version, expected in (("1", first), ("2", second)):
        client.set_registered_model_alias("live", "champion", version)
        assert find_registered_model("models:/live@champion", tracking_uri=uri) == expected
        assert find_registered_model(f"models:/live/{version}", tracking_uri=uri) == expected


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("models:/live", r"an address is models:/NAME@ALIAS"),
        ("models:/live@", r"an address is models:/NAME@ALIAS"),
        ("models:/live@nobody", "the registry has no such name, alias or version"),
        ("models:/other@champion", "the registry has no such name, alias or version"),
        ("models:/live/9", "the registry has no such name, alias or version"),
    ],
)
def test_what_the_registry_does_not_have_is_an_error(registry, address: str, message: str):
    with pytest.raises(ModelError, match=message):
        find_registered_model(address, tracking_uri=registry[1])


def test_a_model_of_another_project_is_refused(registry):
    client, uri, folder = registry
    other = folder / "other"
    other.mkdir()
    (other / "MLmodel").write_text("flavors: {}\nmodel_uuid: x\n")
    client.create_registered_model("foreign")
    client.create_model_version("foreign", other.as_uri())
    with pytest.raises(ModelError, match="not a forecaster of mmtpp"):
        find_registered_model("models:/foreign/1", tracking_uri=uri)
