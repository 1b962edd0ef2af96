"""Metrics of forecasts: sums over targets, so that every target counts and intervals are cheap.

Every metric is a function of sums over the targets. The sums are made once for each sequence;
confidence intervals draw sequences with replacement, because events of one sequence are not
independent. Every target counts; a metric that is infinite for one of them is infinite.

Axes: N targets, S sequences, M sums, R resamples, K types.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmtpp.evaluate.text_metrics import TEXT_SCORES

BUCKETS = {"1-50": (1, 50), "50-200": (50, 200), "200-500": (200, 500), "over_500": (500, 2**31)}
"""Positions in the sequence, the first included, the last not: long range is visible apart."""
RESAMPLES = 1000
CONFIDENCE = 0.95
ENOUGH_SEQUENCES = 20
"""Bootstrap intervals over fewer sequences are too narrow: see ``few_sequences``."""
DRAWN_AT_ONCE = 10**7  # numbers
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A metric and its bootstrap interval.

    Attributes:
        value: over all targets.
        low, high: of the 95 % interval over sequences.
    """

    value: float
    low: float
    high: float


def few_sequences(num_sequences: int) -> str:
    """A warning about intervals over fewer than ``ENOUGH_SEQUENCES`` sequences, otherwise "".

    The coverage in it is simulated in `tests/unit/evaluate/test_metrics.py`: sequences whose
    errors are
    exponentially distributed, resampled as here.
    """
    if num_sequences >= ENOUGH_SEQUENCES:
        return ""
    return (
        f"{num_sequences} held-out sequences are few: with 10, a 95 % interval over sequences "
        f"holds the true value in about 85 % of cases only; hold out at least {ENOUGH_SEQUENCES}"
    )


def target_values(targets: pa.Table) -> dict[str, FloatArray]:
    """What is summed over targets: (N,) each, by name.

    Args:
        targets: ``targets.TARGET_SCHEMA``, or a part of its columns.
    """

    def column(name: str) -> FloatArray:
        return targets[name].to_numpy().astype(np.float64)

    def has(name: str) -> bool:
        return name in targets.column_names and targets[name].null_count < len(targets)

    values = {"targets": np.ones(len(targets))}
    interval = column("interval")
    if has("mean"):
        values |= {
            "squared_error": (column("mean") - interval) ** 2,
            "squared_error_median": (column("quantile_50") - interval) ** 2,
            "absolute_error": np.abs(column("quantile_50") - interval),
            "absolute_error_mean": np.abs(column("mean") - interval),
            "crps": column("crps"),
        }
    if has("time_nll"):
        lows = {50: "quantile_25", 90: "quantile_05"}
        highs = {50: "quantile_75", 90: "quantile_95"}
        values |= {
            # without a clock simultaneous events have no density and no share in the mean
            "dense": (~np.isnan(column("time_nll"))).astype(np.float64),
            "time_nll": np.nan_to_num(column("time_nll"), posinf=np.inf),
            "outside": column("outside"),
            **{
                f"covered_{share}": (
                    (column(lows[share]) <= interval) & (interval <= column(highs[share]))
                ).astype(np.float64)
                for share in (50, 90)
            },
        }
    if has("code_nll"):
        values["code_nll"] = column("code_nll")
    if has("greedy"):
        values["squared_error_greedy"] = (column("greedy") - interval) ** 2
        values["absolute_error_greedy"] = np.abs(column("greedy") - interval)
    true = column("type")
    for prefix in ("", "joint_"):
        if has(f"{prefix}predicted_type"):
            values[f"{prefix}right"] = (column(f"{prefix}predicted_type") == true).astype(float)
        if has(f"{prefix}type_nll"):
            values[f"{prefix}type_nll"] = column(f"{prefix}type_nll")
    if "time_nll" in values and "joint_type_nll" in values:
        values["joint_nll"] = values["time_nll"] + values["dense"] * values["joint_type_nll"]
    if has("type_rank"):
        values["top3"] = (column("type_rank") < 3).astype(np.float64)
    if has("text_nll"):
        values["text_nll"], values["text_tokens"] = column("text_nll"), column("text_tokens")
    if has("written"):
        values["written"] = targets["written"].is_valid().to_numpy().astype(np.float64)
        values |= {name: targets[name].fill_null(0.0).to_numpy() for name in TEXT_SCORES}
    return values


Sums = Mapping[str, FloatArray]


@dataclass(frozen=True, slots=True)
class _Metric:
    """How a metric follows from sums over targets of any shape.

    Attributes:
        of: the sum it is of, without which it is left out.
        to: the sum it is divided by.
        is_root: the square root of that.
        is_time: in the source's unit, to be converted to seconds.
    """

    of: str
    to: str = "targets"
    is_root: bool = False
    is_time: bool = False

    def __call__(self, sums: Sums, seconds_per_unit: float) -> FloatArray:
        with np.errstate(invalid="ignore"):  # a resample without any written text is left out
            mean = np.divide(sums[self.of], sums[self.to])
        return (np.sqrt(mean) if self.is_root else mean) * (seconds_per_unit if self.is_time else 1)


