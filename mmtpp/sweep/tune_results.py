"""Rows of trials from the results of Ray Tune."""

import math

from ray.tune import Result
from ray.tune.experiment import Trial

from mmtpp.sweep.budget import Budget
from mmtpp.sweep.failure_causes import failure_cause
from mmtpp.sweep.rounds import Round
from mmtpp.sweep.search import to_python_values
from mmtpp.sweep.space import Sweep
from mmtpp.sweep.trial_report import TrialReport
from mmtpp.sweep.trial_row import Status, TrialRow, is_metric


def row_from_result(
    result: Result, trial: Trial, sweep: Sweep, budget: Budget, current_round: Round
) -> TrialRow | None:
    """Build the row of a trial from its last report; return None if the trial never started."""
    report, trial_id = TrialReport.from_metrics(result.metrics), trial.trial_id
    error = report.error if result.error is None else failure_cause(result.error)
    if not (budget.has_begun(trial_id) or error):
        return None
    return TrialRow(
        settings={
            **dict.fromkeys(sweep.space),
            # settings of the last report: a population may have changed those of the trial since
            **sweep.trial_settings(to_python_values(result.config or trial.config)),
        },
        status="failed" if error else _status(report, trial_id, budget),
        trial_id=current_round.first_trial_id(trial_id),
        metrics={
            name: value
            for name, value in report.metrics.items()
            if is_metric(name, value) and math.isfinite(value)
        },
        step=None if report.step is None else int(report.step),
        run_name=report.run_name,
        start_uri=report.start_uri,
        seconds=float((result.metrics or {}).get("time_total_s", 0.0)),
        error=error,
    )


def _status(report: TrialReport, trial_id: str, budget: Budget) -> Status:
    """Status of a trial that did not fail."""
    if report.has_finished:
        return "finished"
    return "cut short" if budget.has_cut_short(trial_id) else "stopped"
