"""Forecasts of time, type and text for all questions of a row, in one forward pass.

Every distribution is over valid answers only: the bytes of finite, non-negative intervals, and the
types that occur. So a forecast is always valid.

Axes: Q questions of a task, K types, S expanded first bytes.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mmtpp.core.forecasting.interval_forecasts import IntervalForecasts, IntervalGrid
from mmtpp.core.representation.row import PackedRow
from mmtpp.core.representation.tasks import TASKS
from mmtpp.core.representation.tokens import Modality, TokenIds
from mmtpp.model.batch import Batch
from mmtpp.model.event_model import EventModel

NUM_FIRST_BYTES = 128  # larger first bytes encode negative numbers
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TimeForecasts:
    """Forecasts for the time questions.

    Attributes:
        event: (Q,) int32, index in the row of the event that the question is about.
        interval: Distributions of the interval.
        greedy: (Q,) the most likely first byte among those of the grid, then the most likely second
            byte: the middle of their bin. The publication decodes the other bytes, too.
        code_nll: (Q,) nats of all bytes of the true time code; NaN where the truth is unknown.
    """

    event: NDArray[np.int32]
    interval: IntervalForecasts
    greedy: FloatArray
    code_nll: FloatArray

    def split(self) -> list["TimeForecasts"]:
        """The forecast of each question."""
        columns = (self.event[:, None], self.greedy[:, None], self.code_nll[:, None])
        return [
            TimeForecasts(event, interval, greedy, code_nll)
            for (event, greedy, code_nll), interval in zip(
                zip(*columns, strict=True), self.interval.split(), strict=True
            )
        ]


@dataclass(frozen=True, slots=True)
class TypeForecasts:
    """Forecasts for the type questions.

    Attributes:
        event: (Q,) int32, index in the row of the event that the question is about.
        log_probability: (Q, K) nats.
    """

    event: NDArray[np.int32]
    log_probability: FloatArray

    def split(self) -> list["TypeForecasts"]:
        """The forecast of each question."""
        columns = (self.event[:, None], self.log_probability[:, None])
        return [TypeForecasts(*values) for values in zip(*columns, strict=True)]


@dataclass(frozen=True, slots=True)
class TextLikelihoods:
    """Likelihoods of the true texts, or of the true answers to questions in words.

    Attributes:
        event: (Q,) int32, index in the row of the event that the text is about; for an answer, the
            last event that the question is about.
        nll: (Q,) nats of the text and its end.
        num_tokens: (Q,) number of tokens of the text and its end.
    """

    event: NDArray[np.int32]
    nll: FloatArray
    num_tokens: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RowForecasts:
    """Forecasts for all questions of a row; None for tasks without questions.

    Attributes:
        time: Time of the event.
        type: Type of the event, from the history alone.
        joint: Type of the event, given its time.
        text: Likelihood of the event's text, given its time and image.
        qa: Likelihood of the answers to questions in words.
    """

    time: TimeForecasts | None
    type: TypeForecasts | None
    joint: TypeForecasts | None
    text: TextLikelihoods | None
    qa: TextLikelihoods | None

    def split(self) -> list["RowForecasts"]:
        """The forecasts of each event, where all tasks ask about the same events.

        Likelihoods of texts and answers are left out.
        """
        parts = [
            None if task is None else task.split() for task in (self.time, self.type, self.joint)
        ]
        size = max(len(part) for part in parts if part is not None)
        columns = ([None] * size if part is None else part for part in parts)
        return [
            RowForecasts(time, type_, joint, None, None)
            for time, type_, joint in zip(*columns, strict=True)
        ]


class RowForecaster:
    """Forecasts all questions of a row with one forward pass.

    Args:
        model: Model in evaluation mode.
        token_ids: Token ids of the model's vocabulary.
        type_ids: (K,) tokens of the types that occur.
        grid: Grid of the interval forecasts; rows must be expanded by its first bytes.
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
    def __call__(self, row: PackedRow, batch: Batch) -> RowForecasts:
        """Forecast the questions of a row.

        Args:
            row: PackedRow with questions.
            batch: Tensors of the same row.
        """
        assert row.questions is not None
        hidden_TD = self._model.hidden(batch)
        tasks = set(row.questions.task.tolist())
        return RowForecasts(
            time=self._time(row, hidden_TD) if TASKS["time"] in tasks else None,
            type=self._type(row, hidden_TD, "type") if TASKS["type"] in tasks else None,
            joint=self._type(row, hidden_TD, "joint") if TASKS["joint"] in tasks else None,
            text=self._text(row, hidden_TD, "text") if TASKS["text"] in tasks else None,
            qa=self._text(row, hidden_TD, "qa") if TASKS["qa"] in tasks else None,
        )

    def _time(self, row: PackedRow, hidden_TD: torch.Tensor) -> TimeForecasts:
        positions, event = _questions_of_task(row, "time")
        assert row.questions is not None
        expansion = row.questions.expansion[row.questions.task == TASKS["time"]]
        if (expansion < 0).any():
            raise ValueError("the time questions of the row have no expansions")
        first = self._log_probabilities(hidden_TD, positions, self._byte_ids[:NUM_FIRST_BYTES])
        size = len(self._grid.first_bytes)
        places = expansion[:, None] + np.arange(size)
        expected = [self._byte_of[token] for token in row.input_ids[places[:1].ravel()].tolist()]
        if expected != list(self._grid.first_bytes)[: len(expected)]:
            raise ValueError(
                f"the row is expanded by the first bytes {expected}, "
                f"the grid has {self._grid.first_bytes}"
            )
        second = self._log_probabilities(hidden_TD, places.ravel(), self._byte_ids)
        second = np.exp(second).reshape(len(positions), size, 256)
        intervals = IntervalForecasts.from_byte_probabilities(self._grid, np.exp(first), second)
        greedy = greedy_intervals(self._grid, first, intervals.mass)
        return TimeForecasts(event, intervals, greedy, self._code_nll(row, hidden_TD, first, event))

    def _code_nll(
        self, row: PackedRow, hidden_TD: torch.Tensor, first: FloatArray, event: NDArray[np.int32]
    ) -> FloatArray:
        """(Q,) nats of the true time codes, each byte normalised among the valid bytes."""
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
        later = self._log_probabilities(hidden_TD, before.ravel(), self._byte_ids)
        chosen = later[np.arange(before.size), values[:, 1:].ravel()].reshape(before.shape)
        nll[answered] -= chosen.sum(axis=1)
        return nll

    def _type(self, row: PackedRow, hidden_TD: torch.Tensor, task: str) -> TypeForecasts:
        positions, event = _questions_of_task(row, task)
        return TypeForecasts(event, self._log_probabilities(hidden_TD, positions, self._type_ids))

    def _text(self, row: PackedRow, hidden_TD: torch.Tensor, task: str) -> TextLikelihoods:
        positions, event = _questions_of_task(row, task)
        assert row.branches is not None
        labels = np.flatnonzero((row.branches.task == TASKS[task]) & row.may_be_label)
        before = row.predecessors()[labels]
        device = hidden_TD.device
        nll_N, _ = self._model.head(
            hidden_TD[torch.as_tensor(before, device=device)],
            torch.as_tensor(row.input_ids[labels].astype(np.int64), device=device),
            None,
        )
        # an answer is in the branch of its question
        branch = (row.segment.astype(np.int64) << 32) + row.branches.branch
        place = np.searchsorted(branch[positions], branch[labels])
        nll = np.bincount(place, nll_N.double().cpu().numpy(), len(event)).astype(np.float64)
        return TextLikelihoods(event, nll, np.bincount(place, minlength=len(event)))

    def _log_probabilities(
        self, hidden_TD: torch.Tensor, positions: NDArray[np.integer], ids: torch.Tensor
    ) -> FloatArray:
        """(positions, ids) nats of the tokens ``ids``, normalised among them."""
        index = torch.as_tensor(positions.astype(np.int64), device=hidden_TD.device)
        return self._model.head.choose(hidden_TD[index], ids).double().cpu().numpy()


def greedy_intervals(
    grid: IntervalGrid, first: FloatArray, mass: NDArray[np.floating]
) -> FloatArray:
    """(Q,) middle of the bin of the most likely first byte and, after it, second byte.

    Args:
        grid: Grid of G bins: one below the first code, then 256 for each of its first bytes.
        first: (Q, 128) log probabilities of the first byte.
        mass: (Q, G) probabilities of the bins.
    """
    by_byte = mass[:, 1:].reshape(len(mass), -1, 256)
    byte = first[:, list(grid.first_bytes)].argmax(axis=1)  # its place in the grid
    second = by_byte[np.arange(len(mass)), byte].argmax(axis=1)
    bins = 1 + 256 * byte + second
    middle = (grid.edges[bins] + grid.edges[bins + 1]) / 2
    return np.where(first.argmax(axis=1) == 0, 0.0, middle)  # byte 0 begins the code of 0


def _questions_of_task(row: PackedRow, task: str) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Last positions of a task's questions, and the events that the questions are about."""
    assert row.questions is not None
    is_of_task = row.questions.task == TASKS[task]
    return row.questions.at[is_of_task], row.questions.event[is_of_task]
