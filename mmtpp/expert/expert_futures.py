"""Futures of a sequence, sampled event by event from an expert.

Axes: N futures, S events of a future, K types.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mmtpp.core.clock import round_to_ticks
from mmtpp.core.event_memory import MemoryState, next_rows
from mmtpp.core.event_words import NO_WORD
from mmtpp.core.past_events import PastEvents
from mmtpp.expert.expert_folder import Expert
from mmtpp.expert.expert_forecasts import ExpertForecasts
from mmtpp.expert.next_events import words_of
from mmtpp.model.sampling import Futures

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FutureSettings:
    """Settings of sampled futures.

    Attributes:
        num_futures: Number of futures, N.
        horizon: Time after the last event that the futures cover, in the source's unit.
        max_events: Largest number of events of a future. A future that reaches it may end before
            the horizon.
    """

    num_futures: int
    horizon: float
    max_events: int


@dataclass(frozen=True, slots=True)
class LastEvent:
    """The last event of a sequence, after which futures begin.

    Attributes:
        row: (1, P) memory after the event.
        type: (1,) index of its type.
        words: (1, MAX_WORDS) words of its text; (1, 0) if words are not read.
    """

    row: NDArray[np.float32]
    type: NDArray[np.int64]
    words: torch.Tensor

    @classmethod
    def of(cls, past: PastEvents, rows: NDArray[np.float32]) -> "LastEvent":
        """The last event of a sequence with the memory ``rows``."""
        words = words_of(past, np.array([len(past) - 1]))
        return cls(rows[-1:], past.types[-1:].astype(np.int64), words)


def sample_futures(
    expert: Expert,
    last: LastEvent,
    state: MemoryState,
    settings: FutureSettings,
    rng: np.random.Generator,
) -> Futures:
    """Sample futures of one sequence. Sampled events have no texts.

    Args:
        expert: The expert.
        last: The last event.
        state: Past of the sequence, from ``memory_rows``.
        settings: Number and length of the futures.
        rng: Source of random numbers.

    Returns:
        Futures whose types are indices of the expert's types.
    """
    size = settings.num_futures
    rows, types = last.row.repeat(size, axis=0), last.type.repeat(size)
    words = last.words.expand(size, -1)
    state, start = state.repeat(size), state.last_time
    times = np.full(size, start)
    events: list[tuple[NDArray, ...]] = []
    while len(events) < settings.max_events and (times - start <= settings.horizon).any():
        forecasts = ExpertForecasts.after(
            expert.networks, torch.from_numpy(rows), torch.from_numpy(types), words
        )
        intervals = round_to_ticks(forecasts.sample_intervals(rng), expert.tick)
        given = torch.from_numpy(intervals.astype(np.float32))
        log_types = forecasts.type_log_probabilities(given).numpy()
        types = _draw(np.exp(log_types), rng)
        nll = -forecasts.log_density(given).numpy() - log_types[np.arange(size), types]
        times = times + intervals
        is_within = times - start <= settings.horizon
        events.append((intervals, types.astype(np.int16), is_within, nll, np.exp(log_types)))
        unread = np.zeros(size, dtype=np.int32)
        following = PastEvents(times, types, unread, np.zeros(size, dtype=np.bool_))
        rows, state = next_rows(expert.memory, state, following)
        words = torch.full_like(words, NO_WORD)
    return Futures(*(np.stack(column, axis=1) for column in zip(*events, strict=True)))


def _draw(probabilities: FloatArray, rng: np.random.Generator) -> NDArray[np.int64]:
    """(N,) one index drawn from every row of (N, K) probabilities."""
    cumulative = np.cumsum(probabilities, axis=1)
    draws = rng.random(len(probabilities))[:, None] * cumulative[:, -1:]
    return (cumulative <= draws).sum(axis=1)
