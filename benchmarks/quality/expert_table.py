"""The report's table of the temporal expert beside the best baseline by each measure."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.difference_table import (
    EXPERT,
    WITH_IMAGES,
    best_baseline,
    is_baseline,
    mean_nll,
)
from benchmarks.quality.easytpp import DRAWS
from benchmarks.quality.kept_differences import read_kept

ACCURACY, RMSE = "type/accuracy", "time/rmse_s"
# measures of errors, of which the lowest is the best
ERRORS = {RMSE: "RMSE (s)", "time/mae_s": "MAE (s)", "time/crps_s": "CRPS (s)"}
COVERAGES = ("time/pit_coverage_90", "time/coverage_90")
COVERED = (0.88, 0.92)
Records = Sequence[dict[str, Any]]


def expert_table(records: Records, kept: Path) -> str:
    """A section with a row for each set and expert, in Markdown.

    Args:
        records: Finished trials of all sets.
        kept: File of the paired differences.
    """
    titles = ["set", "expert", "NLL (nats/event)", "standard errors", *ERRORS.values()]
    titles += ["accuracy", "90 % covered"]
    lines = [
        "## The temporal expert beside the best baselines\n",
        "The expert, and in brackets the best classical or neural model by the same measure. Bold "
        "where the expert is not at least as good, where its NLL is not lower by more than two "
        "standard errors of the paired difference, and where its intervals of 90 % do not cover 88 "
        "to 92 % (within ticks, where trials have this measure). Errors of neural models are those "
        f"of the mean of {DRAWS} samples; trials with one sample do not count.\n",
        f"| {' | '.join(titles)} |",
        "|" + "---|" * len(titles),
    ]
    for name in dict.fromkeys(record["set"] for record in records):
        of_set = [record for record in records if record["set"] == name]
        for expert in (EXPERT, WITH_IMAGES):
            ours = [record for record in of_set if record["name"] == expert]
            if ours and best_baseline(of_set):
                lines.append(_row(name, ours, of_set, kept))
    return "\n".join([*lines, ""])


def _row(name: str, ours: Records, of_set: Records, kept: Path) -> str:
    expert, baseline = ours[0]["name"], best_baseline(of_set)
    nll = (mean_nll(of_set, expert), mean_nll(of_set, baseline))
    errors = _standard_errors(name, (expert, baseline), nll, kept)
    is_ahead = nll[0] < nll[1] and (np.isnan(errors) or errors > 2)
    cells = [
        _marked(f"{nll[0]:.3f} ({nll[1]:.3f}, {baseline})", holds=is_ahead),
        "" if np.isnan(errors) else f"{errors:.1f}",
        *(_measure(metric, ours, of_set, min) for metric in ERRORS),
        _measure(ACCURACY, ours, of_set, max),
    ]
    covered = next(mean for metric in COVERAGES if (mean := _mean(ours, metric)) is not None)
    low, high = COVERED
    cells.append(_marked(f"{covered:.3f}", holds=low <= covered <= high))
    return f"| {name} | {expert} | {' | '.join(cells)} |"


def _standard_errors(
    name: str, pair: tuple[str, str], nll: tuple[float, float], kept: Path
) -> float:
    """By how many standard errors the first model is better; NaN if that is not known."""
    for old in read_kept(kept):
        if (old.set, old.first, old.second) == (name, *pair) and old.is_of(nll):
            return -old.difference.value / old.difference.standard_error
    return float("nan")


def _measure(
    metric: str, ours: Records, of_set: Records, choose: Callable[[list[float]], float]
) -> str:
    mine = _mean(ours, metric)
    names = {record["name"] for record in of_set if is_baseline(record)}
    by_name = [[record for record in of_set if record["name"] == name] for name in sorted(names)]
    others = [
        mean
        for of_name in by_name
        if not is_one_draw(of_name, metric) and (mean := _mean(of_name, metric)) is not None
    ]
    if mine is None:
        return ""
    if not others:
        return _shown(mine)
    best = choose(others)
    is_as_good = choose([mine, best]) == mine
    return _marked(f"{_shown(mine)} ({_shown(best)})", holds=is_as_good)


def is_one_draw(of_name: Records, metric: str) -> bool:
    """Whether a neural model's predictions are single samples, not their mean.

    Args:
        of_name: Trials of one model.
        metric: A measure of its predictions.
    """
    draws = [record["metrics"].get("draws", DRAWS) for record in of_name]
    # IntensityFree predicts types from the history, without a sample
    is_drawn = metric == RMSE or (metric == ACCURACY and of_name[0]["name"] != "IntensityFree")
    return is_drawn and of_name[0]["kind"] == "neural" and min(draws) < DRAWS


def _mean(records: Records, metric: str) -> float | None:
    values = [record["metrics"][metric] for record in records if metric in record["metrics"]]
    return float(np.mean(values)) if values else None


def _shown(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"


def _marked(text: str, *, holds: bool) -> str:
    return text if holds else f"**{text}**"
