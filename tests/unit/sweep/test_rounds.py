"""Rows of trials, and later rounds of a sweep."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest

from mmtpp.core.errors import ConfigError, DataError
from mmtpp.sweep.budget import Budget
from mmtpp.sweep.rounds import EndedRound, Round, check_round_limits, next_round, save_round
from mmtpp.sweep.trial_row import TrialRow
from mmtpp.sweep.tune_results import row_from_result
from tests.unit.sweep.sweeps import METRIC, build_row

RANKS = '[space]\n"lora.rank" = [2, 4]\n'


def _budget(sweep, *begun: str) -> Budget:
    budget = Budget(sweep)
    for name in begun:
        budget.on_trial_start(0, [], SimpleNamespace(trial_id=name, config={}))
    return budget


def test_a_trial_that_never_reported_keeps_its_settings(sweep_of):
    """Ray Tune has an empty result for such a trial."""
    sweep = sweep_of(RANKS + '[tied]\n"lora.alpha" = {to = "lora.rank", times = 4}\n')
    trial = SimpleNamespace(trial_id="t_0", config={"lora.rank": 4})
    lost = SimpleNamespace(metrics=None, config=None, error=RuntimeError("no machine\nat all"))
    row = row_from_result(lost, trial, sweep, _budget(sweep, "t_0"), Round())
    assert row is not None
    assert row.settings == {"lora.rank": 4, "lora.alpha": 16}
    assert (row.status, row.error) == ("failed", "RuntimeError: no machine")
    assert (row.step, row.run_name, row.start_uri) == (None, None, None)
    never = SimpleNamespace(metrics=None, config=None, error=None)
    assert row_from_result(never, trial, sweep, _budget(sweep), Round()) is None
    begun = _budget(sweep, "t_0")
    row = row_from_result(never, trial, sweep, begun, Round())
    assert row is not None
    assert (row.settings["lora.rank"], row.status) == (4, "stopped")


def test_a_row_has_the_settings_and_metrics_of_the_last_report(sweep_of):
    sweep = sweep_of(RANKS)
    trial = SimpleNamespace(trial_id="t_0", config={"lora.rank": 4})
    metrics = {
        METRIC: 2.5,
        "train/loss": math.nan,
        "step": 7.0,
        "finished": 1.0,
        "run_name": "r",
        "start_uri": "s3://b/other",
        "time_total_s": 3.0,
    }
    result = SimpleNamespace(metrics=metrics, config={"lora.rank": 2}, error=None)
    row = row_from_result(result, trial, sweep, _budget(sweep, "t_0"), Round())
    assert row == TrialRow(
        settings={"lora.rank": 2},
        status="finished",
        trial_id="t_0",
        metrics={METRIC: 2.5},
        step=7,
        run_name="r",
        start_uri="s3://b/other",
        seconds=3.0,
    )
    assert TrialRow.from_dict(row.as_dict()) == row


@pytest.mark.parametrize("searcher", ["grid", "random"])
def test_a_larger_budget_runs_trials_that_the_old_one_stopped(sweep_of, tmp_path, searcher):
    text = '[space]\n"lora.rank" = [2, 4, 8]\n'
    chosen = [] if searcher == "grid" else ["sweep.searcher=random", "sweep.num_trials=3"]
    sweep = sweep_of(text, *chosen, "sweep.max_hours=9")
    rows = [
        build_row(4, "cut short", run_name="r", start_uri=""),
        build_row(8, "failed", 1),
    ]
    ended = EndedRound(rows, 0, is_budget_used_up=True)
    uri = str(tmp_path)
    current = next_round(sweep, uri, ended, Budget(sweep), retry_failed=False)
    assert (current.kept_rows, current.earlier_rows) == ([rows[1]], [rows[0], None])
    assert current.number == 1
    assert current.points[0] == {"lora.rank": 4}
    if searcher == "grid":
        assert current.points[1:] == [{"lora.rank": 2}]
    else:
        assert current.points[1]["lora.rank"] in (2, 4, 8)
    assert (current.first_trial_id("new_00000"), current.first_trial_id("new_00001")) == (
        "t_0",
        "new_00001",
    )
    assert current.earlier_row("new_00000") == rows[0]
    assert current.earlier_row("new_00001") is None


def test_an_interrupted_round_keeps_its_trials(sweep_of, tmp_path):
    sweep = sweep_of(RANKS)
    rows = [build_row(2, "failed"), build_row(4, "finished", 1)]
    ended = EndedRound(rows, 0, is_budget_used_up=False)
    uri = str(tmp_path)
    interrupted = next_round(sweep, uri, ended, Budget(sweep), retry_failed=True)
    assert interrupted.points == [{"lora.rank": 2}]
    assert next_round(sweep, uri, ended, Budget(sweep), retry_failed=False).points == []
    save_round(sweep, f"{uri}/tune-1", 1, interrupted)
    (tmp_path / "tune-1").mkdir()
    (tmp_path / "tune-1" / "experiment_state-1.json").write_text("{}")
    assert next_round(sweep, uri, ended, Budget(sweep), retry_failed=False) == interrupted


def test_the_limits_of_a_started_round_may_not_change(sweep_of, tmp_path, caplog):
    folder = str(tmp_path / "tune-0")
    save_round(sweep_of(RANKS, "sweep.max_concurrent=2"), folder, 2, Round())
    check_round_limits(sweep_of(RANKS, "sweep.max_concurrent=2"), folder, 2)
    assert not caplog.records
    check_round_limits(sweep_of(RANKS, "sweep.max_concurrent=2"), folder, 1)
    assert "with room for 2 concurrent trials, and now there is room for 1" in caplog.text
    with pytest.raises(ConfigError, match=r"sweep\.max_concurrent = 3, but .* started with 2"):
        check_round_limits(sweep_of(RANKS, "sweep.max_concurrent=3"), folder, 2)


def test_a_round_of_an_earlier_version_is_refused(sweep_of, tmp_path):
    """The file has other names, and no row would be found in it."""
    sweep = sweep_of(RANKS)
    old_round = {"known": [], "points": [{"lora.rank": 2}], "rows": [{}], "round": 1}
    limits = {"max_concurrent": 0, "max_machine_failures": 3}
    (tmp_path / "tune-1.json").write_text(json.dumps({**limits, "at_once": 2, "again": old_round}))
    (tmp_path / "tune-1").mkdir()
    (tmp_path / "tune-1" / "experiment_state-1.json").write_text("{}")
    ended = EndedRound([build_row(2, "failed")], 0, is_budget_used_up=False)
    with pytest.raises(DataError, match="an earlier version of mmtpp started this sweep"):
        next_round(sweep, str(tmp_path), ended, Budget(sweep), retry_failed=True)
    with pytest.raises(DataError, match=r"tune-1\.json"):
        check_round_limits(sweep, str(tmp_path / "tune-1"), 2)


def test_a_sweep_whose_trials_all_failed_is_not_finished(sweep_of, tmp_path):
    sweep = sweep_of(RANKS)
    failed = [build_row(2, "failed"), build_row(4, "failed", 1)]

    def choose(rows: list[TrialRow]) -> Round:
        ended = EndedRound(rows, 0, is_budget_used_up=False)
        return next_round(sweep, str(tmp_path), ended, Budget(sweep), retry_failed=False)

    assert (choose(failed).kept_rows, choose(failed).earlier_rows) == ([], failed)
    assert choose(failed).points == [{"lora.rank": 2}, {"lora.rank": 4}]
    one_finished = [failed[0], replace(failed[1], status="finished")]
    assert (choose(one_finished).points, choose(one_finished).kept_rows) == ([], one_finished)
    assert choose([]).points == []
