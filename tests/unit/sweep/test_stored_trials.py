"""Stored bytes of a sweep: the table, the CSV file, and the JSON of rows and rounds.

``tests/golden/sweep/reports.json`` has the last reports of real trials, as Ray Tune returns them.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from mmtpp.sweep.budget import Budget
from mmtpp.sweep.ranking import best_candidate, list_candidates, pareto_front, rank_trials
from mmtpp.sweep.rounds import EndedRound, Round, next_round, save_round
from mmtpp.sweep.space import Sweep
from mmtpp.sweep.trial_row import TrialRow
from mmtpp.sweep.trial_table import as_csv, trials_table
from mmtpp.sweep.tune_results import row_from_result
from tests.unit.sweep.sweeps import METRIC

GOLDEN = Path(__file__).parents[2] / "golden" / "sweep"
NEVER_STARTED = "efbb2_00007"
SPACE = """
[space]
"training.learning_rate" = [0.003, 0.001]
"training.seed" = [0, 1]
"lora.rank" = [2, 4]
[tied]
"lora.alpha" = {to = "lora.rank", times = 4}
"""


@dataclass(frozen=True, slots=True)
class RealTrials:
    """A sweep and the ranked rows of its real trials."""

    sweep: Sweep
    rows: list[TrialRow]


@pytest.fixture
def trials(sweep_of) -> RealTrials:
    sweep = sweep_of(SPACE, "sweep.max_hours=1.0")
    budget = Budget(sweep)
    rows: list[TrialRow | None] = []
    for stored in json.loads((GOLDEN / "reports.json").read_text()):
        trial = SimpleNamespace(trial_id=stored["trial_id"], config=stored["config"])
        if trial.trial_id != NEVER_STARTED:
            budget.on_trial_start(0, [], trial)
        report = stored["metrics"]
        if report is not None:  # JSON has no NaN
            report = {name: math.nan if value is None else value for name, value in report.items()}
        result = SimpleNamespace(
            metrics=report,
            config=stored["config"] if report else None,
            error=RuntimeError(stored["error"].partition(": ")[2]) if stored["error"] else None,
        )
        rows.append(row_from_result(result, trial, sweep, budget, Round()))
    assert [index for index, row in enumerate(rows) if row is None] == [7]
    return RealTrials(sweep, rank_trials([row for row in rows if row], METRIC, "min"))


def test_the_files_of_a_report_have_the_expected_bytes(trials):
    assert as_csv(trials.rows) == (GOLDEN / "trials.csv").read_text()
    assert trials_table(trials.rows, trials.sweep) == (GOLDEN / "trials.md").read_text()
    stored = json.dumps([row.as_dict() for row in trials.rows], indent=2) + "\n"
    assert stored == (GOLDEN / "trials.json").read_text()
    assert [TrialRow.from_dict(row) for row in json.loads(stored)] == trials.rows


def test_the_best_real_trial_and_the_pareto_front(trials):
    best = best_candidate(trials.rows, trials.sweep)
    assert best is not None
    assert {key: best.settings[key] for key in trials.sweep.space} == {
        "training.learning_rate": 0.003,
        "training.seed": 1,
        "lora.rank": 2,
    }
    assert best.metrics[METRIC] == 5.717900010429579
    candidates = list_candidates(trials.rows, trials.sweep)
    front = pareto_front(candidates, [METRIC, "data/tokens_per_event"], ["min", "min"])
    assert [mean.settings for mean in front] == [{"training.learning_rate": 0.003, "lora.rank": 2}]


def test_a_stored_round_has_the_expected_bytes(trials, tmp_path):
    rows = [row.as_dict() for row in trials.rows]
    result = json.loads(json.dumps({"trials": rows, "round": 0, "budget_used_up": True}))
    ended = EndedRound.from_result(result)
    budget = Budget(trials.sweep)
    current = next_round(trials.sweep, str(tmp_path), ended, budget, retry_failed=True)
    save_round(trials.sweep, str(tmp_path / "tune-1"), 2, current)
    stored = (tmp_path / "tune-1.json").read_bytes()
    assert stored == (GOLDEN / "round.json").read_bytes()
    assert Round.from_dict(json.loads(stored)["round"]) == current
