"""Classical baselines against brute force, simulation and closed forms."""

import time
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
from scipy import integrate, optimize, stats

from mmtpp.core.forecasting.interval_forecasts import IntervalForecasts, IntervalRange
from mmtpp.core.point_processes import hawkes
from mmtpp.core.point_processes.hawkes import DECAYS, Hawkes
from mmtpp.core.point_processes.history import CHUNK, History
from mmtpp.evaluate.baselines.marginal import Marginal
from mmtpp.evaluate.scores.metrics import estimate_metrics
from tests.helpers.baselines import forecast_with_baselines

MU = np.array([0.3, 0.1])
BETAS = (0.4, 6.0)  # per unit
# (2, 2, 2): type caused, type causing, decay
ALPHA = np.array([[[0.2, 0.2], [0.1, 0.0]], [[0.0, 0.3], [0.0, 0.0]]])


def _rate(times: np.ndarray, types: np.ndarray, at: float, *, mu, alpha, betas) -> np.ndarray:
    """(K,) by the definition, one event and one decay after the other."""
    total = np.array(mu, dtype=float)
    for then, kind in zip(times, types, strict=True):
        for place, beta in enumerate(betas):
            if then < at:
                total += alpha[:, kind, place] * beta * np.exp(-beta * (at - then))
    return total


def _simulate(rng: np.random.Generator, end: float) -> History:
    """Ogata's thinning."""
    times, types, now = [0.0], [0], 0.0
    known = {"mu": MU, "alpha": ALPHA, "betas": BETAS}
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
    return [_simulate(rng, 60.0) for _ in range(100)]


def _mean_interval(histories: list[History]) -> float:
    duration = sum(history.times[-1] - history.times[0] for history in histories)
    return float(duration / sum(len(history.times) - 1 for history in histories))


def _log_likelihood(history: History, mu, alpha, betas) -> float:
    """By the definition: rates at the events, and the integral of the rate between them."""
    rate = partial(_rate, mu=mu, alpha=alpha, betas=betas)
    total = 0.0
    for index in range(1, len(history.times)):
        times, types = history.times[:index], history.types[:index]
        total += np.log(rate(times, types, history.times[index])[history.types[index]])
        integral, _ = integrate.quad(
            lambda at, times=times, types=types: rate(times, types, at).sum(),
            times[-1] + 1e-12,
            history.times[index],
        )
        total -= integral
    return total


def test_two_exponentials_are_found_again(simulated: list[History]):
    mean = _mean_interval(simulated)
    model = Hawkes.fit(simulated, 2, [beta * mean for beta in BETAS])
    assert model.beta == pytest.approx(BETAS)
    assert model.mu == pytest.approx(MU, abs=0.04)
    assert model.alpha == pytest.approx(ALPHA, abs=0.1)
    # an exponential less is a worse process, and the fixed decays come close to the true ones
    few, test = simulated[:60], simulated[60:64]

    def nll(decays) -> float:
        model = Hawkes.fit(few, 2, decays)
        likelihoods = [
            _log_likelihood(history, model.mu, model.alpha, model.beta) for history in test
        ]
        return -sum(likelihoods) / sum(len(history.times) - 1 for history in test)

    truth = sum(_log_likelihood(history, MU, ALPHA, BETAS) for history in test)
    truth = -truth / sum(len(history.times) - 1 for history in test)
    own = nll(DECAYS)
    assert own < min(nll([decay]) for decay in (0.2, 1.0, 5.0)) - 0.005
    assert own == pytest.approx(truth, abs=0.03)


