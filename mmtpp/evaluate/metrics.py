"""Metrics of forecasts: sums over targets, so that every target counts and intervals are cheap.

Every metric is a function of sums over the targets. The sums are made once for each sequence;
confidence intervals draw sequences with replacement, because events of one sequence are not
independent. Nothing is ever left out: a target without an answer is an error upstream.

Axes: N targets, S sequences, M sums, R resamples, K types.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

BUCKETS = {"1-50": (1, 50), "50-200": (50, 200), "200-500": (200, 500), "over_500": (500, 2**31)}
"""Positions in the sequence, the first included, the last not: long range is visible apart."""
RESAMPLES = 1000
CONFIDENCE = 0.95
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
    if has("interval_nll"):
        lows = {50: "quantile_25", 90: "quantile_05"}
        highs = {50: "quantile_75", 90: "quantile_95"}
        values |= {
            "interval_nll": column("interval_nll"),
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
    if has("type_rank"):
        values["top3"] = (column("type_rank") < 3).astype(np.float64)
    if has("predicted_type"):
        values |= _outcomes(targets["type"].to_numpy(), targets["predicted_type"].to_numpy())
    if has("text_nll"):
        values["text_nll"], values["text_tokens"] = column("text_nll"), column("text_tokens")
    return values


def _outcomes(true: NDArray[np.integer], predicted: NDArray[np.integer]) -> dict[str, FloatArray]:
    """For every type that occurs: hits, and how often it is true and predicted."""
    values: dict[str, FloatArray] = {}
    for code in np.union1d(true, predicted).tolist():
        is_true, is_predicted = true == code, predicted == code
        values[f"hits_{code}"] = (is_true & is_predicted).astype(np.float64)
        values[f"marks_{code}"] = is_true.astype(np.float64) + is_predicted
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
        mean = sums[self.of] / sums[self.to]
        return (np.sqrt(mean) if self.is_root else mean) * (seconds_per_unit if self.is_time else 1)


METRICS = {
    "time/rmse_s": _Metric("squared_error", is_root=True, is_time=True),
    "time/rmse_of_median_s": _Metric("squared_error_median", is_root=True, is_time=True),
    "time/rmse_of_greedy_s": _Metric("squared_error_greedy", is_root=True, is_time=True),
    "time/mae_s": _Metric("absolute_error", is_time=True),
    "time/mae_of_mean_s": _Metric("absolute_error_mean", is_time=True),
    "time/mae_of_greedy_s": _Metric("absolute_error_greedy", is_time=True),
    "time/crps_s": _Metric("crps", is_time=True),
    "time/nll_nats_per_event": _Metric("interval_nll"),
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
}
MACRO_F1 = "type/macro_f1"
JOINT = "joint/nll_nats_per_event"  # of time and type together


def _macro_f1(sums: Sums) -> FloatArray:
    """Mean F1 over the types that are true or predicted at least once."""
    codes = [name.removeprefix("hits_") for name in sums if name.startswith("hits_")]
    hits = np.stack([sums[f"hits_{code}"] for code in codes])
    marks = np.stack([sums[f"marks_{code}"] for code in codes])
    f1 = np.divide(2 * hits, marks, out=np.zeros_like(hits), where=marks > 0)
    return f1.sum(axis=0) / np.maximum((marks > 0).sum(axis=0), 1)


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
        Estimates by metric; those of positions are named ``metric@bucket``.
    """
    values = target_values(targets)
    _, sequence = np.unique(
        np.asarray(targets["sequence_id"].to_pylist(), dtype=object).astype(str),
        return_inverse=True,
    )
    position = targets["position"].to_numpy()
    num_sequences = int(sequence.max()) + 1
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(
        num_sequences, np.full(num_sequences, 1 / num_sequences), size=resamples
    ).astype(np.float64)
    estimates = _of_part(values, sequence, drawn, seconds_per_unit)
    for bucket, (first, last) in BUCKETS.items():
        inside = (position >= first) & (position < last)
        if inside.any():
            part = {name: each[inside] for name, each in values.items()}
            found = _of_part(part, sequence[inside], drawn, seconds_per_unit)
            estimates |= {f"{name}@{bucket}": each for name, each in found.items()}
    return estimates


def _of_part(
    values: dict[str, FloatArray],
    sequence: NDArray[np.int64],
    drawn: FloatArray,
    seconds_per_unit: float,
) -> dict[str, Estimate]:
    sums = {
        name: np.bincount(sequence, each, minlength=drawn.shape[1]) for name, each in values.items()
    }
    whole = {name: each.sum() for name, each in sums.items()}
    resampled = {name: drawn @ each for name, each in sums.items()}
    valid = resampled["targets"] > 0
    resampled = {name: each[valid] for name, each in resampled.items()}
    tail = 100 * (1 - CONFIDENCE) / 2
    estimates: dict[str, Estimate] = {}

    def add(name: str, of: Callable[[Sums], FloatArray]) -> None:
        low, high = np.percentile(of(resampled), [tail, 100 - tail])
        estimates[name] = Estimate(float(of(whole)), float(low), float(high))

    for name, metric in METRICS.items():
        if metric.of in values:
            add(name, lambda part, metric=metric: metric(part, seconds_per_unit))
    if "right" in values:
        add(MACRO_F1, _macro_f1)
    if {"interval_nll", "joint_type_nll"} <= values.keys():
        joint = "interval_nll", "joint_type_nll"
        add(JOINT, lambda part: sum(part[each] for each in joint) / part["targets"])
    return estimates
