"""The model that a name in MLflow's model registry stands for at the moment."""

import re
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.tracking import MlflowClient

from mmtpp.core.errors import ModelError, first_line

PREFIX = "models:/"
_ADDRESS = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))")


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A version of a registered forecaster.

    Attributes:
        uri: Address of the version, ``models:/NAME/VERSION``.
        path: Folder of the model or adapter.
        base: Folder of the model that the adapter adapts; empty for none.
    """

    uri: str
    path: str
    base: str


def find_registered_model(address: str, *, tracking_uri: str) -> RegisteredModel:
    """Find the version that an address names now.

    Args:
        address: ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``.
        tracking_uri: Address of the tracking server; empty for that of the environment.

    Raises:
        ModelError: The address is malformed, the registry does not have it or cannot be reached, or
            the version is not a forecaster of this project.
    """
    parts = _ADDRESS.fullmatch(address)
    if parts is None:
        raise ModelError(
            "not an address of a registered model",
            where=address,
            cause="an address is models:/NAME@ALIAS or models:/NAME/VERSION",
        )
    try:
        client = MlflowClient(tracking_uri or None)
        name, alias = parts["name"], parts["alias"]
        version = str(
            client.get_model_version_by_alias(name, alias).version if alias else parts["version"]
        )
        source = client.get_model_version_download_uri(name, version)
        with TemporaryDirectory() as scratch:
            folder = download_artifacts(
                artifact_uri=f"{source}/MLmodel",
                dst_path=scratch,
                tracking_uri=tracking_uri or None,
            )
            metadata = Model.load(str(Path(folder))).metadata or {}
    except (MlflowException, OSError) as error:
        raise ModelError(
            f"the registered model cannot be read: {first_line(error)}",
            where=address,
            cause="the registry has no such name, alias or version, or cannot be reached",
            setting=f"tracking_uri = {tracking_uri}",
        ) from error
    if "mmtpp.model_uri" not in metadata:
        raise ModelError(
            "the registered model is not a forecaster of mmtpp",
            where=f"{address}, version {version}",
            cause="register models with tracking.register_as",
        )
    uri = f"{PREFIX}{name}/{version}"
    return RegisteredModel(uri, metadata["mmtpp.model_uri"], metadata.get("mmtpp.base_uri", ""))
