"""Events at the limits: one type, constant intervals, gaps of years, no clock, long sequences."""

from dataclasses import replace

import numpy as np
import pytest

from mmtpp.core.forecasting.interval_forecasts import IntervalRange
from mmtpp.core.past.event_memory import MemorySettings, memory_rows
from mmtpp.core.past.past_events import PastEvents
from mmtpp.expert.expert_forecasts import ExpertForecasts
from mmtpp.expert.fit import ExpertFit
from mmtpp.expert.network_losses import mean_losses
from mmtpp.expert.next_events import EventBlocks, ScoredSequence
from tests.helpers.small_experts import SETTINGS, finish


def _sequence(intervals: np.ndarray, types: np.ndarray | None = None) -> ScoredSequence:
    times = np.append(0.0, np.cumsum(intervals))
    size = len(times)
    kinds = np.zeros(size, dtype=np.int64) if types is None else types
    past = PastEvents.from_sequence(times, kinds, np.zeros(size, dtype=np.int64))
    return ScoredSequence("s", past, np.arange(size) > 0)


RNG = np.random.default_rng(0)
CASES = {
    "constant intervals": (np.full(200, 3.0), 1.0),
    "gaps of years": (np.where(np.arange(200) % 50 == 49, 1e9, RNG.integers(1, 5, 200)), 1.0),
    "mostly simultaneous": ((RNG.random(200) < 0.1).astype(float), 1.0),
    "no clock": (RNG.exponential(1.0, 200), 0.0),
    "no clock, simultaneous": (RNG.exponential(1.0, 200) * (RNG.random(200) < 0.5), 0.0),
    "tiny unit": (RNG.integers(1, 9, 200) * 1e-9, 1e-9),
}


@pytest.mark.parametrize("case", CASES)
def test_losses_and_forecasts_are_finite(case: str):
    intervals, tick = CASES[case]
    sequences = [_sequence(intervals), _sequence(intervals[:1])]
    past = PastEvents.join(sequence.past for sequence in sequences)
    memory = MemorySettings.fit(past, tick=tick, seconds_per_unit=1.0)
    blocks = EventBlocks.from_sequences(memory, sequences, tick=tick)
    settings = replace(
        SETTINGS, num_networks=1, width=8, num_components=4, epochs=60, events_per_step=1024
    )
    fit = finish(ExpertFit(blocks, blocks, num_types=1, settings=settings))
    before = ExpertFit(blocks, blocks, num_types=1, settings=settings)
    losses = mean_losses(fit.networks(), blocks)
    assert np.isfinite(losses.nll)
    assert losses.type_nll == 0.0  # one type is certain
    assert losses.nll <= mean_losses([before._state.network.eval()], blocks).nll  # it has learnt
    positive = intervals[intervals > 0]
    grid = IntervalRange(positive.min(), positive.max(), tick).grid(num_bytes=2)
    events = blocks.load(0)
    forecasts = ExpertForecasts.after(fit.networks(), events.inputs)
    distribution = forecasts.on_grid(grid).intervals()
    assert np.isfinite(distribution.mean()).all()
    assert (np.diff(distribution.quantiles((0.05, 0.5, 0.95)), axis=1) >= 0).all()


def test_without_a_positive_interval_there_is_nothing_to_learn():
    past = _sequence(np.zeros(5)).past
    with pytest.raises(ValueError, match="no positive interval"):
        MemorySettings.fit(past, tick=1.0, seconds_per_unit=1.0)


def test_a_sequence_may_have_a_million_events():
    size = 10**6
    rng = np.random.default_rng(0)
    past = _sequence(rng.integers(1, 100, size - 1).astype(float), rng.integers(0, 3, size)).past
    settings = MemorySettings.fit(past, tick=1.0, seconds_per_unit=1.0)
    rows, state = memory_rows(settings, past)
    assert rows.shape == (size, len(settings.column_names))
    assert np.isfinite(rows).all()
    assert state.num_events == size
