"""The champion among the versions of a registered model: the version that an alias names.

A version that replaces the champion remembers the one before, so that it can be rolled back.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from mmtpp.core.errors import ConfigError, ModelError, first_line

REPLACED_TAG = "mmtpp.replaced_version"
_Result = TypeVar("_Result")
_ALIAS = re.compile(r"models:/(?P<name>[^/@]+)@(?P<alias>[^/@]+)")


@dataclass(frozen=True, slots=True)
class Champion:
    """An alias of a registered model.

    Attributes:
        name: Name in the registry.
        alias: The alias.
        tracking_uri: Address of the tracking server; empty for that of the environment.
    """

    name: str
    alias: str
    tracking_uri: str

    @classmethod
    def from_address(cls, address: str, *, tracking_uri: str) -> "Champion":
        """The alias that an address names.

        Args:
            address: ``models:/NAME@ALIAS``.
            tracking_uri: Address of the tracking server; empty for that of the environment.

        Raises:
            ConfigError: The address names no alias.
        """
        parts = _ALIAS.fullmatch(address)
        if parts is None:
            raise ConfigError(
                "not an alias of a registered model",
                where=address,
                cause="an alias is written models:/NAME@ALIAS",
            )
        return cls(parts["name"], parts["alias"], tracking_uri)

    def version_of_run(self, run_id: str) -> str:
        """The newest version that a run registered.

        Raises:
            ModelError: The run registered none, or the registry cannot be reached.
        """
        query = f"name = '{self.name}' and run_id = '{run_id}'"
        versions = self._call(lambda client: client.search_model_versions(query))
        if not versions:
            raise ModelError(
                "the updated expert is not in the model registry",
                where=f"models:/{self.name}, run {run_id}",
                cause="the tracking server did not answer while the expert was recorded; the log "
                "has its error",
                setting=f"tracking.uri = {self.tracking_uri}",
            )
        return max((version.version for version in versions), key=int)

    def promote(self, version: str) -> None:
        """Let the alias name a version, which remembers the one before.

        Raises:
            ModelError: The registry cannot be reached or refuses.
        """

        def call(client: MlflowClient) -> None:
            before = client.get_model_version_by_alias(self.name, self.alias).version
            if str(before) == version:
                return
            client.set_model_version_tag(self.name, version, REPLACED_TAG, str(before))
            client.set_registered_model_alias(self.name, self.alias, version)

        self._call(call)

    def roll_back(self) -> tuple[str, str]:
        """Let the alias name the version that the present one replaced.

        Returns:
            The version until now, and the version from now on.

        Raises:
            ModelError: The present version replaced none, or the registry cannot be reached.
        """
        present = self._call(
            lambda client: client.get_model_version_by_alias(self.name, self.alias)
        )
        before = present.tags.get(REPLACED_TAG)
        if before is None:
            raise ModelError(
                f"version {present.version} replaced no other version",
                where=f"models:/{self.name}@{self.alias}",
                cause=f"only versions that the job update promoted have the tag {REPLACED_TAG}",
            )
        self._call(lambda client: client.set_registered_model_alias(self.name, self.alias, before))
        return str(present.version), before

    def _call(self, call: Callable[[MlflowClient], _Result]) -> _Result:
        try:
            return call(MlflowClient(self.tracking_uri or None))
        except MlflowException as error:
            raise ModelError(
                f"the model registry refuses: {first_line(error)}",
                where=f"models:/{self.name}@{self.alias}",
                cause="the registry has no such name, alias or version, or cannot be reached",
                setting=f"tracking.uri = {self.tracking_uri}",
            ) from error
