"""An expert's forecasts on the grid of time codes, against sums of the probabilities of ticks."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

from mmtpp.core.forecasting.interval_forecasts import IntervalRange
from mmtpp.expert.code_forecasts import code_forecasts, tick_edges
from mmtpp.expert.expert_folder import Expert
from mmtpp.expert.expert_forecasts import ExpertForecasts
from tests.helpers.small_experts import TICK, SmallFit


@pytest.fixture(scope="module")
def forecasts(small: SmallFit, expert: Expert) -> ExpertForecasts:
    events = small.validation.load(0).take(slice(0, 20))
    return ExpertForecasts.after(expert.networks, events.inputs)


def test_edges_lie_between_ticks():
    edges = np.array([0.0, 0.3, 0.5, 0.95, 1.0, 2.01])
    expected = [0.5, 0.5, 0.5, 0.5, 0.5, 2.5]
    assert tick_edges(edges, tick=1.0).tolist() == expected
    assert tick_edges(edges, tick=0.0).tolist() == edges.tolist()


def test_a_bin_has_the_probability_of_its_ticks(forecasts: ExpertForecasts):
    grid = IntervalRange(TICK, 60.0, TICK).grid(num_bytes=2)
    intervals = code_forecasts(forecasts, grid, tick=TICK)
    assert not intervals.is_smooth
    assert intervals.zero + intervals.mass.sum(axis=1) == pytest.approx(1.0)
    ticks = np.arange(700) * TICK
    probabilities = np.exp(
        [forecasts.log_density(torch.full((20,), float(tick))).numpy() for tick in ticks]
    ).T * (TICK * (1 - intervals.outside[:, None]) ** -1)
    assert intervals.zero == pytest.approx(probabilities[:, 0], abs=1e-5)
    bins = grid.bin_of_code(ticks)
    for number in np.unique(bins[(bins >= 0) & (ticks < 2.0)]):  # bins narrower than a tick
        of_bin = probabilities[:, bins == number].sum(axis=1)
        assert intervals.mass[:, number] == pytest.approx(of_bin, abs=2e-5)
    is_long = (ticks > 20) & (ticks < 30)
    inside = np.isin(np.arange(len(grid.widths)), bins[is_long])
    long = intervals.mass[:, inside].sum(axis=1)
    assert long == pytest.approx(probabilities[:, is_long].sum(axis=1), abs=3e-3)


def test_the_density_on_the_grid_is_that_of_the_expert(forecasts: ExpertForecasts):
    grid = IntervalRange(TICK, 60.0, TICK).grid(num_bytes=2)
    intervals = code_forecasts(forecasts, grid, tick=TICK)
    for tick in (0.0, 0.1, 1.7, 22.3):
        on_grid = np.log(intervals.density(np.full(20, tick), tick=TICK))
        exact = forecasts.log_density(torch.full((20,), tick)).numpy()
        is_likely = exact > -8
        assert on_grid[is_likely] == pytest.approx(exact[is_likely], abs=0.05)


def test_without_a_clock_bins_have_their_share_of_the_distribution(small: SmallFit, expert: Expert):
    events = small.validation.load(0).take(slice(0, 20))
    networks = deepcopy(expert.networks)
    for network in networks:
        network.scale = network.interval_head.scale = replace(network.scale, tick=0.0)
    forecasts = ExpertForecasts.after(networks, events.inputs)
    grid = IntervalRange(TICK, 60.0, 0.0).grid(num_bytes=2)
    intervals = code_forecasts(forecasts, grid, tick=0.0)
    smooth = forecasts.on_grid(grid).intervals()
    assert intervals.zero == pytest.approx(smooth.zero, abs=1e-6)
    assert np.cumsum(intervals.mass, axis=1) == pytest.approx(
        np.cumsum(smooth.mass, axis=1), abs=3e-3
    )
    assert intervals.outside == pytest.approx(smooth.outside, abs=1e-6)
