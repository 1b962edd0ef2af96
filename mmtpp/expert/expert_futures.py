"""Futures of sequences, sampled event by event from densities.

Axes: N futures of an origin, S events of a future, K types.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.forecasting.futures import Futures, JoinedNumbers, draw
from mmtpp.expert.rollout import Rollout

FUTURES_PER_PASS = 1024
"""Number of futures that are sampled at once; it bounds their memory."""


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
    rollout: Rollout, settings: FutureSettings, generators: Sequence[np.random.Generator]
) -> list[Futures]:
    """Sample futures of several origins at once. Sampled events have no texts.

    Args:
        rollout: The futures at their origins, ``settings.num_futures`` for each origin.
        settings: Number and length of the futures.
        generators: Source of random numbers of each origin.

    Returns:
        Futures of each origin, whose types are indices of the model's types.
    """
    size = settings.num_futures
    rng = JoinedNumbers(generators)
    waits = np.zeros((len(generators), size))
    lengths = np.zeros(len(generators), dtype=np.int64)
    events: list[tuple[NDArray, ...]] = []
    while len(events) < settings.max_events and (waits <= settings.horizon).any():
        if events:
            rollout.append(*events[-1][:2])
        # an origin whose futures have all reached the horizon needs no more events
        lengths += (waits <= settings.horizon).any(axis=1)
        intervals = rollout.sample_intervals(rng)
        log_density, log_types = rollout.log_likelihoods(intervals)
        probabilities = np.exp(log_types)
        types = draw(probabilities, rng)
        nll = -log_density - log_types[np.arange(len(types)), types]
        waits = waits + intervals.reshape(waits.shape)
        is_within = (waits <= settings.horizon).ravel()
        events.append((intervals, types.astype(np.int16), is_within, nll, probabilities))
    columns = [np.stack(column, axis=1) for column in zip(*events, strict=True)]
    return [
        Futures(*(column[start : start + size, :length] for column in columns))
        for start, length in zip(range(0, waits.size, size), lengths.tolist(), strict=True)
    ]