def test_the_fit_is_the_maximum_of_the_likelihood(simulated: list[History]):
    """Another optimiser, on the likelihood by its definition, finds nothing better."""
    few = [History("s", history.times[:40], history.types[:40]) for history in simulated[:3]]
    mean = _mean_interval(few)
    decays = (0.5, 4.0)
    model = Hawkes.fit(few, 2, decays)
    betas = [decay / mean for decay in decays]
    counts = np.bincount(np.concatenate([history.types[1:] for history in few]), minlength=2)

    def loss(parameters: np.ndarray) -> float:
        mu, alpha = parameters[:2], parameters[2:].reshape(2, 2, 2)
        value = 0.0
        for history in few:
            for index in range(1, len(history.times)):
                past = history.times[:index], history.types[:index], history.times[index]
                rate = _rate(*past, mu=mu, alpha=alpha, betas=betas)
                value -= np.log(rate[history.types[index]])
            # the compensator in closed form
            value += mu.sum() * (history.times[-1] - history.times[0])
            for then, kind in zip(history.times, history.types, strict=True):
                left = 1 - np.exp(-np.array(betas) * (history.times[-1] - then))
                value += (alpha[:, kind] * left).sum()
        # for each type, half an event of the background and one event that caused nothing
        return value - 0.5 * np.log(mu * mean).sum() + alpha.sum()

    start = np.concatenate([counts / counts.sum() / mean / 2, np.full(8, 0.1)])
    other = optimize.minimize(
        loss, start, method="L-BFGS-B", bounds=[(1e-9, None)] * 2 + [(0, None)] * 8
    )
    own = loss(np.concatenate([model.mu, model.alpha.ravel()]))
    assert own <= other.fun + 1e-4 * (counts.sum() + 1)
    # the bound that the fit states holds
    assert own - other.fun <= model.gap * (counts.sum() + 1) + 1e-6
    assert 0 <= model.gap <= hawkes.GAP


@pytest.mark.parametrize("unit", [1e-4, 1e4, 1e6])
def test_the_unit_of_the_times_does_not_matter(simulated: list[History], unit: float):
    plain = Hawkes.fit(simulated[:20], 2)
    scaled = [
        History(history.sequence_id, history.times * unit, history.types)
        for history in simulated[:20]
    ]
    other = Hawkes.fit(scaled, 2)
    assert other.alpha == pytest.approx(plain.alpha, abs=2e-3)
    assert other.mu * unit == pytest.approx(plain.mu, rel=1e-2)
    assert other.beta * unit == pytest.approx(plain.beta)


def test_its_forecasts_are_those_of_its_intensity(simulated: list[History]):
    model = Hawkes.fit(simulated, 2)
    known = {"mu": model.mu, "alpha": model.alpha, "betas": model.beta}
    history = History("s", simulated[0].times[:12], simulated[0].types[:12])
    grid = IntervalRange(1e-3, 60.0, 1e-3).grid(num_bytes=2)
    (forecasts,) = model.forecast_intervals(history, grid)
    chances = np.exp(model.forecast_types(history))
    for target in (1, 5, 11):
        times, types = history.times[:target], history.types[:target]
        last = times[-1]
        rate = _rate(times, types, history.times[target], **known)
        assert chances[target - 1] == pytest.approx(rate / rate.sum())
        for wait in (0.05, 0.7, 3.0):
            raised, _ = integrate.quad(
                lambda at, times=times, types=types: _rate(times, types, at, **known).sum(),
                last + 1e-9,
                last + wait,
            )
            survival = forecasts.survival(np.full(len(forecasts), wait))[target - 1]
            assert survival == pytest.approx(np.exp(-raised), rel=1e-3)


def test_its_likelihood_is_that_of_the_definition(simulated: list[History]):
    model = Hawkes.fit(simulated, 2)
    history = History("s", simulated[1].times[:25], simulated[1].types[:25])
    tick = 1e-6
    grid = IntervalRange(1e-4, 60.0, tick).grid(num_bytes=4)
    (forecasts,) = model.forecast_intervals(history, grid)
    of_types = model.forecast_types(history)[np.arange(24), history.types[1:]]
    actual = of_types.sum() - forecasts.nll(history.intervals, tick=tick).sum()
    expected = _log_likelihood(history, model.mu, model.alpha, model.beta)
    assert actual == pytest.approx(expected, abs=0.01 * 24)  # bins of the grid: 0.8 %


def test_long_sequences_are_forecast_in_chunks(simulated: list[History]):
    times = np.concatenate(
        [history.times + 100 * place for place, history in enumerate(simulated[:40])]
    )
    types = np.concatenate([history.types for history in simulated[:40]])
    history = History("s", times, types)
    assert len(times) > 2 * CHUNK
    model = Hawkes.fit(simulated, 2)
    grid = IntervalRange(1e-2, 200.0, 1e-2).grid(num_bytes=2)
    parts = list(model.forecast_intervals(history, grid))
    assert [len(part) for part in parts[:2]] == [CHUNK, CHUNK]
    assert sum(len(part) for part in parts) == len(times) - 1
    known = {"mu": model.mu, "alpha": model.alpha, "betas": model.beta}
    rate = _rate(times[: CHUNK + 5], types[: CHUNK + 5], times[CHUNK + 5], **known)
    chances = np.exp(model.forecast_types(history)[CHUNK + 4])
    assert chances == pytest.approx(rate / rate.sum())


