"""The likelihoods of baselines and models depend on the unit of times only by its logarithm.

Expected: the change of variables of a density, up to the width of a bin (0.8 %); and values by
hand. ``tests/unit/core/forecasting/test_time_units.py`` has the same law for the forecasts alone.
"""

import numpy as np
import pyarrow as pa
import pytest

from mmtpp.core.forecasting.interval_forecasts import IntervalForecasts, IntervalRange
from mmtpp.core.point_processes.history import History
from mmtpp.core.representation.timecode import encode_intervals
from mmtpp.core.times.clock import Clock
from mmtpp.evaluate.scores.metrics import estimate_metrics
from mmtpp.evaluate.scores.targets import _time_nll
from mmtpp.model.row_forecaster import TimeForecasts
from tests.helpers.baselines import forecast_with_baselines

EPOCH = 1_700_000_000
NLL = "time/nll_nats_per_event"


def _dates(seed: int, *, scale: float, share: float = 0.15) -> list[np.ndarray]:
    """Eight sequences of dates in seconds, some events simultaneous."""
    rng = np.random.default_rng(seed)
    waits = np.ceil(rng.gamma(0.7, 60.0, (8, 150)) / scale) * (rng.random((8, 150)) > share)
    return list(EPOCH + np.cumsum(waits, axis=1) * scale)


def _nll(dates: list[np.ndarray], unit: float) -> dict[str, float]:
    """Nats per event of each baseline, for the last two sequences."""
    clock = Clock(unit)
    for times in dates:
        clock.add_sequences(times / unit, np.array([len(times)]))
    types = np.arange(150) % 2
    histories = [
        History(f"s{index}", times / unit, types, clock.tick) for index, times in enumerate(dates)
    ]
    targets = pa.table(
        {
            "sequence_id": np.repeat(["s6", "s7"], 149),
            "position": pa.array(np.tile(np.arange(1, 150), 2), pa.int32()),
        }
    )
    tables = forecast_with_baselines(
        histories[:6], histories[6:], targets, tick=clock.tick, num_types=2
    )
    return {
        name: estimate_metrics(table, seconds_per_unit=unit, resamples=5)[NLL].value
        for name, table in tables.items()
        if name != "last"
    }


@pytest.mark.parametrize("scale", [60.0, 1.0, 0.001, 1e-6])
def test_baselines_in_every_unit(scale: float):
    dates = _dates(3, scale=scale)
    expected = _nll(dates, 1.0)
    for unit in (60.0, 86400.0):
        actual = _nll(dates, unit)
        for name, value in expected.items():
            # the bins of the codes have other edges
            wide = 0.06
            assert actual[name] == pytest.approx(value - np.log(unit), abs=wide), (name, unit)


def test_baselines_of_continuous_times_in_every_unit():
    """Simultaneous events then have no density, and are left out in every unit."""
    rng = np.random.default_rng(5)
    waits = rng.exponential(30.0, (8, 150)) * (rng.random((8, 150)) > 0.15)
    dates = list(np.cumsum(waits, axis=1))
    expected, actual = _nll(dates, 1.0), _nll(dates, 86400.0)
    for name, value in expected.items():
        wide = 0.06
        assert actual[name] == pytest.approx(value - np.log(86400), abs=wide), name
    apart = np.concatenate([np.diff(times) for times in dates[6:]])
    mean = np.concatenate([np.diff(times) for times in dates[:6]]).mean()
    apart = apart[apart > 0]
    # the Poisson process by hand: exponential intervals
    assert expected["poisson"] == pytest.approx(np.mean(np.log(mean) + apart / mean), abs=0.02)


def test_without_a_tick_densities_are_those_of_events_apart():
    """By hand: one bin holds .3 of the .5 that is not simultaneous, .1 is off the grid."""
    grid = IntervalRange(1.0, 1.9, 0.0).grid(num_bytes=2)
    bins = int(grid.bin_of_code(np.array([1.5]))[0])
    mass = np.zeros((3, len(grid.widths)))
    mass[:, bins], mass[:, bins + 40] = 0.3, 0.2
    forecasts = IntervalForecasts(grid, np.full(3, 0.5), mass, np.full(3, 0.1))
    waits = np.array([1.5, 0.0, 1e9])
    nll = forecasts.nll(waits, tick=0.0)
    assert nll[0] == pytest.approx(-np.log(0.3 / 0.5 / grid.widths[bins]))
    assert np.isnan(nll[1])
    assert np.isposinf(nll[2])
    codes = encode_intervals(waits, num_bytes=2)
    assert codes[2, 0] not in grid.first_bytes
    whole = _time_nll(
        TimeForecasts(
            np.arange(3, dtype=np.int32), forecasts, greedy=waits, code_nll=np.full(3, 4.0)
        ),
        waits,
        tick=0.0,
        num_bytes=2,
    )
    # of the model's whole distribution: .9 on the grid, of which half is simultaneous
    assert whole[0] == pytest.approx(-np.log(0.27 / 0.55 / grid.widths[bins]))
    assert np.isnan(whole[1])
    assert whole[2] == pytest.approx(4.0 + np.log(0.55) + np.log(2.0**22), abs=0.01)
