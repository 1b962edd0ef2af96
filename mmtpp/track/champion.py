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

_REPLACED_TAG = "mmtpp.replaced_version."  # and the alias, because a version may have several
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

    def version(self) -> str:
        """The version that the alias names now.

        Raises:
            ModelError: There is no such alias, or the registry cannot be reached.
        """
        found = self._call(lambda client: client.get_model_version_by_alias(self.name, self.alias))
        return str(found.version)

    def version_of_run(self, run_id: str) -> str:
        """The newest version that a run registered; empty if it registered none.

        Raises:
            ModelError: The registry cannot be reached.
        """
        query = f"name = '{self.name}' and run_id = '{run_id}'"
        versions = self._call(lambda client: client.search_model_versions(query))
        return max((str(version.version) for version in versions), key=int, default="")

    def promote(self, version: str, *, replaced: str) -> None:
        """Let the alias name a version, which remembers the one before.

        Args:
            version: The version.
            replaced: The version that the alias names now.

        Raises:
            ModelError: The registry cannot be reached or refuses.
        """

        tag = self._replaced_tag
        self._call(lambda client: client.set_model_version_tag(self.name, version, tag, replaced))
        self._set_alias(version)

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
        before = present.tags.get(self._replaced_tag)
        if before is None:
            raise ModelError(
                f"version {present.version} replaced no other version",
                where=f"models:/{self.name}@{self.alias}",
                cause=f"only what the job update promoted has the tag {self._replaced_tag}",
            )
        self._set_alias(before)
        return str(present.version), before

    def _set_alias(self, version: str) -> None:
        def call(client: MlflowClient) -> None:
            client.set_registered_model_alias(self.name, self.alias, version)

        self._call(call)

    @property
    def _replaced_tag(self) -> str:
        return f"{_REPLACED_TAG}{self.alias}"

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
