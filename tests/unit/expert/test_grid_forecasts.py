"""Forecasts on a grid, against SciPy's log-normal distributions and fine integration in float64."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from mmtpp.core.forecasting.interval_forecasts import IntervalGrid, IntervalRange
from mmtpp.expert.expert_forecasts import ExpertForecasts, density_grid
from mmtpp.expert.interval_density import IntervalScale, LogNormals
from mmtpp.expert.network import ExpertNetwork, NetworkSize

NUM_EVENTS, NUM_TYPES, WIDTH, NUM_COMPONENTS = 24, 3, 16, 12
LOG_MEAN, LOG_SPREAD = 1.0, 1.6
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
TICKS = (0.0, 0.01, 2.0)
TOLERANCE = 3e-5


def _forecasts(tick: float, narrowest: float = 0.02) -> ExpertForecasts:
    """Forecasts of two networks with random weights; components from narrow to wide."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    scale = IntervalScale(tick, tick / 2 or 1e-3, LOG_MEAN, LOG_SPREAD)
    networks, hidden, densities = [], [], []
    for _ in range(2):
        size = NetworkSize(
            width=WIDTH, num_components=NUM_COMPONENTS, num_types=NUM_TYPES, num_columns=1
        )
        network = ExpertNetwork(size, scale).eval()
        with torch.no_grad():
            for parameter in network.type_head.parameters():
                parameter.copy_(0.3 * normal(*parameter.shape))
        networks.append(network)
        hidden.append(normal(NUM_EVENTS, WIDTH) / 2)
        weights = (2 * normal(NUM_EVENTS, NUM_COMPONENTS + 1)).log_softmax(-1)
        means, widths = normal(NUM_EVENTS, NUM_COMPONENTS), normal(NUM_EVENTS, NUM_COMPONENTS)
        densities.append(LogNormals(weights, means, narrowest + 0.3 * widths**2, scale))
    return ExpertForecasts(tuple(networks), tuple(hidden), tuple(densities))


def _cdf(densities: tuple[LogNormals, ...], event: int, at: np.ndarray) -> np.ndarray:
    """(networks, at) probabilities of at most each interval, by SciPy in float64."""
    rows = []
    for density in densities:
        *weights, atom = density.log_weights[event].double().exp().tolist()
        components = stats.lognorm(
            s=density.widths[event].double().numpy() * LOG_SPREAD,
            scale=np.exp(density.means[event].double().numpy() * LOG_SPREAD + LOG_MEAN),
        )
        rows.append(atom + components.cdf(np.maximum(at, 0.0)[:, None]) @ np.array(weights))
    return np.stack(rows)


def _grid(tick: float) -> IntervalGrid:
    return density_grid(IntervalRange(tick or 1e-3, 2000.0, tick))


def _fine(grid: IntervalGrid, tick: float) -> np.ndarray:
    """Intervals from the end of zero's tick to the end of the grid, .05 % apart."""
    start = tick / 2 or 1e-6
    return np.geomspace(start, grid.edges[-1], int(math.log(grid.edges[-1] / start) / 5e-4))


@pytest.mark.parametrize("narrowest", [0.02, 0.15])  # by error functions, by densities
@pytest.mark.parametrize("tick", TICKS)
def test_cumulative_probabilities_are_those_of_scipy(tick: float, narrowest: float):
    forecasts = _forecasts(tick, narrowest)
    on_grid = forecasts.on_grid(_grid(tick))
    intervals = on_grid.intervals()
    own_edges = on_grid.own_edges.double().numpy()
    for event in range(NUM_EVENTS):
        expected = _cdf(forecasts.densities, event, np.maximum(on_grid.grid.edges, tick / 2))
        whole = expected.mean(axis=0)
        assert on_grid.cdf[event] == pytest.approx(whole, abs=TOLERANCE)
        assert intervals.outside[event] == pytest.approx(1 - whole[-1], abs=TOLERANCE)
        inside = intervals.zero[event] + np.cumsum(intervals.mass[event])
        assert inside == pytest.approx(whole[1:] / whole[-1], abs=2 * TOLERANCE)
        own = _cdf(forecasts.densities, event, np.maximum(own_edges, tick / 2))
        for network in range(2):
            assert on_grid.own_cdfs[network][event].numpy() == pytest.approx(
                own[network], abs=TOLERANCE
            )


