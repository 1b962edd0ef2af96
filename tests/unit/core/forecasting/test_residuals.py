"""Residuals of right and of wrong forecasts, against scipy's distributions."""

import numpy as np
import pytest
from scipy import stats

from mmtpp.core.forecasting.residuals import Uniformity, draw_pit, exponential_residuals

SIZE = 20_000


def _pit(true: stats.rv_continuous, forecast: stats.rv_continuous, tick: float) -> np.ndarray:
    """PIT of intervals that are rounded to ticks; without a tick, those of the exact ones."""
    rng = np.random.default_rng(1)
    intervals = true.rvs(SIZE, random_state=rng)
    if tick:
        intervals = np.round(intervals / tick) * tick
    low = np.where(intervals > 0, forecast.cdf(intervals - tick / 2), 0.0)
    return draw_pit(low, forecast.cdf(intervals + tick / 2), rng)


@pytest.mark.parametrize("tick", [0.0, 0.1, 2.0])
def test_right_forecasts_have_uniform_pits_and_exponential_residuals(tick: float):
    pit = _pit(stats.gamma(2.0), stats.gamma(2.0), tick)
    assert Uniformity.test(pit).p_value > 0.01
    residuals = exponential_residuals(pit)
    assert stats.kstest(residuals, "expon").pvalue > 0.01
    assert residuals.mean() == pytest.approx(1.0, abs=0.03)


def test_events_that_come_later_than_forecast_have_larger_residuals():
    pit = _pit(stats.expon(scale=1.5), stats.expon(scale=1.0), 0.0)
    assert Uniformity.test(pit).p_value < 1e-6
    assert exponential_residuals(pit).mean() == pytest.approx(1.5, abs=0.05)
    # the largest distance between 1 - (1 - u)^(2/3) and u, at u = 1 - (2/3)^3
    assert Uniformity.test(pit).distance == pytest.approx(4 / 9 - 8 / 27, abs=0.01)


def test_a_certain_error_has_a_finite_residual():
    assert exponential_residuals(np.array([0.0, 1.0])).tolist() == [
        0.0,
        pytest.approx(27.63, abs=0.01),
    ]
