"""Probabilities at the ends of ticks, against those of whole ticks and of the grid."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mmtpp.core.forecasting.residuals import Uniformity, draw_pit, exponential_residuals
from mmtpp.expert.expert_folder import Expert
from mmtpp.expert.expert_forecasts import ExpertForecasts
from mmtpp.expert.next_events import EventBlocks
from tests.helpers.small_experts import TICK, alternating_sequences


@pytest.fixture(scope="module")
def forecasts(expert: Expert) -> tuple[ExpertForecasts, torch.Tensor]:
    """Forecasts of new events, and their true intervals."""
    sequences = alternating_sequences(40, 9)
    events = EventBlocks.from_sequences(expert.memory, sequences, tick=TICK).load(0)
    after = ExpertForecasts.after(expert.networks, events.inputs)
    return after, events.next_intervals


def test_the_difference_of_the_ends_is_the_probability_of_the_tick(forecasts):
    after, intervals = forecasts
    for shown in (intervals, torch.zeros_like(intervals)):
        low, high = after.cdf_of_tick(shown)
        expected = after.log_density(shown).exp().numpy() * TICK
        np.testing.assert_allclose(high - low, expected, atol=2e-6)
    assert (after.cdf_of_tick(torch.zeros_like(intervals))[0] == 0).all()


def test_without_a_clock_both_ends_are_equal_but_for_simultaneous_events(forecasts):
    after, intervals = forecasts
    densities = tuple(
        replace(density, scale=replace(density.scale, tick=0.0)) for density in after.densities
    )
    continuous = replace(after, densities=densities)
    low, high = continuous.cdf_of_tick(intervals)
    np.testing.assert_array_equal(low, high)
    low, high = continuous.cdf_of_tick(torch.zeros_like(intervals))
    atoms = [density.log_weights[:, -1].exp().double().numpy() for density in densities]
    np.testing.assert_array_equal(low, np.zeros(len(low)))
    np.testing.assert_allclose(high, np.mean(atoms, axis=0), rtol=1e-6)


def test_the_residuals_of_a_trained_expert_are_nearly_exponential(forecasts):
    after, intervals = forecasts
    rng = np.random.default_rng(0)
    low, high = after.cdf_of_tick(intervals)
    pit = draw_pit(low, high, rng)
    assert exponential_residuals(pit).mean() == pytest.approx(1.0, abs=0.1)
    low, high = after.cdf_of_tick(2 * intervals)
    slow = draw_pit(low, high, rng)
    assert Uniformity.test(slow).distance > 2 * Uniformity.test(pit).distance
    assert exponential_residuals(slow).mean() > 1.5