METRICS = {
    "time/rmse_s": _Metric("squared_error", is_root=True, is_time=True),
    "time/rmse_of_median_s": _Metric("squared_error_median", is_root=True, is_time=True),
    "time/rmse_of_greedy_s": _Metric("squared_error_greedy", is_root=True, is_time=True),
    "time/mae_s": _Metric("absolute_error", is_time=True),
    "time/mae_of_mean_s": _Metric("absolute_error_mean", is_time=True),
    "time/mae_of_greedy_s": _Metric("absolute_error_greedy", is_time=True),
    "time/crps_s": _Metric("crps", is_time=True),
    "time/nll_nats_per_event": _Metric("time_nll", "dense"),
    "time/code_nll_nats_per_event": _Metric("code_nll"),
    "time/coverage_50": _Metric("covered_50"),
    "time/coverage_90": _Metric("covered_90"),
    "time/probability_off_grid": _Metric("outside"),
    "type/accuracy": _Metric("right"),
    "type/top3_accuracy": _Metric("top3"),
    "type/nll_nats_per_event": _Metric("type_nll"),
    "joint/type_accuracy": _Metric("joint_right"),
    "joint/type_nll_nats_per_event": _Metric("joint_type_nll"),
    "text/nll_nats_per_event": _Metric("text_nll"),
    "text/nll_nats_per_token": _Metric("text_nll", "text_tokens"),
    **{f"text/{name}": _Metric(name, "written") for name in TEXT_SCORES},
}
MACRO_F1 = "type/macro_f1"
JOINT = "joint/nll_nats_per_event"  # of time and type together


def _macro_f1(hits: FloatArray, marks: FloatArray) -> FloatArray:
    """Mean F1 over the types that are true or predicted at least once.

    Args:
        hits: (..., K) how often a type was predicted rightly.
        marks: (..., K) how often it was true and how often predicted, together.
    """
    f1 = np.divide(2 * hits, marks, out=np.zeros_like(hits), where=marks > 0)
    return f1.sum(axis=-1) / np.maximum((marks > 0).sum(axis=-1), 1)


def _type_sums(
    targets: pa.Table, sequence: NDArray[np.int64], num_sequences: int
) -> tuple[FloatArray, FloatArray]:
    """(S, K) hits and marks of ``_macro_f1``, by sequence."""
    both = [targets[name].to_numpy() for name in ("type", "predicted_type")]
    codes, place = np.unique(np.concatenate(both), return_inverse=True)
    true, predicted = np.split(place, 2)

    def count(types: NDArray[np.int64], of: NDArray[np.int64]) -> FloatArray:
        cells = np.bincount(of * len(codes) + types, minlength=num_sequences * len(codes))
        return cells.reshape(num_sequences, len(codes)).astype(np.float64)

    right = true == predicted
    return count(true[right], sequence[right]), count(true, sequence) + count(predicted, sequence)


def estimate(
    targets: pa.Table, *, seconds_per_unit: float, seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, Estimate]:
    """Every metric that the targets allow, with its confidence interval.

    Args:
        targets: at least one; see ``target_values``.
        seconds_per_unit: of the source's time unit.
        seed: of the resampling.
        resamples: of the sequences.

    Returns:
        Estimates by metric; those of positions are named ``METRIC/at_BUCKET``.
    """
    names = targets["sequence_id"].combine_chunks().dictionary_encode()
    sequence = names.indices.to_numpy().astype(np.int64)
    position = targets["position"].to_numpy()
    draws = _Draws(len(names.dictionary), resamples, seed)
    estimates = _of_part(targets, sequence, draws, seconds_per_unit)
    for bucket, (first, last) in BUCKETS.items():
        inside = (position >= first) & (position < last)
        if inside.any():
            part = targets.filter(pa.array(inside))
            found = _of_part(part, sequence[inside], draws, seconds_per_unit)
            estimates |= {f"{name}/at_{bucket}": each for name, each in found.items()}
    return estimates


