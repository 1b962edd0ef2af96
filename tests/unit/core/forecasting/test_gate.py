"""The gate of a mixture, against a search over all weights and numbers by hand."""

import numpy as np
import pytest

from mmtpp.core.forecasting.gate import Gate, fit_weight, mix_logs


def test_logs_are_mixed_as_probabilities():
    first, second = np.log([0.2, 0.5]), np.log([0.6, 0.1])
    assert np.exp(mix_logs(0.25, first, second)) == pytest.approx([0.5, 0.2])
    no_chance = np.array([-np.inf, 0.0])
    assert np.exp(mix_logs(0.25, no_chance, second)) == pytest.approx([0.45, 0.325])
    assert mix_logs(1.0, first, no_chance).tolist() == first.tolist()
    assert mix_logs(0.0, no_chance, second).tolist() == second.tolist()


def test_the_weight_has_the_best_likelihood_of_all_weights():
    rng = np.random.default_rng(0)
    first, second = rng.normal(-1.0, 1.0, 500), rng.normal(-0.8, 1.0, 500)
    first[:3], second[5:8] = -np.inf, -np.inf
    weights = np.linspace(0.001, 0.999, 999)
    likelihoods = [mix_logs(weight, first, second).mean() for weight in weights]
    assert fit_weight(first, second) == pytest.approx(weights[np.argmax(likelihoods)], abs=1e-3)


def test_a_model_that_is_worse_everywhere_gets_no_weight():
    better = np.log([0.5, 0.6, 0.7])
    assert fit_weight(better, better - 0.1) == 1.0
    assert fit_weight(better - 0.1, better) == 0.0


def test_events_without_a_likelihood_do_not_count():
    first, second = np.log([0.2, 0.8, 0.4]), np.log([0.6, 0.3, 0.5])
    expected = fit_weight(first, second)
    padded = [np.append(values, [np.nan, -np.inf]) for values in (first, second)]
    assert fit_weight(*padded) == expected
    with pytest.raises(ValueError, match="no event"):
        fit_weight([np.nan, -np.inf], [np.nan, -np.inf])


def test_a_weight_outside_its_range_is_refused():
    with pytest.raises(ValueError, match=r"type = 1\.5"):
        Gate(0.5, 1.5)
