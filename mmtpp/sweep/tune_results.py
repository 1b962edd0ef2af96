"""Rows of trials from the results of Ray Tune."""

import math

from ray.tune import Result
from ray.tune.experiment import Trial

from mmtpp.sweep.budget import Budget
from mmtpp.sweep.failure_causes import failure_cause
from mmtpp.sweep.rounds import Round
from mmtpp.sweep.search import ERROR, FINISHED, RUN, START, STEP, to_python_values
from mmtpp.sweep.space import Sweep
from mmtpp.sweep.trial_row import Status, TrialRow, is_metric


def row_from_result(
    result: Result, trial: Trial, sweep: Sweep, budget: Budget, current: Round
) -> TrialRow | None:
    """Build the row of a trial from its last report; return None if the trial never started."""
    report, trial_id = result.metrics or {}, trial.trial_id
    error = failure_cause(result.error) if result.error is not None else report.get(ERROR, "")
    if not (budget.has_begun(trial_id) or error):
        return None
    unfinished: Status = "cut short" if budget.has_cut_short(trial_id) else "stopped"
    status: Status = "finished" if report.get(FINISHED) else unfinished
    return TrialRow(
        settings={
            **dict.fromkeys(sweep.space),
            # settings of the last report: a population may have changed those of the trial since
            **sweep.trial_settings(to_python_values(result.config or trial.config)),
        },
        status="failed" if error else status,
        trial_id=current.first_trial_id(trial_id),
        metrics={
            name: value
            for name, value in report.items()
            if is_metric(name, value) and math.isfinite(value)
        },
        step=int(report[STEP]) if STEP in report else None,
        run_name=report.get(RUN),
        start_uri=report.get(START),
        seconds=float(report.get("time_total_s", 0.0)),
        error=error,
    )
