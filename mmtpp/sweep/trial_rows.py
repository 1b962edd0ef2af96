"""Rows of the trial table, from the results of Ray Tune."""

import math

from ray.tune import Result
from ray.tune.experiment import Trial

from mmtpp.sweep.budget import Budget
from mmtpp.sweep.failure_causes import failure_cause
from mmtpp.sweep.rounds import Round
from mmtpp.sweep.search import ERROR, FINISHED, RUN, START, STEP, to_python_values
from mmtpp.sweep.space import Sweep
from mmtpp.sweep.trial_table import Row


def trial_row(
    result: Result, trial: Trial, sweep: Sweep, budget: Budget, current: Round
) -> Row | None:
    """Settings, metrics, step, ``status`` and ``error`` of a trial; None if it never started.

    ``status`` is ``finished``, ``failed``, ``cut short`` (by the budget) or ``stopped`` (by the
    scheduler).
    """
    metrics, trial_id = result.metrics or {}, trial.trial_id
    error = failure_cause(result.error) if result.error is not None else metrics.get(ERROR, "")
    if not (budget.has_begun(trial_id) or error):
        return None
    stopped = "cut short" if budget.has_cut_short(trial_id) else "stopped"
    status = "finished" if metrics.get(FINISHED) else stopped
    return {
        **dict.fromkeys(sweep.space),
        # settings of the last report: a population may have changed those of the trial since
        **sweep.trial_settings(to_python_values(result.config or trial.config)),
        "status": "failed" if error else status,
        **({STEP: int(metrics[STEP])} if STEP in metrics else {}),
        **{key: value for key, value in metrics.items() if "/" in key and _is_finite(value)},
        **{key: metrics[key] for key in (RUN, START) if key in metrics},
        "seconds": float(metrics.get("time_total_s", 0.0)),
        "error": error,
        "trial": current.first_trial_id(trial_id),
    }


def _is_finite(value: object) -> bool:
    return isinstance(value, float) and math.isfinite(value)
