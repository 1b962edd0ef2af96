"""Reports of trials, as Ray Tune stores them."""

from types import SimpleNamespace

import pytest
from ray.tune.experiment import Trial

from mmtpp.sweep import stopped_runs
from mmtpp.sweep.budget import Budget
from mmtpp.sweep.stopped_runs import STOPPED_EARLY, StoppedRunCloser
from mmtpp.sweep.sweep_progress import SweepProgress
from mmtpp.sweep.trial_report import TrialReport
from tests.unit.sweep.sweeps import METRIC

RUNNING = TrialReport({METRIC: 2.5}, step=7.0, run_name="r", start_uri="")
FINISHED = TrialReport({METRIC: 2.0}, step=9.0, run_name="r", start_uri="s3://b/c", is_last=True)
FAILED = TrialReport({METRIC: 3.0}, step=0, run_name="r", start_uri="", is_last=True, error="E: x")


@pytest.mark.parametrize(
    ("report", "stored"),
    [
        (TrialReport({}), {}),
        (RUNNING, {METRIC: 2.5, "step": 7.0, "run_name": "r", "start_uri": ""}),
        (
            FINISHED,
            {METRIC: 2.0, "step": 9.0, "run_name": "r", "start_uri": "s3://b/c", "finished": 1.0},
        ),
        (
            FAILED,
            {
                METRIC: 3.0,
                "step": 0,
                "run_name": "r",
                "start_uri": "",
                "finished": 0.0,
                "error": "E: x",
            },
        ),
    ],
)
def test_a_report_has_the_keys_of_sweeps_on_storage(report, stored):
    assert report.as_metrics() == stored
    assert TrialReport.from_metrics(stored) == report
    by_ray_tune = {"time_total_s": 3.0, "config": {"lora.rank": 2}, "done": False}
    assert TrialReport.from_metrics({**stored, **by_ray_tune}) == report


def test_only_a_last_report_without_an_error_is_that_of_a_finished_trial():
    assert TrialReport.from_metrics(None) == TrialReport({})
    reports = (TrialReport({}), RUNNING, FINISHED, FAILED)
    assert [report.has_finished for report in reports] == [False, False, True, False]


def test_a_last_report_ends_a_trial(sweep_of):
    budget = Budget(sweep_of('[space]\n"lora.rank" = [2, 4]\n'))
    reports = (TrialReport({}), RUNNING, FINISHED, FAILED)
    assert [budget("t_0", report.as_metrics()) for report in reports] == [False, False, True, True]


def test_only_the_run_of_a_trial_without_a_last_report_is_closed(monkeypatch):
    closed: list[tuple[str, str]] = []
    tracker = SimpleNamespace(
        close_children=lambda reason, run_name: closed.append((reason, run_name))
    )
    monkeypatch.setitem(stopped_runs._trackers, "s", tracker)
    for report in (None, RUNNING, FINISHED, FAILED):
        result = report.as_metrics() if report else None
        StoppedRunCloser("s").on_trial_complete(0, [], SimpleNamespace(last_result=result))
    assert closed == [(STOPPED_EARLY, "r")]


def test_the_progress_counts_trials_and_shows_the_best(sweep_of, caplog):
    caplog.set_level("INFO")
    progress = SweepProgress(sweep_of('[space]\n"lora.rank" = [2, 4]\n'), 5)
    trials = [
        SimpleNamespace(
            trial_id=f"t_{rank}",
            config={"lora.rank": rank},
            last_result=report and report.as_metrics(),
            status=status,
        )
        for rank, report, status in (
            (1, RUNNING, Trial.TERMINATED),
            (2, FINISHED, Trial.TERMINATED),
            (3, FAILED, Trial.TERMINATED),
            (4, None, Trial.ERROR),
            (5, None, Trial.RUNNING),
        )
    ]
    for trial in trials[:3]:
        progress.on_trial_complete(0, trials, trial)
    progress.on_trial_error(0, trials, trials[3])
    assert [record.getMessage() for record in caplog.records[:5:2]] == [
        f"lora.rank = 1: stopped at step 7, {METRIC} 2.5000",
        f"lora.rank = 2: finished, {METRIC} 2.0000",
        "lora.rank = 3: failed: E: x",
    ]
    assert "failed more often than sweep.max_machine_failures = 3" in caplog.records[6].getMessage()
    last = caplog.records[7].getMessage()
    assert last.startswith("of 5 trials 1 finished, 1 stopped, 2 failed, 1 running, ")
    assert last.endswith(f"; best so far {METRIC} 2.0000 with lora.rank = 2")
