"""A soft model along sampled events: its forecast of the next event of each of N futures.

Axes: N futures, K types, P columns of the memory, D width of the language model.
"""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from mmtpp.core.forecasting.futures import RandomNumbers
from mmtpp.core.past.event_memory import memory_rows, next_rows
from mmtpp.core.past.past_events import PastEvents
from mmtpp.core.times.clock import round_to_ticks
from mmtpp.expert.expert_forecasts import ExpertForecasts
from mmtpp.expert.network import ExpertNetwork
from mmtpp.expert.rollout import Rollout
from mmtpp.model.batch import Batch, SoftBatch
from mmtpp.model.decoding.cached_history import CachedHistory
from mmtpp.soft.soft_model import SoftModel

FloatArray = NDArray[np.float64]


class SoftDistributions:
    """Distributions of what follows events, computed in float32 on the CPU.

    Args:
        model: Model in evaluation mode.
        type_ids: (K,) ids of the tokens of the model's types.
    """

    def __init__(self, model: SoftModel, type_ids: Sequence[int]) -> None:
        self.model = model
        self._network: ExpertNetwork = copy.deepcopy(model.network).float().cpu()
        self._type_ids = torch.tensor(type_ids, device=model.head.weight.device)
        self._codes = np.asarray(model.settings.type_codes)

    @torch.inference_mode()
    def forecast_labels(self, batch: Batch) -> ExpertForecasts:
        """Forecasts of the labels of a row, in their order."""
        return self._forecasts(self.model.states(batch)[batch.predictors])

    def begin_rollout(self, history: Batch, past: PastEvents, num_futures: int) -> "SoftRollout":
        """Forecast the event after the last one, for N futures.

        Args:
            history: Row of one segment, the newest events of the past.
            past: All events of the sequence up to the origin, with codes of types.
            num_futures: Number of futures, N.
        """
        return SoftRollout(self, history, past, num_futures)

    @torch.inference_mode()
    def after(
        self, context: torch.Tensor, memory: torch.Tensor, codes: torch.Tensor
    ) -> ExpertForecasts:
        """Forecasts after events, see ``SoftModel.states_on``."""
        return self._forecasts(self.model.states_on(context, memory, codes))

    @torch.inference_mode()
    def embed_sampled(self, rows: NDArray[np.float32], types: NDArray[np.integer]) -> torch.Tensor:
        """(N, D) vectors of sampled events, which have no texts and no images.

        Args:
            rows: (N, P) memory after the events.
            types: (N,) indices of the types.
        """
        device = self._type_ids.device
        index = torch.as_tensor(types.astype(np.int64), device=device)
        size = len(types)
        content = SoftBatch(
            memory=torch.as_tensor(rows, device=device),
            intervals=torch.zeros(size, device=device),
            types=torch.as_tensor(self._codes[types].astype(np.int64), device=device),
            text_ids=torch.zeros(0, dtype=torch.int64, device=device),
            text_offsets=torch.zeros(size + 1, dtype=torch.int64, device=device),
            frame=torch.full((size,), -1, device=device),
        )
        return self.model.embed_soft(self.model.embedding(self._type_ids[index]), content, None)

    def codes_of(self, types: NDArray[np.integer]) -> NDArray[np.integer]:
        """(N,) codes of types that are given as indices."""
        return self._codes[types]

    def _forecasts(self, states: torch.Tensor) -> ExpertForecasts:
        states = states.float().cpu()
        return ExpertForecasts((self._network,), (states,), (self._network.intervals(states),))


class SoftRollout(Rollout):
    """Forecasts the next event of futures that begin after the same past.

    Args:
        distributions: Distributions of the model.
        history: Row of one segment, the newest events of the past.
        past: All events of the sequence up to the origin, with codes of types.
        num_futures: Number of futures, N.
    """

    def __init__(
        self, distributions: SoftDistributions, history: Batch, past: PastEvents, num_futures: int
    ) -> None:
        model = distributions.model
        memory = model.settings.memory
        rows, state = memory_rows(memory, past)
        self._distributions, self._state = distributions, state.repeat(num_futures)
        self._times = np.full(num_futures, state.last_time)
        with torch.inference_mode():
            self._cache = CachedHistory.build(model, history, num_futures)
        self._forecast_after(
            self._cache.last_hidden,
            np.repeat(rows[-1:], num_futures, axis=0),
            np.full(num_futures, int(past.types[-1])),
        )

    def sample_intervals(self, rng: RandomNumbers) -> FloatArray:
        """(N,) one interval of each future, a whole number of ticks."""
        tick = self._distributions.model.settings.tick
        return round_to_ticks(self.forecasts.sample_intervals(rng), tick)

    @torch.inference_mode()
    def append(self, intervals: FloatArray, types: NDArray[np.integer]) -> None:
        """Continue every future with an event.

        Args:
            intervals: (N,) intervals in the source's unit.
            types: (N,) indices of the model's types.
        """
        self._times = self._times + intervals
        size = len(self._times)
        codes = self._distributions.codes_of(types)
        no_texts, not_first = np.zeros(size, dtype=np.int32), np.zeros(size, dtype=np.bool_)
        events = PastEvents(self._times, codes, no_texts, not_first)
        memory = self._distributions.model.settings.memory
        rows, self._state = next_rows(memory, self._state, events)
        vectors = self._distributions.embed_sampled(rows, types)
        self._forecast_after(self._cache.append_embeddings(vectors[:, None]), rows, codes)

    def _forecast_after(
        self, context: torch.Tensor, rows: NDArray[np.float32], codes: NDArray[np.integer]
    ) -> None:
        device = context.device
        self.forecasts = self._distributions.after(
            context,
            torch.as_tensor(rows, device=device),
            torch.as_tensor(codes.astype(np.int64), device=device),
        )