def test_the_survival_of_a_long_silence_is_that_of_the_distributions():
    forecasts, grid = _forecasts(0.0, 0.3), _grid(0.0)
    intervals = forecasts.on_grid(grid, is_exact=True).intervals()
    for event in range(NUM_EVENTS):
        above = 1 - _cdf(forecasts.densities, event, grid.edges).mean(axis=0)
        inside = above[0] - above[-1] + 1 - above[0]
        at = int(np.flatnonzero(above > 1e-5)[-1])
        survival = intervals.survival(np.full(NUM_EVENTS, grid.edges[at]))[event]
        assert survival == pytest.approx((above[at] - above[-1]) / inside, rel=0.05, abs=2e-7)


@pytest.mark.parametrize("tick", TICKS)
def test_means_quantiles_and_scores_are_those_of_the_distributions(tick: float):
    # components no narrower than the bins, within which a probability is uniform
    forecasts, grid = _forecasts(tick, 0.1), _grid(tick)
    intervals = forecasts.on_grid(grid).intervals()
    fine = _fine(grid, tick)
    true = np.random.default_rng(0).choice(fine, NUM_EVENTS)
    scores, means = intervals.crps(true), intervals.mean()
    quantiles = intervals.quantiles(LEVELS)
    for event in range(NUM_EVENTS):
        cdf = _cdf(forecasts.densities, event, fine).mean(axis=0)
        cdf /= cdf[-1]
        x, cdf = np.append(0.0, fine), np.append(cdf[0], cdf)
        within_tick = tick / 20  # the first bins are as wide as a tick
        mean = integrate.trapezoid(1 - cdf, x)
        assert means[event] == pytest.approx(mean, rel=2e-3, abs=within_tick)
        split = int(np.searchsorted(x, true[event]))  # a point of the fine grid
        crps = integrate.trapezoid(cdf[: split + 1] ** 2, x[: split + 1])
        crps += integrate.trapezoid((1 - cdf[split:]) ** 2, x[split:])
        assert scores[event] == pytest.approx(crps, rel=2e-3, abs=within_tick)
        is_zero = cdf[0] >= LEVELS
        assert (quantiles[event] == 0).tolist() == is_zero.tolist()
        is_long = quantiles[event] > 4 * tick
        at_quantiles = np.interp(quantiles[event], x, cdf)
        assert at_quantiles[is_long] == pytest.approx(np.array(LEVELS)[is_long], abs=1e-3)


@pytest.mark.parametrize("tick", TICKS[:2])
def test_the_type_alone_is_the_integral_over_all_intervals(tick: float):
    forecasts, grid = _forecasts(tick), _grid(tick)
    on_grid = forecasts.on_grid(grid)
    actual = np.exp(on_grid.type_log_probabilities())
    fine = _fine(grid, tick)
    middles = np.append(0.0, np.sqrt(fine[1:] * fine[:-1]))
    errors = []
    for event in range(NUM_EVENTS):
        cdf = _cdf(forecasts.densities, event, fine)
        expected = np.zeros(NUM_TYPES)
        for network, states, of_network in zip(
            forecasts.networks, forecasts.hidden, cdf, strict=True
        ):
            with torch.inference_mode():
                given = network.type_log_probabilities(
                    states[event].expand(len(middles), -1), torch.from_numpy(middles).float()
                )
            expected += np.diff(of_network, prepend=0.0) @ given.double().exp().numpy()
        errors.append(np.abs(actual[event] - expected / expected.sum()).max())
    # probabilities differ by 0.07 between events, and mixtures of random components have gaps
    assert np.max(errors) < 0.02
    assert np.median(errors) < 0.003


def test_impossible_types_have_finite_logarithms_and_no_event_has_no_forecast():
    forecasts, grid = _forecasts(0.0), _grid(0.0)
    with torch.no_grad():
        for network in forecasts.networks:
            last = network.type_head[2]
            assert isinstance(last, torch.nn.Linear)
            last.bias[0] = -2000.0
    assert np.isfinite(forecasts.on_grid(grid).type_log_probabilities()).all()
    none = forecasts.select(slice(0, 0)).on_grid(grid)
    assert none.intervals().mass.shape == (0, len(none.grid.widths))
    assert none.type_log_probabilities().shape == (0, NUM_TYPES)
