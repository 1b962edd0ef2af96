"""What becomes of trials: as rows, and in a later round of their sweep."""

import math
from types import SimpleNamespace

import pytest

from mmtpp.sweep.budget import Budget
from mmtpp.sweep.resume import Again, begin_again, keep_limits
from mmtpp.sweep.rows import row_of
from tests.unit.sweep.sweeps import METRIC

RANKS = '[space]\n"lora.rank" = [2, 4]\n'


def _budget(sweep, *begun: str) -> Budget:
    budget = Budget(sweep)
    for name in begun:
        budget.on_trial_start(0, [], SimpleNamespace(trial_id=name, config={}))
    return budget


def test_a_trial_that_never_reported_keeps_its_settings(sweep_of):
    """Ray Tune's result of it is empty."""
    sweep = sweep_of(RANKS + '[tied]\n"lora.alpha" = {to = "lora.rank", times = 4}\n')
    trial = SimpleNamespace(trial_id="t_0", config={"lora.rank": 4})
    lost = SimpleNamespace(metrics=None, config=None, error=RuntimeError("no machine\nat all"))
    row = row_of(lost, trial, sweep, _budget(sweep, "t_0"), Again())
    assert row is not None
    assert (row["lora.rank"], row["lora.alpha"], row["status"]) == (4, 16, "failed")
    assert row["error"] == "RuntimeError: no machine"
    never = SimpleNamespace(metrics=None, config=None, error=None)
    assert row_of(never, trial, sweep, _budget(sweep), Again()) is None
    begun = _budget(sweep, "t_0")
    row = row_of(never, trial, sweep, begun, Again())
    assert row is not None
    assert (row["lora.rank"], row["status"]) == (4, "stopped")


def test_a_row_is_of_the_last_report(sweep_of):
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
    assert row_of(result, trial, sweep, _budget(sweep, "t_0"), Again()) == {
        "lora.rank": 2,
        "status": "finished",
        "step": 7,
        METRIC: 2.5,
        "run_name": "r",
        "start_uri": "s3://b/other",
        "seconds": 3.0,
        "error": "",
        "trial": "t_0",
    }


@pytest.mark.parametrize("searcher", ["grid", "random"])
def test_a_larger_budget_is_for_what_was_cut_short_or_never_begun(sweep_of, tmp_path, searcher):
    text = '[space]\n"lora.rank" = [2, 4, 8]\n'
    chosen = [] if searcher == "grid" else ["sweep.searcher=random", "sweep.num_trials=3"]
    sweep = sweep_of(text, *chosen, "sweep.max_hours=9")
    rows = [
        {"lora.rank": 4, "status": "cut short", "trial": "t_0", "run_name": "r", "start_uri": ""},
        {"lora.rank": 8, "status": "failed", "trial": "t_1"},
    ]
    result = {"trials": rows, "round": 0, "budget_used_up": True}
    uri = str(tmp_path)
    again = begin_again(sweep, uri, result, Budget(sweep), retry_failed=False)
    assert ([rows[1]], [rows[0], {}], 1) == (again.known, again.rows, again.round)
    assert again.points[0] == {"lora.rank": 4}
    if searcher == "grid":
        assert again.points[1:] == [{"lora.rank": 2}]
    else:
        assert again.points[1]["lora.rank"] in (2, 4, 8)
    assert (again.first_name("new_00000"), again.first_name("new_00001")) == ("t_0", "new_00001")
    assert (again.row("new_00000")["run_name"], again.row("new_00001")) == ("r", {})


def test_an_interrupted_round_goes_on_with_what_it_was_begun_for(sweep_of, tmp_path):
    sweep = sweep_of(RANKS)
    rows = [
        {"lora.rank": 2, "status": "failed", "trial": "t_0"},
        {"lora.rank": 4, "status": "finished", "trial": "t_1"},
    ]
    result = {"trials": rows, "round": 0, "budget_used_up": False}
    uri = str(tmp_path)
    asked = begin_again(sweep, uri, result, Budget(sweep), retry_failed=True)
    assert asked.points == [{"lora.rank": 2}]
    assert begin_again(sweep, uri, result, Budget(sweep), retry_failed=False).points == []
    keep_limits(sweep, f"{uri}/tune-1", 1, asked)
    (tmp_path / "tune-1").mkdir()
    (tmp_path / "tune-1" / "experiment_state-1.json").write_text("{}")
    assert begin_again(sweep, uri, result, Budget(sweep), retry_failed=False) == asked


def test_a_sweep_whose_trials_all_failed_is_not_finished(sweep_of, tmp_path):
    sweep = sweep_of(RANKS)
    failed = [
        {"lora.rank": 2, "status": "failed", "trial": "t_0"},
        {"lora.rank": 4, "status": "failed", "trial": "t_1"},
    ]

    def again(rows: list) -> Again:
        result = {"trials": rows, "round": 0, "budget_used_up": False}
        return begin_again(sweep, str(tmp_path), result, Budget(sweep), retry_failed=False)

    assert (again(failed).known, again(failed).rows) == ([], failed)
    assert again(failed).points == [{"lora.rank": 2}, {"lora.rank": 4}]
    one_stands = [failed[0], {**failed[1], "status": "finished"}]
    assert (again(one_stands).points, again(one_stands).known) == ([], one_stands)
    assert again([]).points == []
