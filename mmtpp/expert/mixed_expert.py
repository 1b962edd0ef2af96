"""The expert as it is mixed into the next event and the futures of a language model.

Axes: N futures, K types of the language model.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.forecasting.gate import mix_logs
from mmtpp.core.forecasting.interval_forecasts import IntervalForecasts, IntervalGrid
from mmtpp.core.past.past_events import PastEvents
from mmtpp.expert.code_forecasts import code_forecasts
from mmtpp.expert.expert_forecasts import GRID_FACTOR
from mmtpp.expert.gated_expert import GatedExpert
from mmtpp.expert.rollout import ExpertRollout
from mmtpp.expert.sequence_state import SequenceState

FloatArray = NDArray[np.float64]


class MixedExpert:
    """Mixes the expert's forecasts into sampled futures, ``core.forecasting.futures.MixedModel``.

    Args:
        gated: The expert and the gate.
        past: All events of the sequence up to the origin; the types are indices of the expert's
            types.
        type_codes: (K,) codes of the language model's types.
        num_futures: Number of futures, N.
    """

    def __init__(
        self, gated: GatedExpert, past: PastEvents, type_codes: Sequence[int], num_futures: int
    ) -> None:
        self._gated, self._codes = gated, tuple(type_codes)
        state = SequenceState.after(gated.expert.memory, past)
        self._rollout = ExpertRollout(gated.expert, [state], num_futures)
        self._index_of = {code: index for index, code in enumerate(gated.type_codes)}
        # a type that the expert lacks cannot be in its memory, so no future has it
        self._is_known = np.isin(self._codes, gated.type_codes)

    def mix_forecasts(
        self,
        intervals: IntervalForecasts | None,
        log_probability: FloatArray | None,
        grid: IntervalGrid,
    ) -> tuple[IntervalForecasts | None, FloatArray | None]:
        """Mix the expert's forecasts of the next event into those of the language model.

        Args:
            intervals: N distributions of the interval; None if the model forecasts no times.
            log_probability: (N, K) log probability of the type; None if it forecasts no types.
            grid: Grid of the interval forecasts.

        Returns:
            The distributions and the log probabilities of the mixture, None as given.
        """
        gate, forecasts = self._gated.gate, self._rollout.forecasts
        if intervals is not None:
            of_expert = code_forecasts(forecasts, grid, tick=self._gated.expert.tick)
            intervals = intervals.mixed_with(of_expert, gate.time)
        if log_probability is not None:
            types = forecasts.on_grid(grid.coarsened(GRID_FACTOR)).type_log_probabilities()
            arranged = self._gated.arrange_types(types, self._codes)
            log_probability = mix_logs(gate.type, log_probability, arranged)
        return intervals, log_probability

    def mix_intervals(self, intervals: FloatArray, rng: np.random.Generator) -> FloatArray:
        """(N,) the given intervals, some of them replaced by intervals of the expert."""
        of_expert = self._rollout.sample_intervals(rng)
        return np.where(rng.random(len(intervals)) < self._gated.gate.time, intervals, of_expert)

    def mix_types(self, probabilities: FloatArray, intervals: FloatArray) -> FloatArray:
        """(N, K) probabilities of the types by both models, given (N,) intervals."""
        log_probabilities = self._rollout.type_log_probabilities(intervals)
        of_expert = np.exp(self._gated.arrange_types(log_probabilities, self._codes))
        weight = self._gated.gate.type
        mixed = weight * probabilities * self._is_known + (1 - weight) * of_expert
        return mixed / mixed.sum(axis=1, keepdims=True)

    def append(self, intervals: FloatArray, type_codes: NDArray[np.int16]) -> None:
        """Continue every future with an event."""
        types = np.array([self._index_of[code] for code in type_codes.tolist()])
        self._rollout.append(intervals, types)
