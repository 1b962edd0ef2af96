"""Forecasts of a row's questions: what the model says of time, type and text, in one forward pass.

Every distribution is over valid answers only: the bytes of finite, non-negative intervals, and the
types that occur. So nothing the model says is ever invalid.

Axes: Q questions of a task, K types, S expanded first bytes.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mmtpp.core.interval_forecasts import IntervalForecasts, IntervalGrid
from mmtpp.core.row import Row
from mmtpp.core.tasks import TASKS
from mmtpp.core.tokens import Modality, TokenIds
from mmtpp.model.batch import Batch
from mmtpp.model.event_model import EventModel

NUM_FIRST_BYTES = 128  # the others are of negative numbers
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TimeForecasts:
    """Answers to the time questions.

    Attributes:
        event: (Q,) int32, event of the row each is about.
        interval: the distributions.
        greedy: (Q,) the interval of the most likely bytes, one after the other, as published.
        code_nll: (Q,) nats of the true time code, all of its bytes; NaN where there is none.
    """

    event: NDArray[np.int32]
    interval: IntervalForecasts
    greedy: FloatArray
    code_nll: FloatArray


@dataclass(frozen=True, slots=True)
class TypeForecasts:
    """Answers to the type questions.

    Attributes:
        event: (Q,) int32, event of the row each is about.
        log_probability: (Q, K) nats.
    """

    event: NDArray[np.int32]
    log_probability: FloatArray


@dataclass(frozen=True, slots=True)
class TextScores:
    """Likelihoods of the true texts, or of the answers in words.

    Attributes:
        event: (Q,) int32, event of the row each is about; of an answer, the last it is about.
        nll: (Q,) nats of the text and its end.
        num_tokens: (Q,) of the text and its end.
    """

    event: NDArray[np.int32]
    nll: FloatArray
    num_tokens: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RowForecasts:
    """Answers to all questions of a row; a task that was not asked has none.

    Attributes:
        time: when the event comes.
        type: its type, from the history alone.
        joint: its type when its time is known.
        text: its text when its time and image are known.
        qa: answers to questions in words.
    """

    time: TimeForecasts | None
    type: TypeForecasts | None
    joint: TypeForecasts | None
    text: TextScores | None
    qa: TextScores | None


class Forecaster:
    """Reads forecasts off a model.

    Args:
        model: in evaluation mode.
        token_ids: of its vocabulary.
        type_ids: (K,) tokens of the types that occur.
        grid: of the interval forecasts; rows must have its first bytes as expansions.
    """

    def __init__(
        self, model: EventModel, token_ids: TokenIds, type_ids: list[int], grid: IntervalGrid
    ) -> None:
        self._model = model
        self._grid = grid
        device = model.head.weight.device
        self._byte_ids = torch.tensor(token_ids.byte_ids, device=device)
        self._type_ids = torch.tensor(type_ids, device=device)
        self._byte_of = {token: byte for byte, token in enumerate(token_ids.byte_ids)}

    @torch.inference_mode()
    def __call__(self, row: Row, batch: Batch) -> RowForecasts:
        """Forecast what a row asks.

        Args:
            row: with questions.
            batch: of the row.
        """
        assert row.questions is not None
        hidden_TD = self._model.hidden(batch)
        tasks = set(row.questions.task.tolist())
        return RowForecasts(
            self._time(row, hidden_TD) if TASKS["time"] in tasks else None,
            self._type(row, hidden_TD, "type") if TASKS["type"] in tasks else None,
            self._type(row, hidden_TD, "joint") if TASKS["joint"] in tasks else None,
            self._text(row, hidden_TD, "text") if TASKS["text"] in tasks else None,
            self._text(row, hidden_TD, "qa") if TASKS["qa"] in tasks else None,
        )

    def _time(self, row: Row, hidden_TD: torch.Tensor) -> TimeForecasts:
        at, event = _asked(row, "time")
        assert row.questions is not None
        expansion = row.questions.expansion[row.questions.task == TASKS["time"]]
        if (expansion < 0).any():
            raise ValueError("the time questions have no expansions")
        first = self._choose(hidden_TD, at, self._byte_ids[:NUM_FIRST_BYTES])
        size = len(self._grid.first_bytes)
        places = expansion[:, None] + np.arange(size)
        expected = [self._byte_of[token] for token in row.input_ids[places[:1].ravel()].tolist()]
        if expected != list(self._grid.first_bytes)[: len(expected)]:
            raise ValueError(f"the row expands {expected}, the grid is {self._grid.first_bytes}")
        second = self._choose(hidden_TD, places.ravel(), self._byte_ids)
        second = np.exp(second).reshape(len(at), size, 256)
        intervals = IntervalForecasts.from_byte_probabilities(self._grid, np.exp(first), second)
        best = intervals.mass[:, 1:].reshape(len(at), size, 256)
        likeliest = np.exp(first)[:, list(self._grid.first_bytes)].argmax(axis=1)
        step = 1 + likeliest * 256 + best[np.arange(len(at)), likeliest].argmax(axis=1)
        greedy = (self._grid.edges[step] + self._grid.edges[step + 1]) / 2
        greedy = np.where(np.exp(first).argmax(axis=1) == 0, 0.0, greedy)
        return TimeForecasts(event, intervals, greedy, self._code_nll(row, hidden_TD, first, event))

    def _code_nll(
        self, row: Row, hidden_TD: torch.Tensor, first: FloatArray, event: NDArray[np.int32]
    ) -> FloatArray:
        """Nats of the answers, byte by byte among the valid ones."""
        assert row.branches is not None
        places = np.flatnonzero(
            (row.branches.task == TASKS["time"]) & (row.modality == Modality.TIME)
        )
        nll = np.full(len(event), np.nan)
        if not len(places):
            return nll
        answered = np.flatnonzero(np.isin(event, row.event[places]))
        places = places.reshape(len(answered), -1)
        values = np.array(
            [[self._byte_of[token] for token in code] for code in row.input_ids[places].tolist()]
        )
        nll[answered] = -first[answered, values[:, 0]]
        before = row.predecessors()[places[:, 1:]]
        later = self._choose(hidden_TD, before.ravel(), self._byte_ids)
        chosen = later[np.arange(before.size), values[:, 1:].ravel()].reshape(before.shape)
        nll[answered] -= chosen.sum(axis=1)
        return nll

    def _type(self, row: Row, hidden_TD: torch.Tensor, task: str) -> TypeForecasts:
        at, event = _asked(row, task)
        return TypeForecasts(event, self._choose(hidden_TD, at, self._type_ids))

    def _text(self, row: Row, hidden_TD: torch.Tensor, task: str) -> TextScores:
        at, event = _asked(row, task)
        assert row.branches is not None
        labels = np.flatnonzero((row.branches.task == TASKS[task]) & row.scored)
        before = row.predecessors()[labels]
        device = hidden_TD.device
        nll_N, _ = self._model.head(
            hidden_TD[torch.as_tensor(before, device=device)],
            torch.as_tensor(row.input_ids[labels].astype(np.int64), device=device),
            None,
        )
        # an answer stands in the branch of its question
        branch = (row.segment.astype(np.int64) << 32) + row.branches.branch
        place = np.searchsorted(branch[at], branch[labels])
        nll = np.bincount(place, nll_N.double().cpu().numpy(), len(event)).astype(np.float64)
        return TextScores(event, nll, np.bincount(place, minlength=len(event)))

    def _choose(
        self, hidden_TD: torch.Tensor, at: NDArray[np.integer], ids: torch.Tensor
    ) -> FloatArray:
        """(positions, choices) nats."""
        places = torch.as_tensor(at.astype(np.int64), device=hidden_TD.device)
        return self._model.head.choose(hidden_TD[places], ids).double().cpu().numpy()


def _asked(row: Row, task: str) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Where the questions of a task end, and which events they are about."""
    assert row.questions is not None
    chosen = row.questions.task == TASKS[task]
    return row.questions.at[chosen], row.questions.event[chosen]
