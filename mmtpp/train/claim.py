"""A run's folder: whose it is, what it was started with, and whether it may continue."""

import json
import logging
from typing import Any

from mmtpp.config.fingerprint import run_fingerprint
from mmtpp.config.flat_settings import flat_settings
from mmtpp.config.load import config_from_tree
from mmtpp.config.schema import RunConfig
from mmtpp.config.shapes import Shapes, settings_that_shape
from mmtpp.core.errors import ConfigError, DataError
from mmtpp.data.samples.assemble_settings import AssembleSettings
from mmtpp.data.samples.make_plan import make_plan
from mmtpp.data.samples.plan import Plan, load_plan
from mmtpp.model.vocabulary import Vocabulary
from mmtpp.storage.paths import exists, join, read_bytes, write_bytes

logger = logging.getLogger(__name__)

RESULT_FILE = "result.json"  # below the run's folder, written last


def finished_result(run_uri: str) -> dict[str, Any] | None:
    """The result of a run that has finished; None before."""
    uri = join(run_uri, RESULT_FILE)
    return json.loads(read_bytes(uri)) if exists(uri) else None


def claim(config: RunConfig, job: str, run_uri: str) -> None:
    """Write the settings into the run's folder, or check that they are those it was started with.

    The number of updates may grow: the run then continues.

    Raises:
        ConfigError: The run was started with other settings; names each.
    """
    uri = join(run_uri, "config.json")
    if exists(uri):
        started = config_from_tree(json.loads(read_bytes(uri)))
        before, now = (run_fingerprint(each, job=job, steps=False) for each in (started, config))
        if before != now:
            raise _other_settings(started, config, run_uri)
        grown = _grown_steps(started, config, run_uri)
        if not grown:
            return
        logger.warning(
            "%s continues: %s. The learning rate follows the schedule of the longer run from its "
            "next step on (warm-up and decay are shares of all steps), so it may rise again, and "
            "the result is not that of a run of this length from the start",
            run_uri,
            grown,
        )
    write_bytes(uri, config.model_dump_json(indent=2).encode())


def _other_settings(started: RunConfig, config: RunConfig, run_uri: str) -> ConfigError:
    before, now = flat_settings(started), flat_settings(config)
    changed = [f"{key}: {before[key]!r} -> {now[key]!r}" for key in now if before[key] != now[key]]
    return ConfigError(
        "this run was started with other settings:\n  " + "\n  ".join(changed),
        where=run_uri,
        setting="run.name: choose another, or leave it empty",
    )


def _grown_steps(started: RunConfig, config: RunConfig, run_uri: str) -> str:
    """Settings of the number of updates that were raised; empty where none has changed.

    Raises:
        ConfigError: One was lowered.
    """
    before, now = (
        settings_that_shape(started, Shapes.STEPS),
        settings_that_shape(config, Shapes.STEPS),
    )
    changed = {
        key: f"{key} = {before[key]} -> {now[key]}" for key in now if before[key] != now[key]
    }
    lowered = [text for key, text in changed.items() if not before[key] or now[key] < before[key]]
    if lowered:
        raise ConfigError(
            f"a run cannot become shorter than it was started: {', '.join(lowered)}",
            where=run_uri,
            cause="its learning rates so far are those of the longer run",
            setting="run.name: choose another, or leave it empty",
        )
    return ", ".join(changed.values())


def run_plan(settings: AssembleSettings, vocabulary: Vocabulary, uri: str) -> Plan:
    """The run's plan: read back when the run has started before, made otherwise.

    Raises:
        DataError: the run was started with other data or settings.
    """
    if not exists(uri):
        plan = make_plan(settings, vocabulary.token_ids())
        plan.save(uri)
        return plan
    plan = load_plan(uri)
    if plan.fingerprint != settings.fingerprint:
        raise DataError(
            f"this run was started on data {plan.fingerprint[:16]}, now it is "
            f"{settings.fingerprint[:16]}",
            where=uri,
            cause="the store or a setting that shapes samples changed under the same run name",
            setting="run.name: choose another, or leave it empty",
        )
    return plan