def mean_estimates(
    values: Mapping[str, tuple[FloatArray, FloatArray]],
    sequence: NDArray[np.integer],
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict[str, Estimate]:
    """Ratios of sums with confidence intervals; what is undefined is left out.

    Args:
        values: (N,) numerators and denominators by metric.
        sequence: (N,) from 0, which sequence each belongs to.
        seed: of the resampling.
        resamples: of the sequences.
    """
    _, place = np.unique(sequence, return_inverse=True)
    draws = _Draws(int(place.max()) + 1, resamples, seed)
    tail = 100 * (1 - CONFIDENCE) / 2
    found: dict[str, Estimate] = {}
    for name, pair in values.items():
        sums = np.stack([np.bincount(place, part, draws.num_sequences) for part in pair], axis=1)
        above, below = sums.sum(axis=0)
        if below > 0:
            drawn = draws.sums(sums.astype(np.float64))
            drawn = drawn[drawn[:, 1] > 0]
            low, high = np.percentile(drawn[:, 0] / drawn[:, 1], [tail, 100 - tail])
            found[name] = Estimate(float(above / below), float(low), float(high))
    return found


@dataclass(frozen=True, slots=True)
class _Draws:
    """Resamples of sequences, drawn again whenever they are needed: they may be too many to keep.

    Attributes:
        num_sequences: S.
        resamples: R.
        seed: of the draws.
    """

    num_sequences: int
    resamples: int
    seed: int

    def sums(self, of_sequences: FloatArray) -> FloatArray:
        """(R, M) sums over the drawn sequences of (S, M)."""
        rng = np.random.default_rng(self.seed)
        chances = np.full(self.num_sequences, 1 / self.num_sequences)
        size = max(1, DRAWN_AT_ONCE // self.num_sequences)
        parts = []
        for start in range(0, self.resamples, size):
            count = min(size, self.resamples - start)
            parts.append(rng.multinomial(self.num_sequences, chances, size=count) @ of_sequences)
        return np.concatenate(parts)


def differences(
    targets: pa.Table,
    other: pa.Table,
    *,
    seconds_per_unit: float,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict[str, Estimate]:
    """Metrics of one forecaster less those of another, for the same targets.

    The intervals are of paired resamples: each draws the same sequences for both forecasters, so
    that what makes a sequence hard for both does not widen them.

    Args:
        targets: ``targets.TARGET_SCHEMA`` of the first, at least one row.
        other: The same targets, in any order of rows, with the forecasts of the second.
        seconds_per_unit: Seconds in one unit of the source's times.
        seed: Seed of the bootstrap.
        resamples: Number of resamples.

    Returns:
        Differences by metric, of the metrics that both have.

    Raises:
        ValueError: the two tables are not of the same sequences.
    """
    both = []
    for table in (targets, other):
        names, sequence = np.unique(
            table["sequence_id"].to_numpy(zero_copy_only=False), return_inverse=True
        )
        draws = _Draws(len(names), resamples, seed)
        both.append((names, _with_draws(table, sequence, draws, seconds_per_unit)))
    (names, first), (other_names, second) = both
    if names.tolist() != other_names.tolist():
        raise ValueError("forecasts of different sequences cannot be compared")
    with np.errstate(invalid="ignore"):
        return {
            name: _interval(first[name][0] - second[name][0], first[name][1] - second[name][1])
            for name in first
            if name in second
        }


def _of_part(
    targets: pa.Table, sequence: NDArray[np.int64], draws: _Draws, seconds_per_unit: float
) -> dict[str, Estimate]:
    found = _with_draws(targets, sequence, draws, seconds_per_unit)
    return {name: _interval(*pair) for name, pair in found.items()}


def _interval(value: FloatArray, drawn: FloatArray) -> Estimate:
    """A value with the interval of its resamples; resamples that are undefined are left out."""
    tail = 100 * (1 - CONFIDENCE) / 2
    drawn = drawn[~np.isnan(drawn)]
    low, high = np.percentile(drawn, [tail, 100 - tail]) if len(drawn) else (np.nan, np.nan)
    return Estimate(float(value), float(low), float(high))


def _with_draws(
    targets: pa.Table, sequence: NDArray[np.int64], draws: _Draws, seconds_per_unit: float
) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Each metric of all targets, and (R,) of the resamples."""
    values = target_values(targets)
    size = draws.num_sequences
    sums = np.stack(
        [np.bincount(sequence, each, minlength=size).astype(np.float64) for each in values.values()]
    )
    resampled = draws.sums(sums.T)
    whole = dict(zip(values, sums.sum(axis=1), strict=True))
    there = resampled[:, list(values).index("targets")] > 0
    drawn = dict(zip(values, resampled[there].T, strict=True))
    found = {
        name: (metric(whole, seconds_per_unit), metric(drawn, seconds_per_unit))
        for name, metric in METRICS.items()
        if metric.of in values
    }
    if "right" in values:
        hits, marks = _type_sums(targets, sequence, size)
        f1 = _macro_f1(draws.sums(hits), draws.sums(marks))[there]
        found[MACRO_F1] = (_macro_f1(hits.sum(axis=0), marks.sum(axis=0)), f1)
    if "joint_nll" in values:
        joint = _Metric("joint_nll", "dense")
        found[JOINT] = (joint(whole, 1.0), joint(drawn, 1.0))
    # undefined where no target counts
    return {name: pair for name, pair in found.items() if not np.isnan(pair[0])}
