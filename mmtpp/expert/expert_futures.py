"""Futures of a sequence, sampled event by event from an expert.

Axes: N futures, S events of a future, K types.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mmtpp.core.clock import round_to_ticks
from mmtpp.core.event_memory import MemoryState, next_rows
from mmtpp.core.past_events import PastEvents
from mmtpp.expert.expert_folder import Expert
from mmtpp.expert.expert_forecasts import ExpertForecasts
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


def sample_futures(
    expert: Expert,
    last_row: NDArray[np.float32],
    last_type: int,
    state: MemoryState,
    settings: FutureSettings,
    rng: np.random.Generator,
) -> Futures:
    """Sample futures of one sequence. Sampled events have no texts.

    Args:
        expert: The expert.
        last_row: (P,) memory after the last event.
        last_type: Index of the last event's type.
        state: Past of the sequence, from ``memory_rows``.
        settings: Number and length of the futures.
        rng: Source of random numbers.

    Returns:
        Futures whose types are indices of the expert's types.
    """
    size = settings.num_futures
    rows = np.repeat(last_row[None], size, axis=0)
    types = np.full(size, last_type)
    state, start = state.repeat(size), state.last_time
    times = np.full(size, start)
    events: list[tuple[NDArray, ...]] = []
    while len(events) < settings.max_events and (times - start <= settings.horizon).any():
        forecasts = ExpertForecasts.after(
            expert.networks, torch.from_numpy(rows), torch.from_numpy(types)
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
    return Futures(*(np.stack(column, axis=1) for column in zip(*events, strict=True)))


def _draw(probabilities: FloatArray, rng: np.random.Generator) -> NDArray[np.int64]:
    """(N,) one index drawn from every row of (N, K) probabilities."""
    cumulative = np.cumsum(probabilities, axis=1)
    draws = rng.random(len(probabilities))[:, None] * cumulative[:, -1:]
    return (cumulative <= draws).sum(axis=1)
