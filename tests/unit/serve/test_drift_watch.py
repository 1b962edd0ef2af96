"""Drift of live events: figures of events that follow the model, and of events that do not."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from mmtpp.core.past.past_events import PastEvents
from mmtpp.expert.expert_folder import Expert, load_expert
from mmtpp.expert.sequence_state import SequenceState, forecasts_after
from mmtpp.serve import drift_watch
from mmtpp.serve.drift_watch import DriftWatch
from tests.helpers.live_models import expert_forecaster


@pytest.fixture
def expert() -> Expert:
    forecaster = expert_forecaster(num_words=0)
    assert isinstance(forecaster.model, Expert)
    return forecaster.model


def _follow(expert: Expert, watch: DriftWatch, *, factor: float, steps: int = 60) -> None:
    """Add events that are drawn from the expert's own forecasts, with intervals times a factor."""
    rng = np.random.default_rng(1)
    number = 50
    states: list[SequenceState | None] = [None] * number
    times = np.zeros(number)
    types = np.zeros(number, dtype=np.int16)
    for _ in range(steps):
        past = PastEvents(times, types, np.zeros(number, dtype=np.int32), _is_first(states))
        watch.add(states, past, [1] * number)
        known = SequenceState.advance(expert.memory, states, past, [1] * number)
        forecasts = forecasts_after(expert, known)
        intervals = factor * forecasts.sample_intervals(rng)
        times = times + np.round(intervals / expert.tick) * expert.tick
        types = rng.integers(0, 3, number).astype(np.int16)
        states = list(known)


def _is_first(states: list[SequenceState | None]) -> np.ndarray:
    return np.array([state is None for state in states])


def test_events_from_the_forecasts_show_no_drift_and_later_events_do(expert, monkeypatch):
    clock = itertools.count(1.0, 1000.0)
    monkeypatch.setattr(drift_watch.time, "monotonic", lambda: next(clock))
    figures = {}
    for factor in (1.0, 3.0):
        watch = DriftWatch(expert, events_per_s=100.0)
        assert watch.figures() == {}
        _follow(expert, watch, factor=factor)
        figures[factor] = watch.figures()
    assert figures[1.0]["events"] == 50 * 59  # the first events of sequences are not forecast
    assert figures[1.0]["residual_mean"] == pytest.approx(1.0, abs=0.06)
    assert figures[1.0]["ks_distance"] < 0.04
    assert figures[3.0]["residual_mean"] > 1.3
    assert figures[3.0]["ks_distance"] > 0.15
    assert "alert_share" not in figures[1.0]  # the expert has no limit


def test_events_beyond_the_limit_are_alerts(expert, tmp_path: Path, monkeypatch):
    clock = itertools.count(1.0, 1000.0)
    monkeypatch.setattr(drift_watch.time, "monotonic", lambda: next(clock))
    watch = DriftWatch(expert, events_per_s=100.0)
    _follow(expert, watch, factor=1.0)
    nll = watch.figures()["nll_nats_per_event"]
    expert = _with_limit(expert, nll, tmp_path)
    assert expert.surprise_limit == nll
    watch = DriftWatch(expert, events_per_s=100.0)
    _follow(expert, watch, factor=1.0)
    assert 0.1 < watch.figures()["alert_share"] < 0.9
    assert watch.num_alerts == round(watch.figures()["alert_share"] * 50 * 59)


def _with_limit(expert: Expert, limit: float, folder: Path) -> Expert:
    """The expert with a limit, as it is read again from its folder."""
    Expert(expert.memory, expert.tick, expert.networks, 0, limit).save(folder)
    return load_expert(str(folder))


def test_under_load_only_some_events_are_compared(expert, monkeypatch):
    clock = itertools.count(1.0, 0.125)  # a batch of 50 events every 0.125 s
    monkeypatch.setattr(drift_watch.time, "monotonic", lambda: next(clock))
    watch = DriftWatch(expert, events_per_s=100.0)
    _follow(expert, watch, factor=1.0, steps=101)
    assert watch.figures()["events"] == 100 * 0.125 * 100.0  # without the first, new sequences
