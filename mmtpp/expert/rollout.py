"""A model of densities along sampled events: its forecast of the next event of each of N futures.

Axes: N futures, K types.
"""

from abc import ABC, abstractmethod

import numpy as np
import torch
from numpy.typing import NDArray

from mmtpp.core.past.event_images import NO_IMAGE
from mmtpp.core.past.event_memory import next_rows
from mmtpp.core.past.event_words import NO_WORD
from mmtpp.core.past.past_events import PastEvents
from mmtpp.core.times.clock import round_to_ticks
from mmtpp.expert.expert_folder import Expert
from mmtpp.expert.expert_forecasts import ExpertForecasts
from mmtpp.expert.sequence_state import SequenceState, forecasts_after

FloatArray = NDArray[np.float64]


class Rollout(ABC):
    """Forecasts the next event of futures that begin after the same past. Sampled events have no
    texts and no images.

    Attributes:
        forecasts: Forecasts of the next event of each future.
    """

    forecasts: ExpertForecasts

    @abstractmethod
    def sample_intervals(self, rng: np.random.Generator) -> FloatArray:
        """(N,) one interval of each future, a whole number of ticks."""

    @abstractmethod
    def append(self, intervals: FloatArray, types: NDArray[np.integer]) -> None:
        """Continue every future with an event.

        Args:
            intervals: (N,) intervals in the source's unit.
            types: (N,) indices of the model's types.
        """

    def log_density(self, intervals: FloatArray) -> FloatArray:
        """(N,) log density of the next intervals."""
        return self.forecasts.log_density(_tensor(intervals)).numpy()

    def type_log_probabilities(self, intervals: FloatArray) -> FloatArray:
        """(N, K) log probability of the next type, given the next intervals."""
        return self.forecasts.type_log_probabilities(_tensor(intervals)).numpy()


class ExpertRollout(Rollout):
    """Futures of an expert.

    Args:
        expert: The expert.
        state: State of the sequence at the origin.
        num_futures: Number of futures, N.
    """

    def __init__(self, expert: Expert, state: SequenceState, num_futures: int) -> None:
        self._expert, self._state = expert, state.memory.repeat(num_futures)
        self._times = np.full(num_futures, state.memory.last_time)
        self._words = torch.from_numpy(state.words).expand(num_futures, -1)
        self._images = None
        if state.image is not None:
            self._images = torch.from_numpy(state.image).expand(num_futures, -1)
        self.forecasts = forecasts_after(expert, [state] * num_futures)

    def sample_intervals(self, rng: np.random.Generator) -> FloatArray:
        """(N,) one interval of each future, a whole number of ticks."""
        return round_to_ticks(self.forecasts.sample_intervals(rng), self._expert.tick)

    def append(self, intervals: FloatArray, types: NDArray[np.integer]) -> None:
        """Continue every future with an event.

        Args:
            intervals: (N,) intervals in the source's unit.
            types: (N,) indices of the expert's types.
        """
        self._times = self._times + intervals
        size = len(self._times)
        no_texts = np.zeros(size, dtype=np.int32)
        events = PastEvents(self._times, types, no_texts, np.zeros(size, dtype=np.bool_))
        rows, self._state = next_rows(self._expert.memory, self._state, events)
        self._words = torch.full_like(self._words, NO_WORD)
        if self._images is not None:
            self._images = torch.full_like(self._images, NO_IMAGE)
        self.forecasts = ExpertForecasts.after(
            self._expert.networks,
            torch.from_numpy(rows),
            torch.from_numpy(types.astype(np.int64)),
            self._words,
            self._images,
        )


def _tensor(intervals: FloatArray) -> torch.Tensor:
    return torch.from_numpy(intervals.astype(np.float32))
