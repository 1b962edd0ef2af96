"""Classical baselines against brute force, simulation and closed forms."""

import numpy as np
import pyarrow as pa
import pytest
from scipy import integrate, stats

from mmtpp.core.forecast import IntervalForecasts, IntervalRange
from mmtpp.evaluate.classical import DECAYS, Hawkes, History, Marginal, baseline_targets
from mmtpp.evaluate.metrics import estimate

MU, BETA = np.array([0.3, 0.1]), 2.0
ALPHA = np.array([[0.4, 0.1], [0.3, 0.0]])


def _rate(times: np.ndarray, types: np.ndarray, at: float, *, mu, alpha, beta) -> np.ndarray:
    """(K,) by the definition, one event after the other."""
    total = np.array(mu, dtype=float)
    for time, kind in zip(times, types, strict=True):
        if time < at:
            total += alpha[:, kind] * beta * np.exp(-beta * (at - time))
    return total


def _simulate(rng: np.random.Generator, end: float) -> History:
    """Ogata's thinning."""
    times, types, now = [0.0], [0], 0.0
    known = {"mu": MU, "alpha": ALPHA, "beta": BETA}
    while now < end:
        bound = _rate(np.array(times), np.array(types), now + 1e-12, **known).sum()
        now += rng.exponential(1 / bound)
        rates = _rate(np.array(times), np.array(types), now, **known)
        if rng.random() * bound < rates.sum():
            times.append(now)
            types.append(int(rng.random() > rates[0] / rates.sum()))
    return History("s", np.array(times), np.array(types))


@pytest.fixture(scope="module")
def simulated() -> list[History]:
    rng = np.random.default_rng(0)
    return [_simulate(rng, 60.0) for _ in range(60)]


def test_a_hawkes_process_is_found_again(simulated: list[History]):
    # the true decay, per mean interval, is among those tried
    duration = sum(each.times[-1] for each in simulated)
    mean = duration / sum(len(each.times) - 1 for each in simulated)
    model = Hawkes(simulated, 2, [0.3, BETA * mean, 30.0])
    assert model.beta == pytest.approx(BETA)
    assert model.mu == pytest.approx(MU, abs=0.04)
    assert model.alpha == pytest.approx(ALPHA, abs=0.1)


@pytest.mark.parametrize("unit", [1e-4, 1e4, 1e6])
def test_the_unit_of_the_times_does_not_matter(simulated: list[History], unit: float):
    plain = Hawkes(simulated[:20], 2, [1.0])
    scaled = [History(each.sequence_id, each.times * unit, each.types) for each in simulated[:20]]
    other = Hawkes(scaled, 2, [1.0])
    assert other.alpha == pytest.approx(plain.alpha, abs=2e-3)
    assert other.mu * unit == pytest.approx(plain.mu, rel=1e-2)
    assert other.beta * unit == pytest.approx(plain.beta)


def test_its_forecasts_are_those_of_its_intensity(simulated: list[History]):
    model = Hawkes(simulated, 2, [1.0])
    known = {"mu": model.mu, "alpha": model.alpha, "beta": model.beta}
    history = History("s", simulated[0].times[:12], simulated[0].types[:12])
    grid = IntervalRange(1e-3, 60.0, 1e-3).grid(num_bytes=2)
    (forecasts,) = model.intervals(history, grid)
    chances = np.exp(model.types(history))
    for target in (1, 5, 11):
        times, types = history.times[:target], history.types[:target]
        last = times[-1]
        rate = _rate(times, types, history.times[target], **known)
        assert rate / rate.sum() == pytest.approx(chances[target - 1])
        for wait in (0.05, 0.7, 3.0):
            raised, _ = integrate.quad(
                lambda at, times=times, types=types: _rate(times, types, at, **known).sum(),
                last + 1e-9,
                last + wait,
            )
            found = forecasts.survival(np.full(len(forecasts), wait))[target - 1]
            assert np.exp(-raised) == pytest.approx(found, rel=1e-3)


def test_a_poisson_process_forecasts_exponential_intervals():
    rng = np.random.default_rng(1)
    times = np.cumsum(rng.exponential(2.0, 4000))
    history = History("s", times, rng.integers(0, 2, 4000))
    model = Hawkes([history], 2, [])
    grid = IntervalRange(1e-4, 60.0, 1e-6).grid(num_bytes=4)
    first = next(iter(model.intervals(history, grid)))
    assert first.mean()[0] == pytest.approx(np.diff(times).mean(), rel=1e-3)
    nll = first.nll(np.full(len(first), 1.5), tick=1e-6)[0]
    assert nll == pytest.approx(-stats.expon(scale=np.diff(times).mean()).logpdf(1.5), abs=0.01)


def test_the_marginal_is_the_histogram():
    rng = np.random.default_rng(2)
    times = np.cumsum(np.where(rng.random(5000) < 0.2, 0.0, rng.gamma(2.0, size=5000)))
    history = History("s", times, rng.integers(0, 3, 5000))
    grid = IntervalRange(1e-3, 30.0, 1e-6).grid(num_bytes=2)
    model = Marginal([history], grid, 3)
    forecasts: IntervalForecasts = next(iter(model.intervals(history, grid)))
    levels = [0.1, 0.5, 0.9]
    expected = np.quantile(history.intervals, levels)
    assert forecasts.quantiles(levels)[0] == pytest.approx(expected, rel=0.02, abs=0.01)
    assert forecasts.zero[0] == pytest.approx(0.2, abs=0.01)
    assert np.exp(model.types(history)).sum(axis=1) == pytest.approx(1)


def test_baselines_answer_for_exactly_the_targets(simulated: list[History]):
    test = [
        History(f"s{index}", each.times, each.types) for index, each in enumerate(simulated[:4])
    ]
    wanted = pa.table(
        {"sequence_id": ["s0", "s0", "s2"], "position": pa.array([3, 1, 7], pa.int32())}
    )
    found = baseline_targets(simulated[4:], test, wanted, tick=1e-3, num_types=2)
    assert {"marginal", "poisson", "hawkes", "last"} == found.keys()
    for table in found.values():
        assert ["s0", "s0", "s2"] == table["sequence_id"].to_pylist()
        assert [1, 3, 7] == table["position"].to_pylist()
        assert test[2].intervals[6] == table["interval"][2].as_py()
    # the interval before, and for the first the training median
    median = np.median(np.concatenate([each.intervals for each in simulated[4:]]))
    assert [median, test[0].intervals[1], test[2].intervals[5]] == found["last"]["mean"].to_pylist()
    metrics = estimate(found["hawkes"], seconds_per_unit=1, resamples=10)
    assert "joint/nll_nats_per_event" in metrics
    assert "type/accuracy" not in metrics
    assert len(DECAYS) > 5