def test_many_types_share_their_excitation(monkeypatch: pytest.MonkeyPatch):
    """With 12 types and 4 sources, 9 types share one source and each also excites itself."""
    monkeypatch.setattr(hawkes, "MAX_SOURCES", 4)
    rng = np.random.default_rng(5)
    # runs: an event is mostly followed by one of its own type
    types = np.repeat(rng.choice(12, 600, p=np.array([20, 10, 10] + [5] * 9) / 85), 3)
    histories = [
        History("s", np.cumsum(rng.exponential(size=60)), types[start : start + 60])
        for start in range(0, 1800, 60)
    ]
    model = Hawkes.fit(histories, 12)
    assert model.alpha.shape == (12, 12, len(DECAYS))
    by_itself = np.array([model.alpha[kind, kind].sum() for kind in range(12)])
    by_another = (model.alpha.sum(axis=(1, 2)) - by_itself) / 11
    assert (by_itself > 3 * by_another).all()
    for kind in range(12):
        shared = [model.alpha[kind, other] for other in range(3, 12) if other != kind]
        assert np.ptp(np.stack(shared), axis=0).max() == pytest.approx(0)
    assert model.gap <= hawkes.GAP


def test_a_fit_is_fast_and_its_time_is_bounded(caplog: pytest.LogCaptureFixture):
    """16 types and 37,000 events took 135 s."""
    rng = np.random.default_rng(6)
    histories = [
        History(f"s{place}", np.cumsum(rng.exponential(size=740)), rng.integers(0, 16, 740))
        for place in range(50)
    ]
    reports: list[int] = []
    started = time.process_time()
    model = Hawkes.fit(histories, 16, report=reports.append)
    assert time.process_time() - started < 60
    assert reports == list(range(1, 17))
    assert model.gap <= 2 * hawkes.GAP
    assert not caplog.records
    started = time.process_time()
    stopped = Hawkes.fit(histories, 16, max_seconds=0.0)
    assert time.process_time() - started < 10
    assert stopped.gap > model.gap
    assert "nats per event below the maximum" in caplog.text
    assert (stopped.mu > 0).all()


def test_a_fit_uses_a_bounded_number_of_events(monkeypatch: pytest.MonkeyPatch):
    """Some of many sequences, or the newest events of a single long sequence."""
    monkeypatch.setattr(hawkes, "MAX_EVENTS", 300)
    rng = np.random.default_rng(10)
    many = [History(f"s{place}", np.arange(100.0), rng.integers(0, 2, 100)) for place in range(9)]
    sizes = [len(history.times) for history in hawkes.choose_sequences(many, 300)]
    assert sizes == [100, 100, 100]
    # the first 4,700 events are ten times as frequent as the newest 300
    times = np.cumsum(np.append(rng.exponential(0.1, 4700), rng.exponential(size=300)))
    long = History("s", times, np.zeros(5000, int))
    [kept] = hawkes.choose_sequences([long], 300)
    assert np.array_equal(kept.times, times[-300:])
    # so the fitted rate is that of the newest events: 1 and not 10
    model = Hawkes.fit([long], 1, [0.1])
    assert model.mu[0] < 2


def test_types_that_hardly_occur_have_finite_forecasts():
    times = np.array([0.0, 1.0, 2.5, 3.0])
    model = Hawkes.fit([History("s", times, np.array([0, 0, 1, 0]))], 3)
    chances = model.forecast_types(History("t", np.array([0.0, 1.0, 500.0]), np.array([2, 2, 2])))
    assert np.isfinite(chances).all()
    assert np.exp(chances).sum(axis=1) == pytest.approx(1)


