"""Roll-out: possible futures of a sequence, event after event, on one cached history.

The history passes the model once; its keys and values are shared by all futures. For every event
the questions are asked on top of the cache and taken off again, then the event itself is added.

Axes: N futures.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mmtpp.core.events import NO_FRAME, Events
from mmtpp.core.interval_forecasts import IntervalGrid
from mmtpp.core.template import Template
from mmtpp.model.batch import Batch
from mmtpp.model.cached_history import CachedHistory, same_for_all
from mmtpp.model.event_model import EventModel
from mmtpp.model.next_event_scores import NUM_FIRST_BYTES

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Futures:
    """N possible continuations; the events of each up to the horizon.

    Attributes:
        intervals: (N, S) waiting times, in the source's unit.
        types: (N, S) type codes.
        is_within: (N, S) events up to the horizon; the others were drawn and lie beyond it.
        nll: (N, S) nats of the first two bytes of each interval and of each type, as they were
            drawn.
        type_chances: (N, S, K) probability of every type where one was drawn.
    """

    intervals: FloatArray
    types: NDArray[np.int16]
    is_within: NDArray[np.bool_]
    nll: FloatArray
    type_chances: FloatArray


class Roller:
    """Draws futures from a fine-tuned model.

    New events have no text and no image, and are written in full, however the history is
    compressed. Digits of a time beyond the first two bytes are drawn evenly.

    Args:
        model: in evaluation mode, asked for ``time`` and ``type`` or ``joint`` in training.
        template: how events and questions are written (``asked``).
        type_codes: types to choose from.
        type_ids: their tokens.
        grid: of the intervals.
        joint: the model knows the type when the time is known; otherwise from the history alone.
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
        allowed = np.zeros(NUM_FIRST_BYTES)
        allowed[[0, *grid.first_bytes]] = 1.0
        self._allowed = allowed

    @torch.inference_mode()
    def __call__(
        self,
        history: Batch,
        *,
        num_futures: int,
        horizon: float,
        max_events: int,
        rng: np.random.Generator,
    ) -> Futures:
        """Draw futures.

        Args:
            history: one plain segment whose last event is there in full.
            num_futures: N.
            horizon: from the last event on, in the source's unit.
            max_events: of a future; those that reach it may end before the horizon.
            rng: draws.
        """
        state = CachedHistory.of(self._model, history, num_futures)
        elapsed = np.zeros(num_futures)
        drawn: list[tuple[NDArray, ...]] = []
        while len(drawn) < max_events and (elapsed <= horizon).any():
            intervals, types, nll, chances = self._next(state, num_futures, rng)
            elapsed = elapsed + intervals
            drawn.append((intervals, types, elapsed <= horizon, nll, chances))
            state.feed(self._written(intervals, types))
        columns = [np.stack(column, axis=1) for column in zip(*drawn, strict=True)]
        return Futures(*columns)

    def _next(
        self, state: CachedHistory, size: int, rng: np.random.Generator
    ) -> tuple[FloatArray, NDArray[np.int16], FloatArray, FloatArray]:
        """The next event of every future; the state is as before."""
        ids, layout = self._template.ids, self._template.layout
        place = state.length
        hidden = state.feed(same_for_all((ids.time_prediction, *layout.turn), size))
        first = np.exp(self._choose(hidden, self._byte_ids[:NUM_FIRST_BYTES])) * self._allowed
        first /= first.sum(axis=1, keepdims=True)
        byte = _draw(first, rng)
        hidden = state.feed(self._byte_ids[torch.as_tensor(byte)].cpu().numpy()[:, None])
        second = np.exp(self._choose(hidden, self._byte_ids))
        following = _draw(second, rng)
        rows = np.arange(size)
        chance = first[rows, byte] * np.where(byte == 0, 1.0, second[rows, following])
        step = np.maximum(byte - self._grid.first_bytes[0], 0) * 256 + following + 1
        low, high = self._grid.edges[step], self._grid.edges[step + 1]
        intervals = np.where(byte == 0, 0.0, low + rng.random(size) * (high - low))
        if self._joint:
            codes = self._template.time_ids(intervals)
            state.cut(state.length - 1)  # the byte is part of the whole code
            state.feed(np.concatenate([codes, same_for_all(layout.answer_close, size)], axis=1))
        else:
            state.cut(place)
        hidden = state.feed(same_for_all((ids.type_prediction, *layout.turn), size))
        state.cut(place)
        types = np.exp(self._choose(hidden, self._type_ids))
        chosen = _draw(types, rng)
        nll = -np.log(chance) - np.log(types[rows, chosen])
        return intervals, self._codes[chosen], nll, types

    def _written(self, intervals: FloatArray, types: NDArray[np.int16]) -> NDArray[np.int32]:
        """(N, L) the tokens of one event of each future."""
        prefix = len(self._template.prefix)
        rows = []
        for interval, kind in zip(intervals, types, strict=True):
            event = Events(
                intervals=np.array([interval]),
                types=np.array([kind], dtype=np.int16),
                text_ids=np.zeros(0, dtype=np.int32),
                text_offsets=np.zeros(2, dtype=np.int64),
                frames=np.array([NO_FRAME], dtype=np.int32),
                similar=np.zeros(1, dtype=np.bool_),
            )
            rows.append(self._template.write(event).ids[prefix:])
        return np.stack(rows)

    def _choose(self, hidden_ND: torch.Tensor, ids: torch.Tensor) -> FloatArray:
        return self._model.head.choose(hidden_ND, ids).double().cpu().numpy()


def _draw(probabilities: FloatArray, rng: np.random.Generator) -> NDArray[np.int64]:
    """(N,) one index from each row of (N, K)."""
    cumulated = np.cumsum(probabilities, axis=1)
    draws = rng.random(len(probabilities))[:, None] * cumulated[:, -1:]
    return (cumulated <= draws).sum(axis=1)
