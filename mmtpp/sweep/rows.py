"""What is known of a trial when Ray Tune is done with it."""

import math

from ray.tune import Result
from ray.tune.experiment import Trial

from mmtpp.sweep.budget import Budget
from mmtpp.sweep.causes import one_line
from mmtpp.sweep.resume import Again
from mmtpp.sweep.search import ERROR, FINISHED, RUN, START, STEP, plain
from mmtpp.sweep.space import Sweep
from mmtpp.sweep.trial_table import Row


def row_of(result: Result, trial: Trial, sweep: Sweep, budget: Budget, again: Again) -> Row | None:
    """Settings, metrics, step, ``status`` and ``error`` of a trial; None of one that never began.

    ``status``: finished; failed; ``cut short`` by the budget; or stopped by the scheduler.
    """
    metrics, name = result.metrics or {}, trial.trial_id
    error = one_line(result.error) if result.error is not None else metrics.get(ERROR, "")
    if not (budget.has_begun(name) or error):
        return None
    stopped = "cut short" if budget.has_cut_short(name) else "stopped"
    status = "finished" if metrics.get(FINISHED) else stopped
    return {
        **dict.fromkeys(sweep.space),
        # of a population's trial, those of its last report: it may have been given others since
        **sweep.settings_of(plain(result.config or trial.config)),
        "status": "failed" if error else status,
        **({STEP: int(metrics[STEP])} if STEP in metrics else {}),
        **{key: value for key, value in metrics.items() if "/" in key and _is_number(value)},
        **{key: metrics[key] for key in (RUN, START) if key in metrics},
        "seconds": float(metrics.get("time_total_s", 0.0)),
        "error": error,
        "trial": again.first_name(name),
    }


def _is_number(value: object) -> bool:
    return isinstance(value, float) and math.isfinite(value)
