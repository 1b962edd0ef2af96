"""Which trials are best: their ranking, the Pareto front, and means over seeds."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mmtpp.sweep.space import Sweep
from mmtpp.sweep.sweep_settings import Mode
from mmtpp.sweep.trial_row import TrialRow

SEED = "training.seed"


@dataclass(frozen=True, slots=True)
class SeedMean:
    """Mean of the finished trials that differ only in ``training.seed``.

    Attributes:
        settings: Searched settings without the seed, by configuration path.
        num_seeds: Number of trials.
        means: Mean of each metric that all these trials have.
        deviations: Standard deviation of these metrics; empty for a single trial.
    """

    settings: Mapping[str, object]
    num_seeds: int
    means: Mapping[str, float]
    deviations: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A result that may be chosen as the best: a finished trial, or a mean over seeds.

    Attributes:
        settings: Settings by configuration path.
        metrics: Metrics by name.
    """

    settings: Mapping[str, object]
    metrics: Mapping[str, float]


def rank_trials(rows: Iterable[TrialRow], metric: str, mode: Mode) -> list[TrialRow]:
    """Sort trials from best to worst.

    Finished trials come first, then stopped ones, then failed ones; trials without the metric come
    last among them. A trial that was stopped early was judged at an earlier step than finished
    trials, so it is never the best.
    """
    sign = _sign(mode)
    order = {"finished": 0, "stopped": 1, "cut short": 1, "failed": 2}

    def key(row: TrialRow) -> tuple[int, bool, float]:
        value = row.metrics.get(metric)
        return order[row.status], value is None, 0.0 if value is None else sign * value

    return sorted(rows, key=key)


def finished_trials(rows: Iterable[TrialRow]) -> list[TrialRow]:
    """The finished trials, in the given order."""
    return [row for row in rows if row.status == "finished"]


def average_over_seeds(rows: Iterable[TrialRow], sweep: Sweep) -> list[SeedMean]:
    """Average finished trials that differ only in the seed; empty if seeds are not searched."""
    if SEED not in sweep.space:
        return []
    keys = [key for key in sweep.space if key != SEED]
    groups: dict[str, list[TrialRow]] = {}
    for row in finished_trials(rows):
        groups.setdefault(str([row.settings[key] for key in keys]), []).append(row)
    return [_seed_mean(group, keys) for group in groups.values()]


def _seed_mean(group: Sequence[TrialRow], keys: Sequence[str]) -> SeedMean:
    """Average trials that have the same values of the settings ``keys``."""
    first = group[0]
    values = {
        name: [row.metrics[name] for row in group]
        for name in first.metrics
        if all(name in row.metrics for row in group)
    }
    return SeedMean(
        settings={key: first.settings[key] for key in keys},
        num_seeds=len(group),
        means={name: statistics.mean(numbers) for name, numbers in values.items()},
        deviations={
            name: statistics.stdev(numbers) for name, numbers in values.items() if len(numbers) > 1
        },
    )


def list_candidates(rows: Sequence[TrialRow], sweep: Sweep) -> list[Candidate]:
    """The results among which the best is chosen.

    These are all finished trials. Where seeds are searched, these are the means over seeds, without
    means over fewer seeds than the largest number: the best single seed is luck.
    """
    if SEED not in sweep.space:
        return [Candidate(row.settings, row.metrics) for row in finished_trials(rows)]
    means = average_over_seeds(rows, sweep)
    most_seeds = max((mean.num_seeds for mean in means), default=0)
    return [Candidate(mean.settings, mean.means) for mean in means if mean.num_seeds == most_seeds]


def best_candidate(rows: Sequence[TrialRow], sweep: Sweep) -> Candidate | None:
    """The best candidate by the sweep's first metric; None if no candidate has the metric.

    The candidate has all searched settings. Where seeds are searched, its seed is that of the best
    trial with the same other settings, and its metrics are the means.
    """
    metric, mode = sweep.settings.metric[0], sweep.settings.mode[0]
    best = _best(list_candidates(rows, sweep), metric, mode)
    if best is None or SEED not in sweep.space:
        return best
    same_settings = [
        Candidate(row.settings, row.metrics)
        for row in finished_trials(rows)
        if all(row.settings[key] == value for key, value in best.settings.items())
    ]
    best_trial = _best(same_settings, metric, mode)
    assert best_trial is not None
    return Candidate({**best_trial.settings, **best.settings}, best.metrics)


def pareto_front(
    candidates: Iterable[Candidate], metrics: Sequence[str], modes: Sequence[Mode]
) -> list[Candidate]:
    """The Pareto front: candidates that have all metrics and that none dominates.

    A candidate dominates another if it is at least as good in every metric and better in one.
    """
    signs = [_sign(mode) for mode in modes]
    points = [
        (
            candidate,
            [sign * candidate.metrics[name] for sign, name in zip(signs, metrics, strict=True)],
        )
        for candidate in candidates
        if all(name in candidate.metrics for name in metrics)
    ]
    return [
        candidate
        for candidate, point in points
        if not any(
            rival != point and all(a <= b for a, b in zip(rival, point, strict=True))
            for _, rival in points
        )
    ]


def _best(candidates: Iterable[Candidate], metric: str, mode: Mode) -> Candidate | None:
    """The first candidate with the best value of a metric; None if none has the metric."""
    judged = [candidate for candidate in candidates if metric in candidate.metrics]
    sign = _sign(mode)
    return min(judged, key=lambda candidate: sign * candidate.metrics[metric], default=None)


def _sign(mode: Mode) -> float:
    """The factor that makes the smallest value the best."""
    return 1.0 if mode == "min" else -1.0
