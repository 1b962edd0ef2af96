"""How a sweep goes on: what it was started on, what Ray Tune keeps, which trials are run again."""

import json
import logging
from dataclasses import asdict, dataclass, field
from typing import Any

from mmtpp.core.errors import ConfigError, DataError, MissingFileError
from mmtpp.storage.manifest import load_manifest
from mmtpp.storage.paths import exists, join, list_files, read_bytes, write_bytes
from mmtpp.sweep.budget import Budget
from mmtpp.sweep.search import drawn
from mmtpp.sweep.space import Sweep
from mmtpp.sweep.trial_table import Row

logger = logging.getLogger(__name__)

DATA_FILE = "sweep.json"  # the content of the store a sweep is of


@dataclass(frozen=True, slots=True)
class Again:
    """What a new round of a sweep that has a result is about.

    Attributes:
        known: trials that stand.
        points: settings of the trials to run.
        rows: what is known of each of those; empty of one never begun.
        round: counts from 0, the first.
    """

    known: list[Row] = field(default_factory=list)
    points: list[Row] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    round: int = 0

    def row(self, trial_id: str) -> Row:
        """What is known of a trial of this round, whose name in Ray Tune ends with its place."""
        return self.rows[int(trial_id.rpartition("_")[2])] if self.rows else {}

    def first_name(self, trial_id: str) -> str:
        """What a trial was called at first."""
        return str(self.row(trial_id).get("trial", "")) or trial_id


def has_begun(folder: str) -> bool:
    """Whether Ray Tune has kept trials there.

    From its own settings alone, which it writes first, it would begin one trial of an empty space.
    """
    try:
        return any("experiment_state" in info.path for info in list_files(folder, ".json"))
    except MissingFileError:
        return False


def check_data(sweep: Sweep, uri: str) -> None:
    """Check that a sweep and its trials are of one content of the store, or keep which it is.

    Raises:
        DataError: the store has been prepared again since.
    """
    data = {"store": load_manifest(sweep.config.store.uri).fingerprint}
    if not exists(join(uri, DATA_FILE)):
        write_bytes(join(uri, DATA_FILE), json.dumps(data).encode())
    elif json.loads(read_bytes(join(uri, DATA_FILE))) != data:
        raise DataError(
            "this sweep was started on other data",
            where=uri,
            cause=f"{sweep.config.store.uri} has been prepared again since",
            setting=f"sweep.name = {sweep.settings.name}: another name begins anew",
        )


def begin_again(
    sweep: Sweep, uri: str, result: dict[str, Any], budget: Budget, *, retry_failed: bool
) -> Again:
    """Trials to run again: failed ones when ``retry_failed`` is set or when all failed, and ones
    the old budget stopped when the budget has grown. Trials that the old budget kept from starting
    are added: the missing ones of a grid, random ones of other searches.

    A round that was interrupted keeps its trials.
    """
    folder = join(uri, f"tune-{result['round'] + 1}")
    if has_begun(folder):
        return Again(**_kept(folder)["again"])
    rows = result["trials"]
    all_failed = bool(rows) and all(row["status"] == "failed" for row in rows)
    wanted = {"failed"} if retry_failed or all_failed else set()
    points: list[Row] = []
    if result["budget_used_up"] and not budget.is_used_up:
        wanted.add("cut short")
        if sweep.settings.searcher == "grid":
            begun = [{key: row[key] for key in sweep.space} for row in rows]
            points = [dict(values) for values in sweep.grid() if values not in begun]
        else:
            seed = sweep.settings.seed + result["round"] + 1
            points = list(drawn(sweep, sweep.num_trials - len(rows), seed=seed))
    chosen = [row for row in rows if row["status"] in wanted]
    return Again(
        [row for row in rows if row["status"] not in wanted],
        [{key: row[key] for key in sweep.space} for row in chosen] + points,
        [*chosen, *({} for _ in points)],
        result["round"] + 1,
    )


def _limits(sweep: Sweep) -> dict[str, int]:
    """Of the settings, those that Ray Tune keeps with the sweep."""
    return {
        "max_concurrent": sweep.settings.max_concurrent,
        "max_machine_failures": sweep.settings.max_machine_failures,
    }


def keep_limits(sweep: Sweep, folder: str, at_once: int, again: Again) -> None:
    """Write down what Ray Tune is started with in ``folder``."""
    content = {**_limits(sweep), "at_once": at_once, "again": asdict(again)}
    write_bytes(f"{folder}.json", json.dumps(content).encode())


def _kept(folder: str) -> dict[str, Any]:
    return json.loads(read_bytes(f"{folder}.json"))


def check_limits(sweep: Sweep, folder: str, at_once: int) -> None:
    """Check what Ray Tune was started with: it would go on with that without a word.

    Raises:
        ConfigError: one of its limits has changed.
    """
    kept = _kept(folder)
    for key, value in _limits(sweep).items():
        if kept[key] != value:
            raise ConfigError(
                f"sweep.{key} = {value}, and this sweep was started with {kept[key]}: Ray Tune "
                "keeps that to the end",
                where=folder,
                setting=f"sweep.{key} = {kept[key]}, or another sweep.name",
            )
    if at_once < kept["at_once"]:
        logger.warning(
            "the sweep was started with room for %d trials at a time, and there is room for %d: "
            "the others wait for machines, run.wait_for_machines_s = %g at most",
            kept["at_once"],
            at_once,
            sweep.config.run.wait_for_machines_s,
        )
