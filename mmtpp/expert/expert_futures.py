"""Futures of a sequence, sampled event by event from densities.

Axes: N futures, S events of a future, K types.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.forecasting.futures import Futures, draw
from mmtpp.expert.rollout import Rollout


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


def sample_futures(rollout: Rollout, settings: FutureSettings, rng: np.random.Generator) -> Futures:
    """Sample futures of one sequence. Sampled events have no texts.

    Args:
        rollout: The futures at their origin.
        settings: Number and length of the futures.
        rng: Source of random numbers.

    Returns:
        Futures whose types are indices of the model's types.
    """
    size = settings.num_futures
    waits = np.zeros(size)
    events: list[tuple[NDArray, ...]] = []
    while len(events) < settings.max_events and (waits <= settings.horizon).any():
        intervals = rollout.sample_intervals(rng)
        log_types = rollout.type_log_probabilities(intervals)
        types = draw(np.exp(log_types), rng)
        nll = -rollout.log_density(intervals) - log_types[np.arange(size), types]
        waits = waits + intervals
        is_within = waits <= settings.horizon
        events.append((intervals, types.astype(np.int16), is_within, nll, np.exp(log_types)))
        rollout.append(intervals, types)
    return Futures(*(np.stack(column, axis=1) for column in zip(*events, strict=True)))
