"""Metrics of forecasts, computed from sums over targets.

Every metric is a function of sums over the targets. The sums are computed once for each sequence,
so resamples of the sequences (``estimates.py``) are cheap. Every target counts; a metric that is
infinite for one target is infinite.

Axes: N targets, S sequences, R resamples, K types.
"""

from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmtpp.core.forecasting.residuals import draw_pit, exponential_residuals
from mmtpp.evaluate.scores import metric_names
from mmtpp.evaluate.scores.estimates import RESAMPLES, Estimate, SequenceDraws, as_estimate
from mmtpp.evaluate.scores.metric_table import FORECAST_METRICS, Metric
from mmtpp.evaluate.scores.position_ranges import POSITION_RANGES, at_position
from mmtpp.evaluate.scores.text_metrics import TEXT_SCORES

FloatArray = NDArray[np.float64]
Sums = Mapping[str, FloatArray]


def estimate_metrics(
    targets: pa.Table, *, seconds_per_unit: float, seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, Estimate]:
    """Estimate every metric that the targets allow, with its confidence interval.

    Args:
        targets: ``targets.TARGET_SCHEMA`` or a part of its columns; at least one row.
        seconds_per_unit: Seconds in one unit of the source's times.
        seed: Seed of the bootstrap.
        resamples: Number of resamples of the sequences.

    Returns:
        Estimates by metric; those of positions are named ``METRIC/at_RANGE``.
    """
    sequence_ids = targets["sequence_id"].combine_chunks().dictionary_encode()
    sequence = sequence_ids.indices.to_numpy().astype(np.int64)
    position = targets["position"].to_numpy()
    draws = SequenceDraws(len(sequence_ids.dictionary), resamples, seed)
    estimates = _estimate_part(targets, sequence, draws, seconds_per_unit)
    for position_range, (first, end) in POSITION_RANGES.items():
        inside = (position >= first) & (position < end)
        if inside.any():
            part = targets.filter(pa.array(inside))
            part_estimates = _estimate_part(part, sequence[inside], draws, seconds_per_unit)
            estimates |= {
                at_position(name, position_range): estimate
                for name, estimate in part_estimates.items()
            }
    return estimates


