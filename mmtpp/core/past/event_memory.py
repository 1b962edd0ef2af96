"""Memory of the past: numbers that summarise all events of a sequence up to each event.

A row of the memory depends on the events up to its own and on no later ones. It covers the whole
sequence, so it depends neither on windows nor on compression. Its columns are counts that decay
with time, moving means and spreads of the logarithms of intervals, the last intervals and types,
the elapsed time, the lengths of texts, and the calendar.

Axes: E events, S time scales, A averages, K counted types, P columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.past.decayed_sums import decayed_sums
from mmtpp.core.past.past_events import PastEvents
from mmtpp.core.times.calendar import calendar_columns, calendar_names, local_times, spanned_periods

FloatArray = NDArray[np.floating]
_Value = TypeVar("_Value", bound=np.generic)

NUM_TIME_SCALES = 8
AVERAGED_EVENTS = (2, 4, 8, 16, 48, 128)
AVERAGED_TEXTS = (2, 8, 48)
NUM_LAGS = 4
NUM_TYPE_LAGS = 3
MAX_COUNTED_TYPES = 32
LIMIT = 6.0  # of a normalised column
_MIN_SPREAD = 1e-3
_CHUNK_EVENTS = 2**15


@dataclass(frozen=True, slots=True)
class MemoryState:
    """The past of one sequence, from which its memory continues with later events.

    The pasts of N sequences have one more axis, the last one, of size N (``repeat``).

    Attributes:
        counts: (S, 1) decayed numbers of events.
        type_counts: (S', K) decayed numbers of events by type, at every second time scale.
        moments: (A, 3) decayed sums of one, the log interval and its square.
        text_moments: (A', 2) decayed sums of one and of the log text length.
        lags: (NUM_LAGS,) last normalised log intervals, the latest last; 0 before the first.
        type_lags: (NUM_TYPE_LAGS,) last types, the latest last; -1 before the first event.
        start_time: Time of the first event.
        last_time: Time of the last event.
        num_events: Number of events.
    """

    counts: FloatArray
    type_counts: FloatArray
    moments: FloatArray
    text_moments: FloatArray
    lags: FloatArray
    type_lags: NDArray[np.int64]
    start_time: float | FloatArray
    last_time: float | FloatArray
    num_events: int | NDArray[np.int64]

    def repeat(self, num_sequences: int) -> "MemoryState":
        """The pasts of N sequences with the same past."""
        return MemoryState.join([self] * num_sequences)

    @classmethod
    def join(cls, states: Sequence["MemoryState"]) -> "MemoryState":
        """The pasts of N sequences, at least one, from those of each."""
        names = [part.name for part in fields(cls)]
        values = (np.array([getattr(state, name) for state in states]) for name in names)
        return cls(*(np.moveaxis(value, 0, -1) for value in values))

    def split(self) -> list["MemoryState"]:
        """The past of each of N sequences."""
        parts = [np.moveaxis(np.asarray(getattr(self, part.name)), -1, 0) for part in fields(self)]
        columns = ([value.copy() for value in part] for part in parts)  # not views of all pasts
        return [MemoryState(*values) for values in zip(*columns, strict=True)]


@dataclass(frozen=True, slots=True)
class MemorySettings:
    """What a memory holds; fitted on training events and kept with the model.

    Attributes:
        smallest_interval: Intervals below count as this long, in the source's unit, above 0: half a
            tick of the clock, or half the smallest positive interval of times without a clock.
        mean_interval: Mean of the training intervals, in the source's unit.
        log_mean: Mean of the logarithms of the training intervals.
        log_spread: Standard deviation of the logarithms.
        counted_types: Codes of the types that are counted one by one: the most frequent ones, at
            most ``MAX_COUNTED_TYPES``.
        has_texts: Whether the lengths of texts are columns.
        calendar_periods: Periods of the calendar, in seconds.
        seconds_per_unit: Length of the source's unit, in seconds.
        time_zone: IANA name of the zone of the calendar; UTC where times are no dates.
    """

    smallest_interval: float
    mean_interval: float
    log_mean: float
    log_spread: float
    counted_types: tuple[int, ...]
    has_texts: bool
    calendar_periods: tuple[float, ...]
    seconds_per_unit: float
    time_zone: str = "UTC"

    @classmethod
    def fit(
        cls,
        past: PastEvents,
        *,
        tick: float,
        seconds_per_unit: float,
        time_zone: str = "UTC",
        with_calendar: bool = True,
    ) -> "MemorySettings":
        """Fit the settings on training events.

        Args:
            past: Training events.
            tick: Tick of the clock, in the source's unit; 0 if the times have no tick.
            seconds_per_unit: Length of the source's unit, in seconds.
            time_zone: IANA name of the zone of the calendar.
            with_calendar: Whether the calendar is used where the events span it.

        Raises:
            ValueError: No sequence has two events, or all intervals are zero.
        """
        intervals = np.diff(past.times)[~past.is_first[1:]]
        positive = intervals[intervals > 0]
        if not len(positive):
            raise ValueError("the training sequences have no positive interval")
        smallest = (tick or float(positive.min())) / 2
        logs = np.log(np.maximum(intervals, smallest))
        codes, numbers = np.unique(past.types, return_counts=True)
        frequent = codes[np.argsort(-numbers, kind="stable")][:MAX_COUNTED_TYPES]
        span_s = float(past.times.max() - past.times.min()) * seconds_per_unit
        return cls(
            smallest_interval=smallest,
            mean_interval=float(intervals.mean()),
            log_mean=float(logs.mean()),
            log_spread=max(float(logs.std()), _MIN_SPREAD),
            counted_types=tuple(sorted(frequent.tolist())),
            has_texts=bool(past.text_lengths.any()),
            calendar_periods=spanned_periods(span_s) if with_calendar else (),
            seconds_per_unit=seconds_per_unit,
            time_zone=time_zone,
        )

    @property
    def time_scales(self) -> FloatArray:
        """(S,) time constants of the decayed counts, a factor of 4 apart."""
        return self.mean_interval * 4.0 ** np.arange(-1, NUM_TIME_SCALES - 1)

    def log_intervals(self, intervals: FloatArray) -> FloatArray:
        """(E,) normalised logarithms of intervals."""
        logs = np.log(np.maximum(intervals, self.smallest_interval))
        return (logs - self.log_mean) / self.log_spread

    def initial_state(self, start_time: float = 0.0) -> MemoryState:
        """The state before the first event of a sequence."""
        num_types = self._num_type_columns
        return MemoryState(
            counts=np.zeros((NUM_TIME_SCALES, 1)),
            type_counts=np.zeros((NUM_TIME_SCALES // 2, num_types)),
            moments=np.zeros((len(AVERAGED_EVENTS), 3)),
            text_moments=np.zeros((len(AVERAGED_TEXTS), 2)),
            lags=np.zeros(NUM_LAGS),
            type_lags=np.full(NUM_TYPE_LAGS, -1),
            start_time=start_time,
            last_time=start_time,
            num_events=0,
        )

    @property
    def _num_type_columns(self) -> int:
        return len(self.counted_types) if len(self.counted_types) > 1 else 0

    @property
    def column_names(self) -> list[str]:
        """(P,) names of the columns."""
        types = self.counted_types if self._num_type_columns else ()
        names = ["log interval", "is simultaneous", "elapsed time", "number of events"]
        names += [f"count {scale:g}" for scale in self.time_scales]
        names += [f"share of {code} {scale:g}" for scale in self.time_scales[::2] for code in types]
        names += [f"{kind} {n}" for n in AVERAGED_EVENTS for kind in ("mean", "spread")]
        names += [f"log interval -{lag}" for lag in range(1, NUM_LAGS + 1)]
        names += [f"type -{lag} is {code}" for lag in range(NUM_TYPE_LAGS) for code in types]
        if self.has_texts:
            names += ["text length", *(f"text length {n}" for n in AVERAGED_TEXTS)]
        return names + calendar_names(self.calendar_periods)


def memory_rows(
    settings: MemorySettings, past: PastEvents, state: MemoryState | None = None
) -> tuple[NDArray[np.float32], MemoryState]:
    """Compute the memory after each event.

    Args:
        settings: Settings of the memory.
        past: Events, at least one.
        state: Past of the sequence that the first event continues; None if the first event begins a
            sequence.

    Returns:
        rows_EP: (E, P) columns, not normalised.
        state: Past of the last sequence, its last event included.
    """
    rows_EP = np.empty((len(past), len(settings.column_names)), dtype=np.float32)
    state = state or settings.initial_state(float(past.times[0]))
    for start in range(0, len(past), _CHUNK_EVENTS):
        chunk = _Chunk.build(settings, past.slice(start, start + _CHUNK_EVENTS), state)
        columns, state = _columns(settings, chunk, state)
        columns_PE = np.array(columns, dtype=np.float32)
        rows_EP[start : start + len(chunk.z)] = columns_PE.T
    return rows_EP, state


def next_rows(
    settings: MemorySettings, state: MemoryState, next_events: PastEvents
) -> tuple[NDArray[np.float32], MemoryState]:
    """Compute the memory after one more event of each of N sequences.

    Args:
        settings: Settings of the memory.
        state: Pasts of the N sequences.
        next_events: The next event of each sequence; ``is_first`` is False.

    Returns:
        rows_NP: (N, P) columns, not normalised.
        state: Pasts of the sequences, these events included.
    """
    intervals = next_events.times - state.last_time
    chunk = _NextEvents(
        past=next_events,
        intervals=intervals,
        position=np.asarray(state.num_events),
        start_times=np.asarray(state.start_time),
        z=settings.log_intervals(intervals),
    )
    columns, state = _columns(settings, chunk, state)
    return np.ascontiguousarray(np.array(columns, dtype=np.float32).T), state


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Consecutive events of ``memory_rows``, with their places in their sequences.

    Attributes:
        past: The events.
        intervals: (E,) intervals, 0 for the first event of a sequence.
        position: (E,) number of events before in the sequence.
        start_times: (E,) time of the first event of the sequence.
        z: (E,) normalised log intervals, 0 for the first event of a sequence.
    """

    past: PastEvents
    intervals: FloatArray
    position: NDArray[np.int64]
    start_times: FloatArray
    z: FloatArray

    @classmethod
    def build(cls, settings: MemorySettings, past: PastEvents, state: MemoryState) -> "_Chunk":
        places = np.arange(len(past))
        first = np.maximum.accumulate(np.where(past.is_first, places, -1))
        position = np.where(first >= 0, places - first, places + state.num_events)
        start_times = np.where(first >= 0, past.times[first], state.start_time)
        intervals = np.diff(past.times, prepend=state.last_time)
        intervals[position == 0] = 0.0
        z = settings.log_intervals(intervals)
        z[position == 0] = 0.0
        return cls(past, intervals, position, start_times, z)

    def lagged(self, before: NDArray[_Value], values: NDArray[_Value], lag: int) -> NDArray[_Value]:
        """(E,) values of ``lag`` events before; ``before`` holds those before the chunk."""
        return np.concatenate([before, values])[len(before) - lag : len(before) - lag + len(values)]

    def sums(self, decays_ES: FloatArray, values_EV: FloatArray, before: FloatArray) -> FloatArray:
        """(S, V, E) decayed sums with and after each event."""
        return decayed_sums(decays_ES, values_EV, before)

    def last(self, values: NDArray[Any]) -> Any:
        """The values after the last event."""
        return values[..., -1]

    def newest(self, before: NDArray[_Value], values: NDArray[_Value]) -> NDArray[_Value]:
        """The newest of the values, as many as there were before."""
        return np.concatenate([before, values])[-len(before) :]


class _NextEvents(_Chunk):
    """The next event of each of N sequences, each with its own past."""

    def lagged(self, before: NDArray[_Value], values: NDArray[_Value], lag: int) -> NDArray[_Value]:
        """(N,) values of ``lag`` events before."""
        return before[-lag] if lag else values

    def sums(self, decays_ES: FloatArray, values_EV: FloatArray, before: FloatArray) -> FloatArray:
        """(S, V, N) decayed sums with and after each event."""
        return decays_ES.T[:, None] * before + values_EV.T

    def last(self, values: NDArray[Any]) -> Any:
        """The values after each event."""
        return values

    def newest(self, before: NDArray[_Value], values: NDArray[_Value]) -> NDArray[_Value]:
        """The newest of the values, as many as there were before."""
        return np.concatenate([before[1:], values[None]])


def _columns(
    settings: MemorySettings, chunk: _Chunk, state: MemoryState
) -> tuple[list[NDArray[Any]], MemoryState]:
    """The columns of a chunk in the order of ``column_names``, and the state after it."""
    past, has_interval = chunk.past, chunk.position > 0
    columns: list[NDArray[Any]] = [
        chunk.z,
        has_interval & (chunk.intervals == 0),
        np.log1p((past.times - chunk.start_times) / settings.mean_interval),
        np.log1p(chunk.position),
    ]
    counts_SE, type_counts_SKE = _decayed_counts(settings, chunk, state)
    columns += list(np.log(counts_SE[:, 0]))
    for count_E, type_counts_KE in zip(counts_SE[::2, 0], type_counts_SKE, strict=True):
        columns += list(type_counts_KE / count_E)
    moments = np.stack([has_interval.astype(np.float64), chunk.z, chunk.z**2], axis=1)
    moments_AVE = chunk.sums(_averaging(chunk, AVERAGED_EVENTS), moments, state.moments)
    for number_E, sum_E, sum_of_squares_E in moments_AVE:
        number_E = np.maximum(number_E, 1.0)
        mean_E = sum_E / number_E
        columns += [mean_E, np.sqrt(np.maximum(sum_of_squares_E / number_E - mean_E**2, 0.0))]
    for lag in range(1, NUM_LAGS + 1):
        values = chunk.lagged(state.lags, chunk.z, lag)
        columns.append(np.where(chunk.position > lag, values, 0.0))
    codes = settings.counted_types if type_counts_SKE.shape[1] else ()
    for lag in range(NUM_TYPE_LAGS):
        values = chunk.lagged(state.type_lags, past.types, lag)
        columns += [(values == code) & (chunk.position >= lag) for code in codes]
    text_moments = state.text_moments
    if settings.has_texts:
        log_lengths = np.log1p(past.text_lengths.astype(np.float64))
        values = np.stack([np.ones(len(log_lengths)), log_lengths], axis=1)
        sums_AVE = chunk.sums(_averaging(chunk, AVERAGED_TEXTS), values, text_moments)
        columns += [log_lengths, *(sum_E / number_E for number_E, sum_E in sums_AVE)]
        text_moments = chunk.last(sums_AVE)
    if settings.calendar_periods:
        times_s = local_times(past.times * settings.seconds_per_unit, settings.time_zone)
        columns += calendar_columns(times_s, settings.calendar_periods)
    return columns, MemoryState(
        counts=chunk.last(counts_SE),
        type_counts=chunk.last(type_counts_SKE),
        moments=chunk.last(moments_AVE),
        text_moments=text_moments,
        lags=chunk.newest(state.lags, chunk.z),
        type_lags=chunk.newest(state.type_lags, past.types.astype(np.int64)),
        start_time=chunk.last(chunk.start_times),
        last_time=chunk.last(past.times),
        num_events=chunk.last(chunk.position) + 1,
    )


def _decayed_counts(
    settings: MemorySettings, chunk: _Chunk, state: MemoryState
) -> tuple[FloatArray, FloatArray]:
    """(S, 1, E) decayed numbers of events, and (S', K, E) those by type."""
    decays_ES = np.exp(-chunk.intervals[:, None] / settings.time_scales)
    decays_ES[chunk.past.is_first] = 0.0
    decays_ES = decays_ES.astype(np.float32)
    counts = chunk.sums(decays_ES, np.ones((len(decays_ES), 1), np.float32), state.counts)
    codes = settings.counted_types[: state.type_counts.shape[1]]
    is_type_EK = (chunk.past.types[:, None] == np.array(codes)).astype(np.float32)
    return counts, chunk.sums(decays_ES[:, ::2], is_type_EK, state.type_counts)


def _averaging(chunk: _Chunk, num_events: tuple[int, ...]) -> FloatArray:
    """(E, A) decays of moving averages, which forget the past where a sequence begins."""
    factors = 1.0 - 1.0 / np.array(num_events)
    return np.where(chunk.past.is_first[:, None], 0.0, factors)
