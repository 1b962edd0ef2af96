"""Interval forecasts against numerical integration and distributions known in closed form."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from mmtpp.core.forecast import (
    MAX_FIRST_BYTE,
    IntervalForecasts,
    IntervalGrid,
    IntervalRange,
)
from mmtpp.core.timecode import encode_intervals

SCALE = 3.0


def _exponential(zero: float = 0.0, num_bytes: int = 2) -> IntervalForecasts:
    """An exponential distribution, written as byte probabilities by its own cdf."""
    grid = IntervalGrid.of(0x37, 0x43, num_bytes=num_bytes)
    steps = np.diff(stats.expon(scale=SCALE).cdf(grid.edges[1:])).reshape(-1, 256)
    first, second = np.zeros((1, 128)), np.zeros((1, len(grid.first_bytes), 256))
    first[0, list(grid.first_bytes)] = steps.sum(axis=1) * (1 - zero)
    first[0, 0] = zero
    second[0] = steps / np.maximum(steps.sum(axis=1, keepdims=True), 1e-300)
    return IntervalForecasts.of(grid, first, second)


def test_the_grid_spans_the_codes():
    """0x3F80 is 1.0 and 0x3F81 is 1.0078125; two bytes round to nearest, four cut off."""
    two, four = (IntervalGrid.of(0x3F, 0x3F, num_bytes=each) for each in (2, 4))
    at = 1 + 0x80
    assert [0.0, 0.5] == pytest.approx([two.edges[0], two.edges[1]], rel=2e-3)
    assert 1.00390625 == two.edges[at + 1]
    assert 1.0 == pytest.approx(four.edges[at], rel=1e-7)
    assert 1.0078125 == pytest.approx(four.edges[at + 1], rel=1e-7)
    for grid, num_bytes in ((two, 2), (four, 4)):
        values = np.random.default_rng(0).uniform(0.6, 1.9, 1000)
        codes = encode_intervals(values, num_bytes=num_bytes)
        step = np.searchsorted(grid.edges, values, side="right") - 2
        assert codes[:, 1].tolist() == step.tolist()


@pytest.mark.parametrize("num_bytes", [2, 3, 4])
def test_an_exponential_distribution(num_bytes: int):
    forecast, exact = _exponential(num_bytes=num_bytes), stats.expon(scale=SCALE)
    levels = [0.05, 0.25, 0.5, 0.75, 0.95]
    # 0x37 begins at 7.6e-6: what lies below it is off the grid
    assert forecast.outside[0] == pytest.approx(exact.cdf(forecast.edges[1]), rel=1e-2)
    assert forecast.mean()[0] == pytest.approx(SCALE, rel=1e-3)
    assert forecast.quantiles(levels)[0] == pytest.approx(exact.ppf(levels), rel=1e-3)
    for value in (0.01, 0.3, 3.0, 12.5):
        assert forecast.cdf([value])[0] == pytest.approx(exact.cdf(value), abs=3e-4)
        assert forecast.survival([value])[0] == pytest.approx(exact.sf(value), abs=3e-4)
        assert forecast.hazard([value])[0] == pytest.approx(1 / SCALE, rel=2e-2)  # a step
        nll = forecast.nll([value], resolution=1e-6)[0]
        assert nll == pytest.approx(-exact.logpdf(value), abs=2e-2)
        # of a clock far coarser than the grid
        tick = exact.cdf(value + 1) - exact.cdf(max(value - 1, 0))
        width = value + 1 - max(value - 1, 0)
        assert forecast.nll([value], resolution=2.0)[0] == pytest.approx(
            -np.log(tick / width), abs=1e-3
        )
        # in closed form for the exponential distribution
        crps = value - 2 * SCALE * exact.cdf(value) + SCALE / 2
        assert forecast.crps([value])[0] == pytest.approx(crps, rel=1e-3)


@given(
    st.integers(0, 10**6),
    st.floats(0, 0.6),
    st.floats(0, 40),
    st.floats(0.01, 0.99),
    st.integers(0, 3),
)
def test_any_distribution(seed: int, zero: float, value: float, level: float, peaks: int):
    rng = np.random.default_rng(seed)
    grid = IntervalGrid.of(0x3E, 0x41, num_bytes=2)
    first, second = rng.random((1, 128)), rng.random((1, 4, 256)) ** (1 + 4 * peaks)
    first[0, 0] = zero * 128
    first /= first.sum()
    second /= second.sum(axis=2, keepdims=True)
    forecast = IntervalForecasts.of(grid, first, second)
    assert forecast.zero[0] + forecast.mass.sum() == pytest.approx(1)
    inside = first[0, [0, *grid.first_bytes]].sum()
    assert forecast.outside[0] == pytest.approx(1 - inside)

    points = np.unique(np.append(grid.edges, [value, 50.0]))
    cdf = np.array([forecast.cdf([point])[0] for point in points])
    assert (np.diff(cdf) >= -1e-12).all()
    # Simpson's rule is exact for the square of a linear function
    middle = np.array([forecast.cdf([each])[0] for each in (points[1:] + points[:-1]) / 2])
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
        assert 0.0 == quantile
    # all ticks of a clock together are the whole
    ticks = np.arange(0, 200) * 0.25
    width = np.where(ticks > 0, 0.25, 0.125)
    total = sum(
        float(forecast.density([tick], resolution=0.25)[0]) * wide
        for tick, wide in zip(ticks, width, strict=True)
    )
    assert total == pytest.approx(1, abs=2e-2)


def test_samples_follow_the_distribution():
    forecast = _exponential(zero=0.2)
    many = IntervalForecasts(
        forecast.edges,
        *(
            np.repeat(each, 4_000, axis=0)
            for each in (forecast.zero, forecast.mass, forecast.outside)
        ),
    )
    drawn = many.sample(np.random.default_rng(0))
    assert 0.2 == pytest.approx((drawn == 0).mean(), abs=0.02)
    positive = drawn[drawn > 0]
    assert stats.kstest(positive, stats.expon(scale=SCALE).cdf).statistic < 0.03


def test_the_grid_of_a_range():
    grid = IntervalRange(1e-3, 70_000.0).grid(num_bytes=4)
    assert tuple(range(0x3A, 0x48)) == grid.first_bytes
    assert (MAX_FIRST_BYTE,) == IntervalRange(2e38, 3e38).grid(num_bytes=2).first_bytes


def test_a_grid_of_no_intervals_is_refused():
    with pytest.raises(ValueError, match=r"not in 1\.\.126"):
        IntervalGrid.of(0, 3, num_bytes=2)