def metric_differences(
    targets: pa.Table,
    other: pa.Table,
    *,
    seconds_per_unit: float,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict[str, Estimate]:
    """Metrics of a model less those of another model or a baseline, for the same targets.

    The intervals are of paired resamples: each resample draws the same sequences for both
    models, so a sequence that is hard for both does not widen them.

    Args:
        targets: ``targets.TARGET_SCHEMA`` of the first model, or of a baseline, at least one row.
        other: The same targets, in any order of rows, with the forecasts of the second model.
        seconds_per_unit: Seconds in one unit of the source's times.
        seed: Seed of the bootstrap.
        resamples: Number of resamples.

    Returns:
        Differences by metric, for the metrics of both models.

    Raises:
        ValueError: The two tables have different sequences.
    """
    both = []
    for table in (targets, other):
        sequence_ids, sequence = np.unique(
            table["sequence_id"].to_numpy(zero_copy_only=False), return_inverse=True
        )
        draws = SequenceDraws(len(sequence_ids), resamples, seed)
        both.append((sequence_ids, _with_resamples(table, sequence, draws, seconds_per_unit)))
    (first_ids, first), (second_ids, second) = both
    if first_ids.tolist() != second_ids.tolist():
        raise ValueError("forecasts of different sequences cannot be compared")
    with np.errstate(invalid="ignore"):
        return {
            name: as_estimate(first[name][0] - second[name][0], first[name][1] - second[name][1])
            for name in first
            if name in second
        }


def _estimate_part(
    targets: pa.Table, sequence: NDArray[np.int64], draws: SequenceDraws, seconds_per_unit: float
) -> dict[str, Estimate]:
    values = _with_resamples(targets, sequence, draws, seconds_per_unit)
    return {name: as_estimate(value, drawn) for name, (value, drawn) in values.items()}


def _with_resamples(
    targets: pa.Table, sequence: NDArray[np.int64], draws: SequenceDraws, seconds_per_unit: float
) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Each metric over all targets, and its (R,) values over the resamples."""
    values = target_values(targets)
    size = draws.num_sequences
    sums = np.stack(
        [np.bincount(sequence, part, minlength=size).astype(np.float64) for part in values.values()]
    )
    resampled = draws.sums(sums.T)
    total = dict(zip(values, sums.sum(axis=1), strict=True))
    has_targets = resampled[:, list(values).index("targets")] > 0
    drawn = dict(zip(values, resampled[has_targets].T, strict=True))
    metrics = {
        name: (_ratio(metric, total, seconds_per_unit), _ratio(metric, drawn, seconds_per_unit))
        for name, metric in FORECAST_METRICS.items()
        if metric.numerator in values
    }
    if "type_is_right" in values:
        type_sums = _type_sums(targets, sequence, size)
        metrics[metric_names.TYPE_MACRO_F1] = (
            _macro_f1(*(by_sequence.sum(axis=0) for by_sequence in type_sums)),
            _macro_f1(*map(draws.sums, type_sums))[has_targets],
        )
    # a metric without any target that counts is undefined
    return {
        name: metrics[name]
        for name in FORECAST_METRICS
        if name in metrics and not np.isnan(metrics[name][0])
    }


def target_values(targets: pa.Table) -> dict[str, FloatArray]:
    """Values that are summed over targets, (N,) each, by name.

    Args:
        targets: ``targets.TARGET_SCHEMA``, or a part of its columns.
    """

    def column(name: str) -> FloatArray:
        return targets[name].to_numpy().astype(np.float64)

    def has(name: str) -> bool:
        return name in targets.column_names and targets[name].null_count < len(targets)

    # the order of the values decides the order of floating-point sums
    values = {"targets": np.ones(len(targets))} | _time_values(column, has)
    true = column("type")
    for prefix in ("", "joint_"):
        if has(f"{prefix}predicted_type"):
            values[f"{prefix}type_is_right"] = (column(f"{prefix}predicted_type") == true).astype(
                float
            )
        if has(f"{prefix}type_nll"):
            values[f"{prefix}type_nll"] = column(f"{prefix}type_nll")
    if "time_nll" in values and "joint_type_nll" in values:
        values["joint_nll"] = values["time_nll"] + values["has_density"] * values["joint_type_nll"]
    if has("type_rank"):
        values["top3"] = (column("type_rank") < 3).astype(np.float64)
    if has("text_nll"):
        values["text_nll"], values["text_tokens"] = column("text_nll"), column("text_tokens")
    if has("written"):
        values["written"] = targets["written"].is_valid().to_numpy().astype(np.float64)
        values |= {name: targets[name].fill_null(0.0).to_numpy() for name in TEXT_SCORES}
    return values


def _time_values(
    column: Callable[[str], FloatArray], has: Callable[[str], bool]
) -> dict[str, FloatArray]:
    """Values of interval forecasts that are summed over targets."""
    values: dict[str, FloatArray] = {}
    interval = column("interval")
    if has("mean"):
        values |= {
            "squared_error": (column("mean") - interval) ** 2,
            "squared_error_median": (column("quantile_50") - interval) ** 2,
            "absolute_error": np.abs(column("quantile_50") - interval),
            "absolute_error_mean": np.abs(column("mean") - interval),
            "crps": column("crps"),
        }
    if has("cdf_high"):
        pit = pit_values(column("cdf_low"), column("cdf_high"))
        values["residual"] = exponential_residuals(pit)
        values["pit_covered_90"] = ((pit >= 0.05) & (pit <= 0.95)).astype(np.float64)
    if has("time_nll"):
        lows = {50: "quantile_25", 90: "quantile_05"}
        highs = {50: "quantile_75", 90: "quantile_95"}
        values |= {
            # without a clock, simultaneous events have no density and no share in the mean
            "has_density": (~np.isnan(column("time_nll"))).astype(np.float64),
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
    return values


def _ratio(metric: Metric, sums: Sums, seconds_per_unit: float) -> FloatArray:
    """A metric from its two sums, each a number or an array over resamples."""
    with np.errstate(invalid="ignore"):  # undefined for a resample without any written text
        mean = np.divide(sums[metric.numerator], sums[metric.denominator])
    factor = seconds_per_unit if metric.quantity == "time" else 1
    return (np.sqrt(mean) if metric.is_root else mean) * factor


def _type_sums(
    targets: pa.Table, sequence: NDArray[np.int64], num_sequences: int
) -> tuple[FloatArray, FloatArray]:
    """(S, K) arguments of ``_macro_f1`` by sequence: hits, and true plus predicted."""
    columns = [targets[name].to_numpy() for name in ("type", "predicted_type")]
    codes, index = np.unique(np.concatenate(columns), return_inverse=True)
    true, predicted = np.split(index, 2)

    def count(types: NDArray[np.int64], owner: NDArray[np.int64]) -> FloatArray:
        cells = np.bincount(owner * len(codes) + types, minlength=num_sequences * len(codes))
        return cells.reshape(num_sequences, len(codes)).astype(np.float64)

    is_right = true == predicted
    hits = count(true[is_right], sequence[is_right])
    return hits, count(true, sequence) + count(predicted, sequence)


def _macro_f1(hits: FloatArray, true_plus_predicted: FloatArray) -> FloatArray:
    """Mean F1 score over the types that are true or predicted at least once.

    Args:
        hits: (..., K) number of right predictions of each type.
        true_plus_predicted: (..., K) number of events of each type, plus the number of its
            predictions.
    """
    occurs = true_plus_predicted > 0
    f1 = np.divide(2 * hits, true_plus_predicted, out=np.zeros_like(hits), where=occurs)
    return f1.sum(axis=-1) / np.maximum(occurs.sum(axis=-1), 1)


def pit_values(low: FloatArray, high: FloatArray) -> FloatArray:
    """(N,) probabilities of the intervals up to the true ones, uniform for right forecasts.

    The draws between both ends are the same in every call.

    Args:
        low: (N,) column ``cdf_low`` of targets.
        high: (N,) column ``cdf_high``.
    """
    return draw_pit(low, high, np.random.default_rng(0))
