"""The champion that an update challenges, and its promotion."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from mmtpp.config.load import with_values
from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import ModelError
from mmtpp.track.champion import Champion
from mmtpp.track.mlflow_tracker import MlflowTracker
from mmtpp.track.registered_model import PREFIX, find_registered_model
from mmtpp.track.tracker import RunIdentity

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Challenge:
    """A champion and the version of it that is compared with the updated forecaster.

    Attributes:
        champion: The alias.
        version: The version that it named when the job began.
        folder: Folder of this version.
        base: Folder of the model that this version adapts; empty for none.
    """

    champion: Champion
    version: str
    folder: str
    base: str

    @property
    def address(self) -> str:
        """Address of the version, ``models:/NAME/VERSION``."""
        return f"{PREFIX}{self.champion.name}/{self.version}"

    def with_folder(self, config: RunConfig) -> RunConfig:
        """The settings with the folder of the version, and with the name to register under."""
        values = {"update.model": self.folder, "tracking.register_as": self.champion.name}
        return with_values(config, values)


def find_challenge(config: RunConfig) -> Challenge | None:
    """The alias that ``update.model`` names, and its version; None for a folder.

    Raises:
        ConfigError: The address names no alias.
        ModelError: The registry does not have it or cannot be reached.
    """
    address = config.update.model
    if not address.startswith(PREFIX):
        return None
    champion = Champion.from_address(address, tracking_uri=config.tracking.uri)
    found = find_registered_model(address, tracking_uri=config.tracking.uri)
    return Challenge(champion, found.uri.rpartition("/")[2], found.path, found.base)


def promote(
    challenge: Challenge,
    config: RunConfig,
    run: RunIdentity,
    run_id: str,
    *,
    updated: Mapping[str, str],
    known_type: str,
) -> str:
    """Let the alias name the updated forecaster, unless it moved meanwhile.

    Args:
        challenge: The alias, and the version that was compared.
        config: The whole configuration.
        run: Name and folder of the update.
        run_id: Its run in MLflow.
        updated: Settings ``model.path`` and ``model.adapter`` of the updated forecaster.
        known_type: Type that it knows.

    Returns:
        Address of the promoted version; empty if the alias moved.

    Raises:
        ModelError: The registry cannot be reached or refuses.
    """
    champion = challenge.champion
    if (present := champion.version()) != challenge.version:
        logger.warning(
            "%s@%s names version %s now, not version %s, with which the updated forecaster was "
            "compared; it stays",
            champion.name,
            champion.alias,
            present,
            challenge.version,
        )
        return ""
    version = champion.version_of_run(run_id)
    if not version:  # MLflow was away when the training ended
        adapter, path = updated.get("model.adapter", ""), updated["model.path"]
        with MlflowTracker.from_run(config.tracking, run) as tracker:
            tracker.log_forecaster(
                path=adapter or path,
                base=path if adapter else "",
                known_type=known_type,
                register_as=champion.name,
            )
        version = champion.version_of_run(run_id)
    if not version:
        raise ModelError(
            "the updated forecaster cannot be registered",
            where=f"{PREFIX}{champion.name}, run {run_id}",
            cause="the tracking server does not answer; the log has its error. Start the job again",
            setting=f"tracking.uri = {config.tracking.uri}",
        )
    champion.promote(version, replaced=challenge.version)
    return f"{PREFIX}{champion.name}/{version}"