def test_a_poisson_process_forecasts_exponential_intervals():
    rng = np.random.default_rng(1)
    times = np.cumsum(rng.exponential(2.0, 4000))
    history = History("s", times, rng.integers(0, 2, 4000))
    model = Hawkes.fit([history], 2, [])
    grid = IntervalRange(1e-4, 60.0, 1e-6).grid(num_bytes=4)
    first = next(iter(model.forecast_intervals(history, grid)))
    assert first.mean()[0] == pytest.approx(np.diff(times).mean(), rel=1e-3)
    nll = first.nll(np.full(len(first), 1.5), tick=1e-6)[0]
    assert nll == pytest.approx(-stats.expon.logpdf(1.5, scale=np.diff(times).mean()), abs=0.01)
    assert np.exp(model.forecast_types(history))[0] == pytest.approx(
        np.bincount(history.types[1:]) / (len(times) - 1)
    )


def test_baselines_forecast_exactly_the_targets(simulated: list[History]):
    test = [
        History(f"s{index}", history.times, history.types)
        for index, history in enumerate(simulated[:4])
    ]
    wanted = pa.table(
        {"sequence_id": ["s0", "s0", "s2"], "position": pa.array([3, 1, 7], pa.int32())}
    )
    tables = forecast_with_baselines(simulated[4:], test, wanted, tick=1e-3, num_types=2)
    assert tables.keys() == {"marginal", "poisson", "hawkes", "last"}
    for table in tables.values():
        assert table["sequence_id"].to_pylist() == ["s0", "s0", "s2"]
        assert table["position"].to_pylist() == [1, 3, 7]
        assert table["interval"][2].as_py() == test[2].intervals[6]
    # the previous interval, and the training median for the first interval
    median = np.median(np.concatenate([history.intervals for history in simulated[4:]]))
    assert tables["last"]["mean"].to_pylist() == [
        median,
        test[0].intervals[1],
        test[2].intervals[5],
    ]
    metrics = estimate_metrics(tables["hawkes"], seconds_per_unit=1, resamples=10)
    assert "joint/nll_nats_per_event" in metrics
    assert "type/accuracy" not in metrics


def test_baselines_of_simultaneous_events():
    train = [History("s", np.zeros(5), np.array([0, 1, 0, 1, 0]))]
    wanted = pa.table({"sequence_id": ["s"], "position": pa.array([2], pa.int32())})
    tables = forecast_with_baselines(train, train, wanted, tick=1.0, num_types=2)
    assert tables.keys() == {"marginal", "last"}
    # all four intervals are 0: 4.5 of 5, over half a tick
    assert tables["marginal"]["time_nll"][0].as_py() == pytest.approx(-np.log(0.9), abs=0.1)


def _marginal(intervals: np.ndarray, tick: float, held_out: np.ndarray) -> float:
    """Mean nats of held-out intervals."""
    history = History("s", np.append(0, np.cumsum(intervals)), np.zeros(len(intervals) + 1, int))
    every = np.concatenate([history.intervals, held_out])
    positive = every[every > tick / 2]
    grid = IntervalRange(positive.min(), positive.max(), tick).grid(num_bytes=2)
    model = Marginal.fit([history], grid, 1, tick=tick)
    first = History("t", np.arange(2.0), np.zeros(2, int))
    (forecasts,) = model.forecast_intervals(first, grid)
    values, counts = np.unique(held_out, return_counts=True)
    total = 0.0
    for start in range(0, len(values), CHUNK):
        some = values[start : start + CHUNK]
        zero, mass = (
            np.repeat(part, len(some), axis=0) for part in (forecasts.zero, forecasts.mass)
        )
        nll = IntervalForecasts(grid, zero, mass, np.zeros(len(some))).nll(some, tick=tick)
        total += float(nll @ counts[start : start + CHUNK])
    return total / len(held_out)


def _on_clock(distribution, tick: float):
    """(values) -> nats of a continuous distribution that is read from a clock."""

    def nll(values: np.ndarray) -> np.ndarray:
        low = np.maximum(values - tick / 2, 0)
        return -np.log((distribution.cdf(values + tick / 2) - distribution.cdf(low)) / tick)

    return nll


