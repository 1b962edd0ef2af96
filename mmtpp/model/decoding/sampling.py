"""Futures of a sequence, sampled event by event on one cached history.

The model processes the history once, and all futures share its keys and values. For every event the
questions are appended to the cache and removed again; then the sampled event is appended.

Axes: N futures, S events of a future, K types, L tokens of an event.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mmtpp.core.events import NO_FRAME, Events
from mmtpp.core.forecasting.futures import Futures, MixedModel, draw
from mmtpp.core.forecasting.interval_forecasts import IntervalGrid
from mmtpp.core.representation.template import Template
from mmtpp.model.batch import Batch
from mmtpp.model.decoding.cached_history import CachedHistory, repeat_tokens
from mmtpp.model.event_model import EventModel
from mmtpp.model.history_keys import HistoryKeys
from mmtpp.model.row_forecaster import NUM_FIRST_BYTES

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _SampledEvents:
    """The next event of every future.

    Attributes:
        intervals: (N,) intervals, in the source's unit.
        types: (N,) type codes.
        nll: (N,) nats of the first two bytes of the interval, and of the type.
        type_probabilities: (N, K) probability of every type.
    """

    intervals: FloatArray
    types: NDArray[np.int16]
    nll: FloatArray
    type_probabilities: FloatArray


class FutureSampler:
    """Samples futures from a fine-tuned model.

    Sampled events have no text and no image, and are written in full, also when the history is
    compressed. Digits of an interval after the first two bytes are uniformly distributed.

    Args:
        model: Model in evaluation mode, trained on ``time`` and on ``type`` or ``joint``.
        template: Template of events and questions, with ``has_questions``.
        type_codes: Codes of the types to choose from.
        type_ids: Tokens of these types.
        grid: Grid of the intervals.
        joint: Whether the type is predicted given the time (task ``joint``), and not from the
            history alone (task ``type``).
    """

    def __init__(
        self,
        model: EventModel,
        template: Template,
        type_codes: Sequence[int],
        type_ids: Sequence[int],
        grid: IntervalGrid,
        *,
        joint: bool,
    ) -> None:
        self._model, self._template, self._grid, self._joint = model, template, grid, joint
        device = model.head.weight.device
        self._codes = np.asarray(type_codes, dtype=np.int16)
        self._type_ids = torch.tensor(list(type_ids), device=device)
        self._byte_ids = torch.tensor(template.ids.byte_ids, device=device)
        mask = np.zeros(NUM_FIRST_BYTES)
        mask[[0, *grid.first_bytes]] = 1.0
        self._first_byte_mask = mask

    @torch.inference_mode()
    def __call__(
        self,
        history: Batch,
        *,
        num_futures: int,
        horizon: float,
        max_events: int,
        rng: np.random.Generator,
        mixed: MixedModel | None = None,
        last_time: float | None = None,
        known: HistoryKeys | None = None,
    ) -> Futures:
        """Sample futures.

        Args:
            history: Batch of one row, with one segment, no branches and a complete last event.
            num_futures: Number of futures, N.
            horizon: Time after the last event that the futures cover, in the source's unit.
            max_events: Maximum number of events in one future. A future that reaches it may end
                before the horizon.
            rng: Source of random numbers.
            mixed: Another model that is mixed with this one; None for none.
            last_time: Time of the last event, in the source's unit; only a template with a calendar
                needs it.
            known: Kept keys and values of the history, see ``CachedHistory.build``.

        Raises:
            ValueError: The template has a calendar, and there is no ``last_time``.
        """
        cache = CachedHistory.build(self._model, history, num_futures, known)
        elapsed = np.zeros(num_futures)
        events: list[_SampledEvents] = []
        is_within: list[NDArray[np.bool_]] = []
        while len(events) < max_events and (elapsed <= horizon).any():
            sampled = self._sample_events(cache, num_futures, rng, mixed)
            elapsed = elapsed + sampled.intervals
            events.append(sampled)
            is_within.append(elapsed <= horizon)
            times = None if last_time is None else last_time + elapsed
            cache.append(self._write_events(sampled, times))
            if mixed is not None:
                mixed.append(sampled.intervals, sampled.types)
        return Futures(
            intervals=np.stack([sampled.intervals for sampled in events], axis=1),
            types=np.stack([sampled.types for sampled in events], axis=1),
            is_within=np.stack(is_within, axis=1),
            nll=np.stack([sampled.nll for sampled in events], axis=1),
            type_probabilities=np.stack([sampled.type_probabilities for sampled in events], axis=1),
        )

    def _sample_events(
        self,
        cache: CachedHistory,
        size: int,
        rng: np.random.Generator,
        mixed: MixedModel | None,
    ) -> _SampledEvents:
        """Sample the next event of every future; the cache is the same afterwards."""
        layout = self._template.layout
        length = cache.length
        intervals, probability = self._sample_intervals(cache, size, rng)
        if mixed is not None:
            intervals = mixed.mix_intervals(intervals, rng)
            probability = np.full(size, np.nan)
        if self._joint:
            codes = self._template.time_ids(intervals)
            cache.crop(cache.length - 1)  # the whole code includes the first byte
            cache.append(np.concatenate([codes, repeat_tokens(layout.answer_close, size)], axis=1))
        else:
            cache.crop(length)
        type_question = (self._template.ids.type_prediction, *layout.turn)
        hidden = cache.append(repeat_tokens(type_question, size))
        cache.crop(length)
        type_probabilities = np.exp(self._log_probabilities(hidden, self._type_ids))
        if mixed is not None:
            type_probabilities = mixed.mix_types(type_probabilities, intervals)
        chosen = draw(type_probabilities, rng)
        nll = -np.log(probability) - np.log(type_probabilities[np.arange(size), chosen])
        return _SampledEvents(intervals, self._codes[chosen], nll, type_probabilities)

    def _sample_intervals(
        self, cache: CachedHistory, size: int, rng: np.random.Generator
    ) -> tuple[FloatArray, FloatArray]:
        """Sample the next interval of every future, and append its question and first byte.

        Returns:
            intervals: (N,) intervals, in the source's unit.
            probability: (N,) probability of the first two bytes of each interval.
        """
        question = (self._template.ids.time_prediction, *self._template.layout.turn)
        hidden = cache.append(repeat_tokens(question, size))
        first_probabilities = np.exp(
            self._log_probabilities(hidden, self._byte_ids[:NUM_FIRST_BYTES])
        )
        first_probabilities = first_probabilities * self._first_byte_mask
        first_probabilities /= first_probabilities.sum(axis=1, keepdims=True)
        first_byte = draw(first_probabilities, rng)
        hidden = cache.append(self._byte_ids[torch.as_tensor(first_byte)].cpu().numpy()[:, None])
        second_probabilities = np.exp(self._log_probabilities(hidden, self._byte_ids))
        second_byte = draw(second_probabilities, rng)
        rows = np.arange(size)
        is_zero = first_byte == 0
        probability = first_probabilities[rows, first_byte] * np.where(
            is_zero, 1.0, second_probabilities[rows, second_byte]
        )
        step = np.maximum(first_byte - self._grid.first_bytes[0], 0) * 256 + second_byte + 1
        low, high = self._grid.edges[step], self._grid.edges[step + 1]
        intervals = np.where(is_zero, 0.0, low + rng.random(size) * (high - low))
        return intervals, probability

    def _write_events(self, sampled: _SampledEvents, times: FloatArray | None) -> NDArray[np.int32]:
        """(N, L) tokens of the sampled event of every future, at (N,) times."""
        prefix = len(self._template.prefix)
        rows = []
        for future, (interval, code) in enumerate(
            zip(sampled.intervals, sampled.types, strict=True)
        ):
            event = Events(
                intervals=np.array([interval]),
                types=np.array([code], dtype=np.int16),
                text_ids=np.zeros(0, dtype=np.int32),
                text_offsets=np.zeros(2, dtype=np.int64),
                frames=np.array([NO_FRAME], dtype=np.int32),
                similar=np.zeros(1, dtype=np.bool_),
                times=None if times is None else times[future : future + 1],
            )
            rows.append(self._template.write(event).ids[prefix:])
        return np.stack(rows)

    def _log_probabilities(self, hidden_ND: torch.Tensor, ids: torch.Tensor) -> FloatArray:
        """(N, K) nats of the tokens ``ids``, normalised among them."""
        return self._model.head.choose(hidden_ND, ids).double().cpu().numpy()
