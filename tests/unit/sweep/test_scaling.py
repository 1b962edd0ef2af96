"""Scaling laws: the fit finds the exponents that generated the losses."""

from dataclasses import replace

import numpy as np
import pytest

from mmtpp.core.errors import DataError
from mmtpp.sweep.scaling import Trials, bootstrap_intervals, build_report, fit_law, predict_losses
from mmtpp.sweep.trial_row import TrialRow


def _trials(*, noise: float = 0.0) -> Trials:
    """Trials with loss = 1.2 + 30 / N^0.35 + 80 / D^0.3, on a grid of sizes and token counts."""
    parameters, tokens = (
        grid.ravel() for grid in np.meshgrid(np.geomspace(1e4, 1e6, 5), np.geomspace(1e5, 1e7, 5))
    )
    loss = 1.2 + 30 / parameters**0.35 + 80 / tokens**0.3
    loss *= np.exp(noise * np.random.default_rng(0).standard_normal(len(loss)))
    return Trials(parameters, tokens, np.full(len(loss), 512.0), loss)


def test_the_exponents_of_a_known_law_are_found():
    trials = _trials()
    law = fit_law(trials)
    assert law.exponents.keys() == {"parameters", "tokens"}  # the context is the same everywhere
    assert law.exponents["parameters"] == pytest.approx(0.35, abs=0.01)
    assert law.exponents["tokens"] == pytest.approx(0.3, abs=0.01)
    assert law.floor == pytest.approx(1.2, abs=0.02)
    assert law.coefficients["parameters"] == pytest.approx(30 / 1e5**0.35, rel=0.05)
    np.testing.assert_allclose(predict_losses(law, trials), trials.loss, rtol=2e-3)


def test_intervals_contain_the_true_values_and_the_report_has_them(monkeypatch):
    monkeypatch.setattr("mmtpp.sweep.scaling.RESAMPLES", 10)
    trials = _trials(noise=0.01)
    intervals = bootstrap_intervals(trials)
    low, high = intervals.exponents["parameters"]
    assert low < 0.35 < high
    assert intervals.floor[0] < 1.2 < intervals.floor[1]
    low, high = intervals.effects["parameters"]
    assert low < 30 / 1e4**0.35 - 30 / 1e6**0.35 < high
    monkeypatch.setattr("mmtpp.sweep.scaling.bootstrap_intervals", lambda _trials: intervals)
    text, figure = build_report(trials)
    assert "| parameters |" in text
    assert figure.startswith(b"\x89PNG")


def test_two_values_of_a_quantity_do_not_determine_its_exponent():
    trials = _trials()
    contexts = np.where(np.arange(len(trials.loss)) % 2, 128.0, 512.0)
    with pytest.raises(DataError, match="context has two values"):
        fit_law(replace(trials, context=contexts, loss=trials.loss + 2 * contexts**-0.5))


def test_the_report_has_the_effect_of_a_quantity_and_names_undetermined_exponents(monkeypatch):
    monkeypatch.setattr("mmtpp.sweep.scaling.RESAMPLES", 2)  # no interval is checked here
    trials = _trials(noise=0.003)
    contexts = np.array([128.0, 256.0, 512.0])[np.arange(len(trials.loss)) % 3]
    effects: dict[float, float] = {}
    for strength in (0.0, 4.0):
        loss = trials.loss + strength * contexts**-0.5
        text, _ = build_report(replace(trials, context=contexts, loss=loss))
        assert ("do not determine the exponent of context:" in text) == (not strength)
        (row,) = [line for line in text.splitlines() if "| context |" in line]
        effects[strength] = float(row.split("|")[5])
    assert effects[0.0] < 0.02
    assert effects[4.0] == pytest.approx(4 * (128**-0.5 - 512**-0.5), abs=0.02)
    monkeypatch.setattr("mmtpp.sweep.scaling.EXPONENTS", (1e-3, 0.2))  # the parameters' is 0.35
    assert "do not determine the exponent of parameters" in build_report(trials)[0]


def test_trials_are_read_from_the_result_of_a_sweep():
    metrics = {
        "model/trained_parameters": 5e4,
        "data/tokens_per_event": 8.0,
        "data/events_per_context": 50.0,
        "validation/nll_nats_per_event": 2.5,
    }
    row = TrialRow({"window.max_tokens": 512}, "finished", "t_0", metrics, step=10)
    rows = [row.as_dict(), replace(row, status="failed").as_dict()]
    shared = {"training.samples_per_step": 4, "window.max_tokens": 256}
    trials = Trials.from_result({"trials": rows, "shared": shared})
    assert trials.tokens.tolist() == [16000.0]  # 10 steps of 4 samples of 400 tokens
    assert trials.context.tolist() == [512.0]
    assert trials.loss.tolist() == [2.5]
    with pytest.raises(DataError, match="1 finished trials"):
        fit_law(trials)
