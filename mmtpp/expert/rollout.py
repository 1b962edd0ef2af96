"""A model of densities along sampled events: its forecast of the next event of each of N futures.

Axes: N futures, K types.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from mmtpp.core.forecasting.futures import RandomNumbers
from mmtpp.core.past.event_images import NO_IMAGE
from mmtpp.core.past.event_memory import MemoryState, next_rows
from mmtpp.core.past.event_words import NO_WORD
from mmtpp.core.past.past_events import PastEvents
from mmtpp.core.times.clock import round_to_ticks
from mmtpp.expert.event_inputs import EventInputs
from mmtpp.expert.expert_folder import Expert
from mmtpp.expert.expert_forecasts import ExpertForecasts
from mmtpp.expert.sequence_state import SequenceState, forecasts_after

FloatArray = NDArray[np.float64]


class Rollout(ABC):
    """Forecasts the next event of futures. Sampled events have no texts and no images.

    Attributes:
        forecasts: Forecasts of the next event of each future.
    """

    forecasts: ExpertForecasts

    @abstractmethod
    def sample_intervals(self, rng: RandomNumbers) -> FloatArray:
        """(N,) one interval of each future, a whole number of ticks."""

    @abstractmethod
    def append(self, intervals: FloatArray, types: NDArray[np.integer]) -> None:
        """Continue every future with an event.

        Args:
            intervals: (N,) intervals in the source's unit.
            types: (N,) indices of the model's types.
        """

    def log_likelihoods(self, intervals: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(N,) log density of the next intervals, and (N, K) log probability of the types then."""
        log_density, log_types = self.forecasts.log_likelihoods(_tensor(intervals))
        return log_density.numpy(), log_types.numpy()

    def type_log_probabilities(self, intervals: FloatArray) -> FloatArray:
        """(N, K) log probability of the next type, given the next intervals."""
        return self.forecasts.type_log_probabilities(_tensor(intervals)).numpy()


class ExpertRollout(Rollout):
    """Futures of an expert from one or several origins.

    Args:
        expert: The expert.
        states: States of the sequences at the origins.
        num_futures: Number of futures of each origin; they are one after the other.
    """

    def __init__(self, expert: Expert, states: Sequence[SequenceState], num_futures: int) -> None:
        rows = torch.arange(len(states)).repeat_interleave(num_futures)
        self._expert = expert
        self._state = MemoryState.join([states[row].memory for row in rows.tolist()])
        self._times = np.asarray(self._state.last_time)
        # of sampled events
        first = states[0]
        self._words = torch.full((1, len(first.words)), NO_WORD, dtype=torch.int16)
        self._images = None
        if first.images is not None:
            self._images = torch.full((1, *first.images.shape), NO_IMAGE, dtype=torch.int16)
        self.forecasts = forecasts_after(expert, states).select(rows)

    def sample_intervals(self, rng: RandomNumbers) -> FloatArray:
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
        inputs = EventInputs(
            memory=torch.from_numpy(rows),
            types=torch.from_numpy(types.astype(np.int64)),
            words=self._words.expand(size, -1),
            images=None if self._images is None else self._images.expand(size, -1, -1),
        )
        self.forecasts = ExpertForecasts.after(self._expert.networks, inputs)


def _tensor(intervals: FloatArray) -> torch.Tensor:
    return torch.from_numpy(intervals.astype(np.float32))
