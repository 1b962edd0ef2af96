"""The memory of the past, against its definition."""

from dataclasses import fields
from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmtpp.core.past import event_memory
from mmtpp.core.past.decayed_sums import decayed_sums
from mmtpp.core.past.event_memory import MemorySettings, memory_rows
from mmtpp.core.past.past_events import PastEvents
from mmtpp.core.times.calendar import (
    DAY_S,
    WEEK_S,
    YEAR_S,
    calendar_columns,
    calendar_names,
    local_times,
    spanned_periods,
)


def _sequence(num_events: int, seed: int = 0, num_types: int = 3) -> PastEvents:
    rng = np.random.default_rng(seed)
    intervals = rng.exponential(2.0, num_events) * (rng.random(num_events) > 0.2)
    return PastEvents.from_sequence(
        np.cumsum(np.round(intervals, 1)) + 7.0,
        rng.integers(0, num_types, num_events),
        rng.integers(0, 9, num_events),
    )


def _settings(past: PastEvents, **changes: object) -> MemorySettings:
    return MemorySettings.fit(past, **{"tick": 0.1, "seconds_per_unit": 1.0, **changes})


def _column(past: PastEvents, settings: MemorySettings, name: str) -> np.ndarray:
    return memory_rows(settings, past)[0][:, settings.column_names.index(name)]


@given(st.integers(0, 60), st.integers(0, 3), st.integers(0, 3), st.integers(0, 2**31))
def test_decayed_sums_follow_their_recurrence(num_events, num_decays, num_values, seed):
    rng = np.random.default_rng(seed)
    decays = rng.random((num_events, num_decays)) * (rng.random((num_events, 1)) > 0.1)
    values = rng.normal(size=(num_events, num_values))
    initial = rng.normal(size=(num_decays, num_values))
    sums = decayed_sums(decays, values, initial)
    assert sums.shape == (num_decays, num_values, num_events)
    expected = initial
    for event in range(num_events):
        expected = decays[event, :, None] * expected + values[event]
        np.testing.assert_allclose(sums[..., event], expected, rtol=1e-12, atol=1e-14)


def test_columns_are_what_their_names_say():
    past = _sequence(40)
    settings = _settings(past)
    times, types = past.times, past.types
    intervals = np.diff(times)
    z = np.concatenate([[0.0], settings.log_intervals(intervals)])
    np.testing.assert_allclose(_column(past, settings, "log interval"), z, rtol=1e-5, atol=1e-6)
    simultaneous = np.concatenate([[False], intervals == 0])
    assert _column(past, settings, "is simultaneous").tolist() == simultaneous.tolist()
    elapsed = np.log1p((times - times[0]) / settings.mean_interval)
    np.testing.assert_allclose(_column(past, settings, "elapsed time"), elapsed, rtol=1e-5)
    scale = settings.time_scales[2]
    weights = np.tril(np.exp(-(times[:, None] - times) / scale))
    name = f"count {scale:g}"
    np.testing.assert_allclose(
        _column(past, settings, name), np.log(weights.sum(axis=1)), rtol=1e-4, atol=1e-5
    )
    share = weights @ (types == 1) / weights.sum(axis=1)
    name = f"share of 1 {scale:g}"
    np.testing.assert_allclose(_column(past, settings, name), share, rtol=1e-4, atol=1e-6)
    ages = np.arange(40)[:, None] - np.arange(40)
    weights = np.where(ages >= 0, (1 - 1 / 8) ** np.maximum(ages, 0), 0.0)
    weights[:, 0] = 0.0  # the first event has no interval
    total = np.maximum(weights.sum(axis=1), 1)
    mean = weights @ z / total
    np.testing.assert_allclose(_column(past, settings, "mean 8"), mean, rtol=1e-4, atol=1e-5)
    spread = np.sqrt(np.maximum(weights @ z**2 / total - mean**2, 0))
    np.testing.assert_allclose(_column(past, settings, "spread 8"), spread, rtol=1e-3, atol=1e-4)
    lag = _column(past, settings, "log interval -3")
    np.testing.assert_allclose(lag[3:], z[:-3], rtol=1e-5, atol=1e-6)
    assert lag[:4].tolist() == [0.0] * 4
    is_type = _column(past, settings, "type -2 is 0")
    assert is_type.tolist() == [0.0, 0.0, *(types[:-2] == 0)]
    lengths = np.log1p(past.text_lengths)
    np.testing.assert_allclose(_column(past, settings, "text length"), lengths, rtol=1e-5)


@pytest.mark.parametrize("chunk", [1, 7, 2**15])
def test_rows_depend_on_no_later_event_and_continue_from_a_state(monkeypatch, chunk):
    monkeypatch.setattr(event_memory, "_CHUNK_EVENTS", chunk)
    first, second = _sequence(50), _sequence(30, seed=1)
    both = PastEvents.join([first, second])
    settings = _settings(both)
    rows, _ = memory_rows(settings, both)
    alone = [memory_rows(settings, past)[0] for past in (first, second)]
    np.testing.assert_allclose(rows, np.concatenate(alone), rtol=1e-5, atol=1e-5)
    for cut in (1, 2, 5, 49):
        head, state = memory_rows(settings, first.slice(0, cut))
        np.testing.assert_allclose(head, rows[:cut], rtol=1e-5, atol=1e-5)
        tail, _ = memory_rows(settings, first.slice(cut, 50), state)
        np.testing.assert_allclose(tail, rows[cut:50], rtol=1e-5, atol=1e-5)


