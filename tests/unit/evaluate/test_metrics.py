"""Metrics against scikit-learn and plain loops."""

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats
from sklearn import metrics as sklearn

from mmtpp.evaluate.scores.estimates import few_sequences_warning, mean_estimates
from mmtpp.evaluate.scores.metric_names import JOINT_NLL
from mmtpp.evaluate.scores.metric_table import FORECAST_METRICS
from mmtpp.evaluate.scores.metrics import estimate_metrics, target_values
from mmtpp.evaluate.scores.targets import TARGET_SCHEMA, complete_targets


def _targets(size: int, num_sequences: int, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    types = rng.integers(0, 4, size).astype(np.int16)
    return pa.table(
        {
            "sequence_id": [f"s{index}" for index in rng.integers(0, num_sequences, size)],
            "position": rng.integers(1, 700, size).astype(np.int32),
            "interval": rng.exponential(size=size),
            "type": types,
            "mean": rng.exponential(size=size),
            "greedy": rng.exponential(size=size),
            "quantile_05": np.full(size, 0.1),
            "quantile_25": np.full(size, 0.4),
            "quantile_50": np.full(size, 0.7),
            "quantile_75": np.full(size, 1.0),
            "quantile_95": np.full(size, 3.0),
            "crps": rng.exponential(size=size),
            "time_nll": rng.normal(size=size),
            "code_nll": rng.normal(size=size) + 9,
            "outside": np.zeros(size),
            "predicted_type": np.where(rng.random(size) < 0.5, types, 1).astype(np.int16),
            "type_nll": rng.exponential(size=size),
            "type_rank": rng.integers(0, 5, size).astype(np.int16),
            "joint_predicted_type": types,
            "joint_type_nll": rng.exponential(size=size),
            "text_nll": rng.exponential(size=size),
            "text_tokens": rng.integers(1, 9, size),
        }
    )


def test_metrics_are_those_of_scikit_learn():
    targets = _targets(500, 40)
    data = {name: targets[name].to_numpy() for name in targets.column_names}
    values = {
        name: part.value for name, part in estimate_metrics(targets, seconds_per_unit=60).items()
    }
    squared = sklearn.mean_squared_error(data["interval"], data["mean"])
    assert values["time/rmse_s"] == pytest.approx(60 * squared**0.5)
    absolute = sklearn.mean_absolute_error(data["interval"], data["quantile_50"])
    assert values["time/mae_s"] == pytest.approx(60 * absolute)
    greedy = sklearn.mean_absolute_error(data["interval"], data["greedy"])
    assert values["time/mae_of_greedy_s"] == pytest.approx(60 * greedy)
    right = sklearn.accuracy_score(data["type"], data["predicted_type"])
    assert values["type/accuracy"] == pytest.approx(right)
    f1 = sklearn.f1_score(data["type"], data["predicted_type"], average="macro")
    assert values["type/macro_f1"] == pytest.approx(f1)
    assert values["joint/type_accuracy"] == 1.0
    covered = ((data["interval"] >= 0.1) & (data["interval"] <= 3)).mean()
    assert values["time/coverage_90"] == pytest.approx(covered)
    both = (data["time_nll"] + data["joint_type_nll"]).mean()
    assert values[JOINT_NLL] == pytest.approx(both)
    tokens = data["text_nll"].sum() / data["text_tokens"].sum()
    assert values["text/nll_nats_per_token"] == pytest.approx(tokens)


def test_ranges_of_positions_divide_the_targets():
    targets = _targets(800, 40)
    position, right = targets["position"].to_numpy(), targets["type_rank"].to_numpy() < 3
    estimates = estimate_metrics(targets, seconds_per_unit=1)
    for position_range, inside in {
        "1-49": position < 50,
        "50-199": (position >= 50) & (position < 200),
        "200-499": (position >= 200) & (position < 500),
        "500_up": position >= 500,
    }.items():
        accuracy = estimates[f"type/top3_accuracy/at_{position_range}"].value
        assert accuracy == pytest.approx(right[inside].mean())
    short = estimate_metrics(targets.filter(position < 50), seconds_per_unit=1)
    assert "type/accuracy/at_1-49" in short
    assert "type/accuracy/at_500_up" not in short


def test_the_interval_is_that_of_resampled_sequences():
    """By resampling the rows of whole sequences in a plain loop."""
    targets = _targets(300, 15)
    interval, mean = targets["interval"].to_numpy(), targets["mean"].to_numpy()
    names = np.array(targets["sequence_id"].to_pylist())
    groups = [np.flatnonzero(names == name) for name in np.unique(names)]
    rng, values = np.random.default_rng(5), []
    for _ in range(4000):
        drawn = rng.integers(0, len(groups), len(groups))
        rows = np.concatenate([groups[group] for group in drawn])
        values.append(np.sqrt(((mean - interval)[rows] ** 2).mean()))
    low, high = np.percentile(values, [2.5, 97.5])
    rmse = estimate_metrics(targets, seconds_per_unit=1, resamples=4000)["time/rmse_s"]
    assert rmse.low == pytest.approx(low, rel=0.02)
    assert rmse.high == pytest.approx(high, rel=0.02)


def test_the_table_of_metrics_names_values_that_exist():
    """A metric whose numerator does not exist is left out without an error."""
    columns = {
        field.name: np.zeros(3, field.type.to_pandas_dtype())
        for field in TARGET_SCHEMA
        if field.type != pa.string()
    }
    values = target_values(complete_targets({**columns, "written": ["", "a", "b"]}, 3))
    named = {
        name
        for metric in FORECAST_METRICS.values()
        if metric.numerator
        for name in (metric.numerator, metric.denominator)
    }
    assert named <= values.keys()


def test_forecasts_that_are_missing_have_no_metric():
    targets = _targets(50, 5).select(
        [
            "sequence_id",
            "position",
            "interval",
            "type",
            "mean",
            "quantile_05",
            "quantile_25",
            "quantile_50",
            "quantile_75",
            "quantile_95",
            "crps",
            "time_nll",
            "code_nll",
            "outside",
        ]
    )
    estimates = estimate_metrics(targets, seconds_per_unit=1)
    assert "time/rmse_s" in estimates
    assert not [name for name in estimates if name.startswith(("type", "joint", "text"))]
    assert "time/rmse_of_greedy_s" not in estimates


@pytest.mark.parametrize("chance", [0.5, 0.8])
def test_coverage_and_residuals_of_right_forecasts_of_whole_ticks(chance: float):
    """Intervals from a geometric distribution, which is also forecast."""
    distribution, size = stats.geom(chance), 20_000
    interval = distribution.rvs(size, random_state=3)
    targets = _targets(size, 50)
    columns = {name: targets[name] for name in targets.column_names} | {
        "interval": interval.astype(np.float64),
        "quantile_05": np.full(size, distribution.ppf(0.05)),
        "quantile_95": np.full(size, distribution.ppf(0.95)),
        "cdf_low": distribution.cdf(interval - 1),
        "cdf_high": distribution.cdf(interval),
    }
    estimates = estimate_metrics(pa.table(columns), seconds_per_unit=1)
    assert estimates["time/pit_coverage_90"].value == pytest.approx(0.9, abs=0.01)
    assert estimates["time/residual_mean"].value == pytest.approx(1.0, abs=0.03)
    whole = distribution.cdf(distribution.ppf(0.95))
    assert estimates["time/coverage_90"].value == pytest.approx(whole, abs=0.01)
    assert whole > 0.95
    # forecasts that expect too short intervals
    short = stats.geom(min(1.5 * chance, 0.95))
    columns |= {"cdf_low": short.cdf(interval - 1), "cdf_high": short.cdf(interval)}
    estimates = estimate_metrics(pa.table(columns), seconds_per_unit=1)
    assert estimates["time/residual_mean"].value > 1.2
    assert estimates["time/pit_coverage_90"].value < 0.85


def _coverage(num_sequences: int, trials: int = 600) -> float:
    """How often the 95 % interval holds the true mean, 1, of exponentially distributed errors."""
    rng = np.random.default_rng(0)
    names, ones = np.arange(num_sequences), np.ones(num_sequences)
    num_inside = 0
    for trial in range(trials):
        values = {"error": (rng.exponential(size=num_sequences), ones)}
        estimates = mean_estimates(values, names, seed=trial, resamples=200)["error"]
        num_inside += estimates.low <= 1 <= estimates.high
    return num_inside / trials


def test_intervals_over_few_sequences_are_too_narrow_and_warned_of():
    assert 0.82 < _coverage(10) < 0.88
    assert 0.91 < _coverage(40) < 0.97
    assert "19 held-out sequences are few" in few_sequences_warning(19)
    assert "85 %" in few_sequences_warning(10)
    assert few_sequences_warning(20) is None


def test_events_without_a_density_count_in_no_mean_of_densities():
    """Simultaneous events of continuous times: their targets count in every other metric."""
    targets = _targets(300, 20)
    nll = targets["time_nll"].to_numpy().copy()
    nll[::3] = np.nan
    place = targets.schema.get_field_index("time_nll")
    sparse = targets.set_column(place, "time_nll", pa.array(nll))
    estimates = estimate_metrics(sparse, seconds_per_unit=1)
    has = ~np.isnan(nll)
    assert estimates["time/nll_nats_per_event"].value == pytest.approx(nll[has].mean())
    joint = nll + targets["joint_type_nll"].to_numpy()
    assert estimates[JOINT_NLL].value == pytest.approx(joint[has].mean())
    assert estimates[JOINT_NLL].low < estimates[JOINT_NLL].value < estimates[JOINT_NLL].high
    whole = estimate_metrics(targets, seconds_per_unit=1)
    others = {name for name in whole if "nll_nats_per_event" not in name and "/at_" not in name}
    assert {name: whole[name] for name in others} == {name: estimates[name] for name in others}
    none = targets.set_column(place, "time_nll", pa.array(nll * np.nan))
    assert "time/nll_nats_per_event" not in estimate_metrics(none, seconds_per_unit=1)
