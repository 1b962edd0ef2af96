"""A run's folder: the settings it was started with, whether it is finished, and whether it may
continue.

The settings are written and compared as a whole, so this module takes the whole configuration.
"""

import json
import logging
from dataclasses import dataclass

from mmtpp.config.affects import Affects, settings_that_affect
from mmtpp.config.fingerprint import fingerprinted_settings, run_fingerprint, run_name
from mmtpp.config.load import config_from_tree
from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import ConfigError
from mmtpp.storage.paths import exists, join, read_bytes, write_bytes
from mmtpp.track.tracker import RunIdentity

RESULT_FILE = "result.json"
"""File in a run's folder with its result, written last."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A run that has a result.

    Attributes:
        run_uri: Folder of the run.
        result: The result that ``pretrain`` describes.
    """

    run_uri: str
    result: dict[str, object]

    def log_and_return(self) -> dict[str, object]:
        """Say that nothing is left to do, and return the result."""
        logger.info("this run is finished; its result is %s", join(self.run_uri, RESULT_FILE))
        return self.result


def find_finished(config: RunConfig, job: str, *, store_fingerprint: str) -> FinishedRun | None:
    """Find the result of a run; None for a run that has not finished.

    Args:
        config: Configuration of the run.
        job: ``pretrain``, ``finetune`` or ``update``.
        store_fingerprint: Fingerprint of the store that the run reads.

    Raises:
        ConfigError: The run was started with other settings; the message lists them.
    """
    run_uri = identify_run(config, job, store_fingerprint=store_fingerprint).run_uri
    uri = join(run_uri, RESULT_FILE)
    if not exists(uri):
        return None
    claim_run(config, job, store_fingerprint=store_fingerprint)  # refuses other settings
    return FinishedRun(run_uri, json.loads(read_bytes(uri)))


def identify_run(config: RunConfig, job: str, *, store_fingerprint: str) -> RunIdentity:
    """Name, folder and tracking key of a run; its folder may not exist yet.

    Args:
        config: Configuration of the run.
        job: ``pretrain``, ``finetune`` or ``update``.
        store_fingerprint: Fingerprint of the store that the run reads.
    """
    name = run_name(config, job, store=store_fingerprint)
    fingerprint = run_fingerprint(config, job=job, steps=False)
    return RunIdentity(
        name,
        join(config.run.storage_uri, name),
        f"{name}-{fingerprint[:16]}-{store_fingerprint[:16]}",
    )


def claim_run(config: RunConfig, job: str, *, store_fingerprint: str) -> RunIdentity:
    """Write the settings into the run's folder, or compare them with those already there.

    The number of updates may grow; the run then continues.

    Args:
        config: Configuration of the run.
        job: ``pretrain``, ``finetune`` or ``update``.
        store_fingerprint: Fingerprint of the store that the run reads.

    Raises:
        ConfigError: The run was started with other settings; the message lists them.
    """
    run = identify_run(config, job, store_fingerprint=store_fingerprint)
    _write_or_compare_settings(config, job, run.run_uri)
    return run


def _write_or_compare_settings(config: RunConfig, job: str, run_uri: str) -> None:
    uri = join(run_uri, "config.json")
    if exists(uri):
        stored_config = config_from_tree(json.loads(read_bytes(uri)))
        before = run_fingerprint(stored_config, job=job, steps=False)
        if before != run_fingerprint(config, job=job, steps=False):
            raise _changed_settings_error(stored_config, config, run_uri, job=job)
        increased = _increased_steps(stored_config, config, run_uri)
        if not increased:
            return
        logger.warning(
            "%s continues: %s. From the next step on, the learning rate follows the schedule of "
            "the longer run (warm-up and decay are fractions of all steps), so it may rise again, "
            "and the result differs from that of a run of this length from the start",
            run_uri,
            increased,
        )
    write_bytes(uri, config.model_dump_json(indent=2).encode())


def _changed_settings_error(
    stored_config: RunConfig, config: RunConfig, run_uri: str, *, job: str
) -> ConfigError:
    before, now = (
        fingerprinted_settings(settings, job=job, steps=False)
        for settings in (stored_config, config)
    )
    changed = [f"{key}: {before[key]!r} -> {now[key]!r}" for key in now if before[key] != now[key]]
    return ConfigError(
        "this run was started with other settings:\n  " + "\n  ".join(changed),
        where=run_uri,
        setting="run.name: choose another, or leave it empty",
    )


def _increased_steps(stored_config: RunConfig, config: RunConfig, run_uri: str) -> str:
    """Settings of the number of updates that were increased; empty if none has changed.

    Raises:
        ConfigError: A setting of the number of updates was lowered, or is no longer the one that
            sets it.
    """
    before, now = (
        settings_that_affect(stored_config, Affects.STEPS),
        settings_that_affect(config, Affects.STEPS),
    )
    changed = {
        key: f"{key} = {before[key]} -> {now[key]}" for key in now if before[key] != now[key]
    }
    switched = [text for key, text in changed.items() if not (before[key] and now[key])]
    if switched:
        raise ConfigError(
            f"this run sets the number of its updates in another way: {', '.join(switched)}",
            where=run_uri,
            cause="training.max_flops replaces training.num_steps, unless it is 0",
            setting="run.name: choose another, or leave it empty",
        )
    lowered = [text for key, text in changed.items() if now[key] < before[key]]
    if lowered:
        raise ConfigError(
            f"a run cannot become shorter than it was started: {', '.join(lowered)}",
            where=run_uri,
            cause="its learning rates so far are those of the longer run",
            setting="run.name: choose another, or leave it empty",
        )
    return ", ".join(changed.values())