def test_unusual_sequences_have_finite_rows():
    long_gap = np.array([0.0, 1.0, 1.0 + 10 * YEAR_S, 2.0 + 10 * YEAR_S])
    zeros = np.zeros(4, dtype=np.int64)
    for past in (
        PastEvents.from_sequence(long_gap, zeros, zeros),
        PastEvents.from_sequence(np.arange(4) * 5.0, zeros, zeros),  # constant intervals, one type
        PastEvents.join([_sequence(1), _sequence(2, seed=3)]),
    ):
        settings = _settings(past)
        rows, _ = memory_rows(settings, past)
        assert rows.shape == (len(past), len(settings.column_names))
        assert np.isfinite(rows).all()
        assert not any(name.startswith("share of") for name in settings.column_names) or any(
            past.types
        )


def test_equal_times_alone_cannot_be_fitted():
    past = PastEvents.from_sequence(np.ones(5), np.zeros(5, int), np.zeros(5, int))
    with pytest.raises(ValueError, match="no positive interval"):
        _settings(past)


def test_rare_types_are_not_counted_one_by_one():
    rng = np.random.default_rng(0)
    types = np.minimum(rng.geometric(0.02, 5000), 200)
    past = PastEvents.from_sequence(np.arange(5000.0), types, np.zeros(5000, int))
    settings = _settings(past)
    assert len(settings.counted_types) == event_memory.MAX_COUNTED_TYPES
    counted = np.isin(types, settings.counted_types).sum()
    assert counted == np.sort(np.bincount(types))[-event_memory.MAX_COUNTED_TYPES :].sum()


def test_a_period_needs_two_of_it():
    assert spanned_periods(1.9 * DAY_S) == ()
    assert spanned_periods(13 * DAY_S) == (DAY_S,)
    assert spanned_periods(14 * DAY_S) == (DAY_S, WEEK_S)
    assert spanned_periods(2 * YEAR_S) == (DAY_S, WEEK_S, YEAR_S)


def test_the_calendar_is_local_time():
    zone = ZoneInfo("Europe/Berlin")
    moments = [datetime(2024, 3, 31, hour, 30, tzinfo=zone) for hour in (1, 3, 12)]  # 2:00 -> 3:00
    utc = np.array([moment.timestamp() for moment in moments])
    local = local_times(utc, "Europe/Berlin")
    assert (local % DAY_S / 3600).tolist() == [1.5, 3.5, 12.5]
    columns = dict(
        zip(calendar_names((DAY_S, WEEK_S)), calendar_columns(local, (DAY_S, WEEK_S)), strict=True)
    )
    np.testing.assert_allclose(
        columns["cos day/1"], np.cos(2 * np.pi * np.array([1.5, 3.5, 12.5]) / 24), atol=1e-6
    )
    np.testing.assert_allclose(
        columns["sin week/1"],
        np.sin(
            2 * np.pi * (3 * 24 + np.array([1.5, 3.5, 12.5])) / (7 * 24)
        ),  # Sunday, 1970-01-01 was a Thursday
        atol=1e-6,
    )
    with pytest.raises(ValueError, match="Mars/Base"):
        local_times(utc, "Mars/Base")


def test_many_sequences_continue_at_once():
    sequences = [_sequence(30, seed) for seed in range(4)]
    settings = _settings(PastEvents.join(sequences), seconds_per_unit=3600.0)
    expected = [memory_rows(settings, past)[0] for past in sequences]
    states = [memory_rows(settings, past.slice(0, 20))[1] for past in sequences]
    state = event_memory.MemoryState(
        *(
            np.stack([np.asarray(getattr(state, part.name)) for state in states], axis=-1)
            for part in fields(event_memory.MemoryState)
        )
    )
    for position in range(20, 30):
        columns = [
            np.array([getattr(past, name)[position] for past in sequences])
            for name in ("times", "types", "text_lengths", "is_first")
        ]
        rows, state = event_memory.next_rows(settings, state, PastEvents(*columns))
        target = np.stack([rows_of_sequence[position] for rows_of_sequence in expected])
        np.testing.assert_allclose(rows, target, rtol=1e-4, atol=1e-5)


def test_a_past_may_be_repeated():
    past = _sequence(20)
    settings = _settings(past)
    _, state = memory_rows(settings, past)
    next_event = PastEvents(
        np.full(3, past.times[-1] + 1), np.zeros(3, int), np.zeros(3, int), np.zeros(3, bool)
    )
    rows, _ = event_memory.next_rows(settings, state.repeat(3), next_event)
    longer = PastEvents.from_sequence(
        np.append(past.times, past.times[-1] + 1),
        np.append(past.types, 0),
        np.append(past.text_lengths, 0),
    )
    expected = memory_rows(settings, longer)[0][-1]
    np.testing.assert_allclose(rows, np.stack([expected] * 3), rtol=1e-4, atol=1e-5)
