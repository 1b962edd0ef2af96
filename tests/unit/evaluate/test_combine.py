"""The fit of the gate: as likely as the evaluation says, with a clock and without one."""

import numpy as np
import pyarrow as pa
import pytest

from mmtpp.core.errors import DataError
from mmtpp.core.forecasting.gate import Gate, IntervalLikelihoods
from mmtpp.evaluate.combine import fit_gate
from mmtpp.evaluate.scores.metrics import estimate_metrics
from mmtpp.evaluate.scores.targets import complete_targets

NLL = "joint/nll_nats_per_event"


def _targets(seed: int, *, tick: float, joint: bool = True) -> pa.Table:
    """Scores of 300 events of three sequences; without a clock, every third is simultaneous."""
    rng = np.random.default_rng(seed)
    size = 300
    is_zero = np.arange(size) % 3 == 0
    nll = rng.gamma(2.0, 1.0, size)
    columns: dict[str, object] = {
        "sequence_id": np.repeat(["a", "b", "c"], 100),
        "position": np.tile(np.arange(1, 101), 3),
        "interval": np.where(is_zero, 0.0, 1.0),
        "type": np.zeros(size, dtype=np.int16),
        "time_nll": nll if tick else np.where(is_zero, np.nan, nll),
        "simultaneous": rng.uniform(0.1, 0.5, size),
        "type_nll": rng.gamma(2.0, 0.5, size),
    }
    if joint:
        columns["joint_type_nll"] = rng.gamma(2.0, 0.4, size)
    return complete_targets(columns, size)


@pytest.mark.parametrize("tick", [1.0, 0.0])
def test_the_parts_have_the_likelihoods_of_their_evaluation(tick: float):
    of_model, of_expert = _targets(0, tick=tick), _targets(1, tick=tick)
    fit = fit_gate(of_model, of_expert, tick=tick, where="store")
    assert fit.num_events == 300
    for name, table in (("language_model", of_model), ("expert", of_expert)):
        values = np.nanmean(table["time_nll"].to_numpy() + table["joint_type_nll"].to_numpy())
        assert fit.nll[name] == pytest.approx(float(values))
    assert 0 < fit.gate.time < 1
    if tick:
        assert fit.nll["mixture"] < min(fit.nll["language_model"], fit.nll["expert"])


@pytest.mark.parametrize("tick", [1.0, 0.0])
def test_no_other_weight_is_more_likely(tick: float):
    tables = [_targets(seed, tick=tick) for seed in (0, 1)]
    fit = fit_gate(*tables, tick=tick, where="store")
    model, expert = (
        IntervalLikelihoods(table["time_nll"].to_numpy(), table["simultaneous"].to_numpy(), tick)
        for table in tables
    )
    weights = np.linspace(0, 1, 501)
    likelihoods = [model.mixed_with(expert, w).log_likelihoods().mean() for w in weights]
    assert fit.gate.time == pytest.approx(weights[np.argmax(likelihoods)], abs=3e-3)


def test_a_model_without_the_task_joint_has_one_forecast_of_the_type():
    of_model, of_expert = _targets(0, tick=1.0, joint=False), _targets(1, tick=1.0)
    fit = fit_gate(of_model, of_expert, tick=1.0, where="store")
    expected = np.mean(of_model["time_nll"].to_numpy() + of_model["type_nll"].to_numpy())
    assert fit.nll["language_model"] == pytest.approx(float(expected))


def test_only_events_of_both_models_count():
    of_model, of_expert = _targets(0, tick=1.0), _targets(1, tick=1.0)
    fit = fit_gate(of_model, of_expert.slice(0, 120), tick=1.0, where="store")
    assert fit.num_events == 120
    with pytest.raises(DataError, match="no validation event was forecast by both"):
        fit_gate(of_model, of_expert.slice(0, 0), tick=1.0, where="store")


def test_the_score_without_a_clock_is_conditional_on_a_positive_interval():
    # by hand: at a positive interval with densities 2 and 1 given that it is positive
    model = IntervalLikelihoods(-np.log([2.0, np.nan]), np.array([0.5, 0.5]), 0.0)
    expert = IntervalLikelihoods(-np.log([1.0, np.nan]), np.array([0.2, 0.2]), 0.0)
    mixed = model.mixed_with(expert, 0.25)
    zero = 0.25 * 0.5 + 0.75 * 0.2
    density = (0.25 * 0.5 * 2.0 + 0.75 * 0.8 * 1.0) / (1 - zero)
    assert np.exp(-mixed.nll[0]) == pytest.approx(density)
    assert np.isnan(mixed.nll[1])
    assert mixed.simultaneous == pytest.approx(zero)
    assert np.exp(mixed.log_likelihoods()) == pytest.approx([density * (1 - zero), zero])


def test_the_evaluation_of_the_table_is_the_mean_over_events_with_a_density():
    table = _targets(0, tick=0.0).set_column(
        _targets(0, tick=0.0).schema.get_field_index("predicted_type"),
        "predicted_type",
        pa.array(np.zeros(300, dtype=np.int16)),
    )
    fit = fit_gate(table, _targets(1, tick=0.0), tick=0.0, where="store")
    estimates = estimate_metrics(table, seconds_per_unit=1.0, resamples=2)
    assert estimates[NLL].value == pytest.approx(fit.nll["language_model"])


def test_a_gate_of_one_model_is_that_model():
    better, worse = _targets(0, tick=1.0), _targets(0, tick=1.0)
    for name in ("time_nll", "joint_type_nll", "type_nll"):
        index = worse.schema.get_field_index(name)
        worse = worse.set_column(index, name, pa.array(worse[name].to_numpy() + 0.5))
    fit = fit_gate(better, worse, tick=1.0, where="store")
    assert fit.gate == Gate(1.0, 1.0)
    assert fit.nll["mixture"] == pytest.approx(fit.nll["language_model"])
