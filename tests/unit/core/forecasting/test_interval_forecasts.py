"""Interval forecasts against numerical integration and distributions in closed form."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from mmtpp.core.forecasting.interval_forecasts import (
    MAX_FIRST_BYTE,
    IntervalForecasts,
    IntervalGrid,
    IntervalRange,
)
from mmtpp.core.representation.timecode import encode_intervals

SCALE = 3.0


def _exponential(zero: float = 0.0, num_bytes: int = 2) -> IntervalForecasts:
    """An exponential distribution, as byte probabilities computed from its cdf."""
    grid = IntervalGrid.from_first_bytes(0x37, 0x43, num_bytes=num_bytes)
    steps = np.diff(stats.expon(scale=SCALE).cdf(grid.edges[1:])).reshape(-1, 256)
    first, second = np.zeros((1, 128)), np.zeros((1, len(grid.first_bytes), 256))
    first[0, list(grid.first_bytes)] = steps.sum(axis=1) * (1 - zero)
    first[0, 0] = zero
    second[0] = steps / np.maximum(steps.sum(axis=1, keepdims=True), 1e-300)
    return IntervalForecasts.from_byte_probabilities(grid, first, second)


def test_the_grid_spans_the_codes():
    """0x3F80 is 1.0 and 0x3F81 is 1.0078125; two bytes are rounded to nearest, four truncate."""
    two, four = (
        IntervalGrid.from_first_bytes(0x3F, 0x3F, num_bytes=num_bytes) for num_bytes in (2, 4)
    )
    at = 1 + 0x80
    assert [two.edges[0], two.edges[1]] == pytest.approx([0.0, 0.5], rel=2e-3)
    assert two.edges[at + 1] == 1.00390625
    assert four.edges[at] == pytest.approx(1.0, rel=1e-7)
    assert four.edges[at + 1] == pytest.approx(1.0078125, rel=1e-7)
    for grid, num_bytes in ((two, 2), (four, 4)):
        values = np.random.default_rng(0).uniform(0.6, 1.9, 1000)
        codes = encode_intervals(values, num_bytes=num_bytes)
        step = np.searchsorted(grid.edges, values, side="right") - 2
        assert step.tolist() == codes[:, 1].tolist()


@pytest.mark.parametrize("num_bytes", [2, 3, 4])
def test_an_exponential_distribution(num_bytes: int):
    forecast, exact = _exponential(num_bytes=num_bytes), stats.expon(scale=SCALE)
    levels = [0.05, 0.25, 0.5, 0.75, 0.95]
    # 0x37 begins at 7.6e-6; smaller intervals are outside the grid
    assert forecast.outside[0] == pytest.approx(exact.cdf(forecast.edges[1]), rel=1e-2)
    assert forecast.mean()[0] == pytest.approx(SCALE, rel=1e-3)
    assert forecast.quantiles(levels)[0] == pytest.approx(exact.ppf(levels), rel=1e-3)
    for value in (0.01, 0.3, 3.0, 12.5):
        assert forecast.cdf([value])[0] == pytest.approx(exact.cdf(value), abs=3e-4)
        assert forecast.survival([value])[0] == pytest.approx(exact.sf(value), abs=3e-4)
        assert forecast.hazard([value])[0] == pytest.approx(1 / SCALE, rel=2e-2)  # a step
        nll = forecast.nll([value], tick=1e-6)[0]
        assert nll == pytest.approx(-exact.logpdf(value), abs=2e-2)  # pyright: ignore[reportAttributeAccessIssue]
        # in closed form for the exponential distribution
        crps = value - 2 * SCALE * exact.cdf(value) + SCALE / 2
        assert forecast.crps([value])[0] == pytest.approx(crps, rel=1e-3)
    for value in (2.0, 12.0):  # a clock far coarser than the grid
        share = exact.cdf(value + 1) - exact.cdf(value - 1)
        nll = forecast.nll([value], tick=2.0)[0]
        assert nll == pytest.approx(-np.log(share / 2), abs=4e-2)  # a step on the edge is in one
    # simultaneous events share the first half tick
    assert forecast.nll([0.0], tick=2.0)[0] == pytest.approx(-np.log(exact.cdf(1) / 2), abs=1e-2)


def _repeat(forecast: IntervalForecasts, count: int) -> IntervalForecasts:
    """The same forecast several times."""
    parts = (forecast.zero, forecast.mass, forecast.outside)
    return IntervalForecasts(forecast.grid, *(np.repeat(part, count, axis=0) for part in parts))


@given(
    st.integers(0, 10**6),
    st.floats(0, 0.6),
    st.floats(0, 40),
    st.floats(0.01, 0.99),
    st.integers(0, 3),
)
def test_any_distribution(seed: int, zero: float, value: float, level: float, peaks: int):
    rng = np.random.default_rng(seed)
    grid = IntervalGrid.from_first_bytes(0x3E, 0x41, num_bytes=2)
    first, second = rng.random((1, 128)), rng.random((1, 4, 256)) ** (1 + 4 * peaks)
    first[0, 0] = zero * 128
    first /= first.sum()
    second /= second.sum(axis=2, keepdims=True)
    forecast = IntervalForecasts.from_byte_probabilities(grid, first, second)
    assert forecast.zero[0] + forecast.mass.sum() == pytest.approx(1)
    inside = first[0, [0, *grid.first_bytes]].sum()
    assert forecast.outside[0] == pytest.approx(1 - inside)

    points = np.unique(np.append(grid.edges, [value, 50.0]))
    cdf = _repeat(forecast, len(points)).cdf(points)
    assert (np.diff(cdf) >= -1e-12).all()
    # Simpson's rule is exact for the square of a linear function
    middle = _repeat(forecast, len(points) - 1).cdf((points[1:] + points[:-1]) / 2)
    before = (points[1:] <= value)[None]

    def square(at):
        return np.where(before, at, 1 - at) ** 2

    crps = (np.diff(points) * (square(cdf[:-1]) + 4 * square(middle) + square(cdf[1:])) / 6).sum()
    assert forecast.crps([value])[0] == pytest.approx(crps, rel=1e-6, abs=1e-9)
    mean = integrate.trapezoid(1 - cdf, points)
    assert forecast.mean()[0] == pytest.approx(mean, rel=1e-6)
    quantile = forecast.quantiles([level])[0, 0]
    if level > forecast.zero[0]:
        assert forecast.cdf([quantile])[0] == pytest.approx(level, abs=1e-6)
    else:
        assert quantile == 0.0


@pytest.mark.parametrize("num_bytes", [2, 3, 4])
@pytest.mark.parametrize("tick", [0.01, 0.25, 1.0, 2.0, 3.0, 7.5])
def test_all_ticks_of_a_clock_together_are_the_whole(num_bytes: int, tick: float):
    """Including whole numbers on the edge of two codes, which are rounded to an even code."""
    rng = np.random.default_rng(0)
    grid = IntervalGrid.from_first_bytes(0x3F, 0x43, num_bytes=num_bytes)  # 0.5 to 512
    first, second = np.zeros((1, 128)), rng.random((1, 5, 256))
    first[0, [0, *grid.first_bytes]] = rng.random(6)
    first /= first.sum()
    second /= second.sum(axis=2, keepdims=True)
    forecast = IntervalForecasts.from_byte_probabilities(grid, first, second)
    ticks = np.arange(0, 515 / tick) * tick
    blocks = np.array_split(ticks, np.arange(500, len(ticks), 500))  # small arrays stay in caches
    shares = np.concatenate(
        [_repeat(forecast, len(block)).density(block, tick=tick) for block in blocks]
    )
    shares *= tick
    assert (shares >= 0).all()
    # codes below the first tick above zero lie in the tick of zero
    assert shares.sum() == pytest.approx(1, abs=1e-3)


def test_whole_numbers_are_scored_by_their_own_codes():
    """The best histogram of the codes of 256..511 gives every number the probability 1/256."""
    numbers = np.arange(256, 512).astype(float)
    for num_bytes in (2, 4):
        grid = IntervalGrid.from_first_bytes(0x43, 0x43, num_bytes=num_bytes)
        codes = encode_intervals(numbers, num_bytes=num_bytes)
        first, second = np.zeros((256, 128)), np.zeros((256, 1, 256))
        first[:, 0x43] = 1.0
        second[:, 0] = np.bincount(codes[codes[:, 0] == 0x43, 1], minlength=256) / 256
        forecast = IntervalForecasts.from_byte_probabilities(grid, first, second)
        inside = codes[:, 0] == 0x43
        nll = forecast.nll(numbers, tick=1.0)[inside]
        total = np.log(inside.sum())
        assert nll == pytest.approx(np.full(inside.sum(), total))


def test_a_smooth_process_has_a_likelihood_far_in_its_tail():
    grid = IntervalGrid.from_first_bytes(0x3A, 0x45, num_bytes=2)
    for survival in (0.0, 600.0):
        compensator = grid.edges
        mass = np.exp(-compensator[:-1]) * -np.expm1(-np.diff(compensator))
        forecast = IntervalForecasts(grid, np.zeros(1), mass[None], np.zeros(1), is_smooth=True)
        for tick in (1e-4, 0.5):
            for value in (survival + 0.5, survival + 40.0):
                nll = forecast.nll([value], tick=tick)[0]
                # up to a step or a tick, within which the rate is 1
                assert nll == pytest.approx(
                    value, abs=tick + 0.6 * 2 ** np.floor(np.log2(value) - 7) + 1e-3
                )
        assert forecast.survival([50.0])[0] == pytest.approx(np.exp(-50.0), rel=0.1)


def test_the_grid_of_a_range():
    grid = IntervalRange(1e-3, 70_000.0, 1e-3).grid(num_bytes=4)
    assert grid.first_bytes == tuple(range(0x3A, 0x48))
    assert IntervalRange(2e38, 3e38, 1.0).grid(num_bytes=2).first_bytes == (MAX_FIRST_BYTE,)


def test_first_bytes_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"not in 1\.\.126"):
        IntervalGrid.from_first_bytes(0, 3, num_bytes=2)


def test_forecasts_are_split_and_joined():
    parts = [_exponential(zero=zero) for zero in (0.0, 0.25, 0.75)]
    joined = IntervalForecasts.join(parts)
    levels = [0.05, 0.5, 0.9]
    for part, again, row in zip(parts, joined.split(), joined.quantiles(levels), strict=True):
        np.testing.assert_array_equal(again.mass, part.mass)
        assert (again.zero, again.outside) == (part.zero, part.outside)
        assert row.tolist() == part.quantiles(levels)[0].tolist()
    # 0.75 of the probability is at 0; above it, the exponential has the remaining quarter
    assert joined.quantiles(levels)[2] == pytest.approx(
        [0, 0, SCALE * np.log(0.25 / 0.1)], rel=1e-3
    )
    with pytest.raises(ValueError, match="different grids"):
        IntervalForecasts.join([parts[0], _exponential(num_bytes=4)])
