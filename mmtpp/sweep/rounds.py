"""Rounds of a sweep: the first one, and another one whenever trials run again after a result."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmtpp.core.errors import ConfigError, DataError, MissingFileError
from mmtpp.storage.manifest import load_manifest
from mmtpp.storage.paths import exists, join, list_files, read_bytes, write_bytes
from mmtpp.sweep.budget import Budget
from mmtpp.sweep.search import draw_trials
from mmtpp.sweep.space import Sweep
from mmtpp.sweep.trial_row import Status, TrialRow

logger = logging.getLogger(__name__)

DATA_FILE = "sweep.json"  # fingerprint of the store's content


@dataclass(frozen=True, slots=True)
class Round:
    """Trials of one round of a sweep. Trials that run after the sweep has a result are a new round.

    Attributes:
        kept_rows: Rows of trials that do not run again.
        points: Searched values of the trials to run; empty in the first round, whose trials the
            searcher proposes.
        earlier_rows: Row of each trial to run from earlier rounds; None for a trial that never
            started.
        number: Number of the round, from 0.
    """

    kept_rows: list[TrialRow] = field(default_factory=list)
    points: list[dict[str, object]] = field(default_factory=list)
    earlier_rows: list[TrialRow | None] = field(default_factory=list)
    number: int = 0

    def earlier_row(self, trial_id: str) -> TrialRow | None:
        """Row of a trial from earlier rounds; its id in Ray Tune ends with its position."""
        return self.earlier_rows[int(trial_id.rpartition("_")[2])] if self.earlier_rows else None

    def first_trial_id(self, trial_id: str) -> str:
        """Id that a trial had in its first round."""
        earlier = self.earlier_row(trial_id)
        return trial_id if earlier is None else earlier.trial_id

    def as_dict(self) -> dict[str, Any]:
        """The stored form, in which an empty row is a trial that never started."""
        return {
            "kept_rows": [row.as_dict() for row in self.kept_rows],
            "points": self.points,
            "earlier_rows": [{} if row is None else row.as_dict() for row in self.earlier_rows],
            "number": self.number,
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "Round":
        """Read the stored form."""
        earlier_rows = stored["earlier_rows"]
        return cls(
            kept_rows=[TrialRow.from_dict(row) for row in stored["kept_rows"]],
            points=stored["points"],
            earlier_rows=[TrialRow.from_dict(row) if row else None for row in earlier_rows],
            number=stored["number"],
        )


@dataclass(frozen=True, slots=True)
class EndedRound:
    """The last round of a sweep that has a result.

    Attributes:
        rows: Rows of all trials of the sweep.
        number: Number of the round, from 0.
        is_budget_used_up: Whether the round ended because the budget was spent.
    """

    rows: list[TrialRow]
    number: int
    is_budget_used_up: bool

    @classmethod
    def from_result(cls, result: Mapping[str, Any]) -> "EndedRound":
        """Read the stored result of a sweep."""
        rows = [TrialRow.from_dict(row) for row in result["trials"]]
        return cls(rows, result["round"], result["budget_used_up"])


def has_begun(folder: str) -> bool:
    """Whether Ray Tune has stored trials in a folder.

    Ray Tune stores its own settings first. Restored from these alone, it would run one trial of an
    empty space.
    """
    try:
        return any("experiment_state" in info.path for info in list_files(folder, ".json"))
    except MissingFileError:
        return False


def check_data(uri: str, *, store_uri: str, sweep_name: str) -> None:
    """Check that the store still has the content the sweep started with; record it at first.

    Args:
        uri: Folder of the sweep.
        store_uri: Folder of the store.
        sweep_name: Value of ``sweep.name``, for the error.

    Raises:
        DataError: The store has been prepared again since the sweep started.
    """
    data = {"store": load_manifest(store_uri).fingerprint}
    if not exists(join(uri, DATA_FILE)):
        write_bytes(join(uri, DATA_FILE), json.dumps(data).encode())
    elif json.loads(read_bytes(join(uri, DATA_FILE))) != data:
        raise DataError(
            "this sweep was started on other data",
            where=uri,
            cause=f"{store_uri} has been prepared again since",
            setting=f"sweep.name = {sweep_name}: another name starts a new sweep",
        )


def next_round(
    sweep: Sweep, uri: str, ended: EndedRound, budget: Budget, *, retry_failed: bool
) -> Round:
    """Choose the trials to run after a round has ended.

    Failed trials run again if ``retry_failed`` is set, or if all trials failed. If the budget has
    grown, the trials that the old budget stopped run again. The trials that it prevented from
    starting are added: in a grid search, the missing points of the grid; in any other search,
    trials drawn at random.

    If this round was already started and interrupted, it keeps its trials.
    """
    number = ended.number + 1
    folder = join(uri, f"tune-{number}")
    if has_begun(folder):
        return Round.from_dict(_load_round(folder)["round"])
    all_failed = have_all_failed(ended.rows)
    statuses: set[Status] = {"failed"} if retry_failed or all_failed else set()
    points: list[dict[str, object]] = []
    if ended.is_budget_used_up and not budget.is_used_up:
        statuses.add("cut short")
        if sweep.settings.searcher == "grid":
            begun = [sweep.searched_values(row.settings) for row in ended.rows]
            points = [dict(values) for values in sweep.grid() if values not in begun]
        else:
            seed = sweep.settings.seed + number
            points = list(draw_trials(sweep, sweep.num_trials - len(ended.rows), seed=seed))
    chosen = [row for row in ended.rows if row.status in statuses]
    return Round(
        kept_rows=[row for row in ended.rows if row.status not in statuses],
        points=[sweep.searched_values(row.settings) for row in chosen] + points,
        earlier_rows=[*chosen, *(None for _ in points)],
        number=number,
    )


def have_all_failed(rows: Sequence[TrialRow]) -> bool:
    """Whether all trials failed; False if there are no trials."""
    return bool(rows) and all(row.status == "failed" for row in rows)


def _limits(sweep: Sweep) -> dict[str, int]:
    """Settings that Ray Tune stores with the sweep and that cannot change later."""
    return {
        "max_concurrent": sweep.settings.max_concurrent,
        "max_machine_failures": sweep.settings.max_machine_failures,
    }


def save_round(sweep: Sweep, folder: str, concurrent_trials: int, current_round: Round) -> None:
    """Store the limits and the trials with which Ray Tune is started, next to Ray Tune's folder.

    Args:
        sweep: Sweep to run.
        folder: Folder in which Ray Tune stores the round.
        concurrent_trials: Number of trials for which the cluster has room.
        current_round: Trials of the round.
    """
    content = {
        **_limits(sweep),
        "concurrent_trials": concurrent_trials,
        "round": current_round.as_dict(),
    }
    write_bytes(f"{folder}.json", json.dumps(content).encode())


def _load_round(folder: str) -> dict[str, Any]:
    """Load the limits and the trials with which Ray Tune was started.

    Raises:
        DataError: An earlier version of the project stored them, with other names.
    """
    uri = f"{folder}.json"
    stored = json.loads(read_bytes(uri))
    if "round" not in stored:
        raise DataError(
            "an earlier version of mmtpp started this sweep, and this version cannot resume it",
            where=uri,
            cause="the names in this file have changed",
            setting="sweep.name: another name starts a new sweep",
        )
    return stored


def check_round_limits(sweep: Sweep, folder: str, concurrent_trials: int) -> None:
    """Check that the limits are those Ray Tune was started with: it keeps the old ones silently.

    Args:
        sweep: Sweep to resume.
        folder: Folder in which Ray Tune stores the round.
        concurrent_trials: Number of trials for which the cluster has room now.

    Raises:
        ConfigError: One of the limits has changed.
        DataError: An earlier version of the project started the round.
    """
    stored = _load_round(folder)
    for key, value in _limits(sweep).items():
        if stored[key] != value:
            raise ConfigError(
                f"sweep.{key} = {value}, but this sweep was started with {stored[key]}",
                where=folder,
                cause="Ray Tune keeps this limit until the sweep ends",
                setting=f"sweep.{key} = {stored[key]}, or another sweep.name",
            )
    stored_trials = stored["concurrent_trials"]
    if concurrent_trials < stored_trials:
        logger.warning(
            "the sweep was started with room for %d concurrent trials, and now there is room for "
            "%d: trials without room wait for machines, at most run.wait_for_machines_s = %g",
            stored_trials,
            concurrent_trials,
            sweep.config.run.wait_for_machines_s,
        )