MINUTES, SHARES = np.array([0.0, 60, 120, 300, 600]), np.array([0.02, 0.4, 0.3, 0.2, 0.08])
CASES = {
    # name: draws of a size, the clock's tick, nats of values
    "log-normal": (lambda rng, size: rng.lognormal(size=size), 1e-9, None),
    "log-normal by a clock": (lambda rng, size: rng.lognormal(size=size), 0.01, stats.lognorm(1)),
    "exponential": (lambda rng, size: rng.exponential(size=size), 1e-9, None),
    "exponential by a clock": (
        lambda rng, size: rng.exponential(5.0, size=size),
        1.0,
        stats.expon(scale=5),
    ),
    "whole minutes": (lambda rng, size: rng.choice(MINUTES, size, p=SHARES), 60.0, None),
}


@pytest.mark.parametrize(
    ("size", "tolerance"), [(500, 0.04), (2000, 0.015), (10_000, 0.006), (40_000, 0.003)]
)
@pytest.mark.parametrize("name", CASES)
def test_the_marginal_comes_close_to_the_true_entropy(name: str, size: int, tolerance: float):
    """Held-out draws, against the true distribution on the same draws."""
    draw, tick, distribution = CASES[name]
    rng = np.random.default_rng(7)
    known, held_out = draw(rng, size), draw(rng, 20_000)
    if tick > 1e-9:
        known, held_out = (np.rint(values / tick) * tick for values in (known, held_out))
    if distribution is not None:
        true = _on_clock(distribution, tick)(held_out)
    elif name == "whole minutes":
        true = -np.log(SHARES[np.searchsorted(MINUTES, held_out)] / tick)
    else:
        is_normal = name == "log-normal"
        true = -(stats.lognorm.logpdf(held_out, 1) if is_normal else stats.expon.logpdf(held_out))
    nll = _marginal(known, tick, held_out)
    assert nll == pytest.approx(true.mean(), abs=tolerance)


def test_intervals_that_a_source_repeats_stay_likely():
    """Half of the intervals are exactly 7, 30 or 100 ticks, the other half has any length."""
    rng = np.random.default_rng(8)

    def draw(size: int) -> np.ndarray:
        repeated = rng.choice([7.0, 30.0, 100.0], size)
        return np.where(rng.random(size) < 0.5, repeated, np.rint(rng.exponential(50, size)))

    held_out = draw(20_000)
    any_length = np.exp(-_on_clock(stats.expon(scale=50), 1.0)(held_out))
    true = -np.log(0.5 * np.isin(held_out, [7, 30, 100]) / 3 + 0.5 * any_length)
    # a kernel alone costs about a nat here
    assert _marginal(draw(5000), 1.0, held_out) == pytest.approx(true.mean(), abs=0.1)


def test_the_marginal_does_not_depend_on_the_unit():
    rng = np.random.default_rng(9)
    known, held_out = (np.rint(rng.lognormal(5, 1, size)) for size in (1000, 5000))
    plain = _marginal(known, 1.0, held_out)
    for unit in (60.0, 1e-3):
        scaled = _marginal(known * unit, unit, held_out * unit)
        assert scaled - np.log(unit) == pytest.approx(plain, abs=0.02)


def test_the_marginal_is_a_distribution_over_intervals_and_types():
    rng = np.random.default_rng(2)
    times = np.cumsum(np.where(rng.random(5000) < 0.2, 0.0, rng.gamma(2.0, size=5000)))
    history = History("s", times, rng.integers(0, 3, 5000))
    grid = IntervalRange(1e-3, 30.0, 1e-6).grid(num_bytes=2)
    model = Marginal.fit([history], grid, 3, tick=1e-6)
    forecasts: IntervalForecasts = next(iter(model.forecast_intervals(history, grid)))
    levels = [0.25, 0.5, 0.9]
    expected = np.quantile(history.intervals, levels)
    assert forecasts.quantiles(levels)[0] == pytest.approx(expected, rel=0.03, abs=0.02)
    assert forecasts.zero[0] == pytest.approx(0.2, abs=0.01)
    assert forecasts.zero[0] + forecasts.mass[0].sum() == pytest.approx(1)
    assert np.exp(model.forecast_types(history)).sum(axis=1) == pytest.approx(1)


@pytest.mark.parametrize("intervals", [[3.0], [0.0, 0.0], [5.0, 5.0, 5.0]])
def test_a_marginal_of_few_intervals_is_finite(intervals: list[float]):
    assert np.isfinite(_marginal(np.array(intervals), 1.0, np.array([0.0, 1.0, 3.0, 40.0])))
