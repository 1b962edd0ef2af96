"""Forecasts of rows whose histories were read before: only their new tokens pass the model.

The keys and values of a history stay the same when events are appended, because every token sees
only tokens before it. The tokens of branches are never kept. Several rows pass the model together,
each attending to its own keys and values, without padding.

Axes: T tokens of a row, P of them kept, N new tokens.
"""

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mmtpp.core.representation.positions import branched_positions
from mmtpp.core.representation.row import Branches, PackedRow, QuestionColumns
from mmtpp.model.attention import Continued, Segments, attention_dtype
from mmtpp.model.batch import Batch
from mmtpp.model.event_model import EventModel
from mmtpp.model.history_keys import HistoryKeys
from mmtpp.model.row_forecaster import RowForecaster, RowForecasts

PASS_TOKENS = 1024
"""Maximum number of new tokens in one pass, unless a single row has more outside its history. It
bounds the memory of the masks."""


def can_continue(row: PackedRow) -> bool:
    """Whether the token ids of a row's history say all that the model reads of it.

    An older event and an image have content of their own.
    """
    return not len(row.frames) and (row.older is None or not len(row.older))


class ContinuedForecaster:
    """Forecasts rows, and keeps the keys and values of their histories.

    Args:
        model: Model in evaluation mode.
        forecaster: Forecaster of the same model.
    """

    def __init__(self, model: EventModel, forecaster: RowForecaster) -> None:
        self._model, self._forecaster = model, forecaster

    @torch.inference_mode()
    def __call__(
        self, rows: Sequence[PackedRow], keys: Sequence[HistoryKeys]
    ) -> list[RowForecasts]:
        """Forecast rows.

        Args:
            rows: Rows of one segment with questions about the event after the last one, each of
                which ``can_continue``.
            keys: Keys and values kept for each row, distinct objects. Afterwards they hold its
                history.

        Returns:
            The forecasts of each row.
        """
        for row, known in zip(rows, keys, strict=True):
            known.cut_to(row.history_ids)
            self._read_history(row, known)
        forecasts: list[RowForecasts] = []
        for group in _groups(rows, keys):
            of_group, known = rows[group], keys[group]
            firsts = [len(history) for history in known]
            batch = self._batch(of_group, known, [len(row.input_ids) for row in of_group])
            forecasts += self._forecaster(join_tails(of_group, firsts), batch).split()
            for row, history in zip(of_group, known, strict=True):
                history.keep(row.history_ids)
        return forecasts

    def _read_history(self, row: PackedRow, known: HistoryKeys) -> None:
        """Read a long history in parts, until what is left fits one pass."""
        ids = row.history_ids
        while len(ids) - len(known) > PASS_TOKENS:
            end = len(known) + PASS_TOKENS
            self._model.hidden(self._batch([row], [known], [end]))
            known.keep(ids[:end])

    def _batch(
        self, rows: Sequence[PackedRow], keys: Sequence[HistoryKeys], ends: Sequence[int]
    ) -> Batch:
        """The tokens of each row after the kept ones, up to ``ends``, as one packed row."""
        weight = self._model.head.weight
        device, dtype = weight.device, attention_dtype(weight.device, weight.dtype)
        ids: list[NDArray[np.int32]] = []
        positions: list[NDArray[np.int64]] = []
        continued: list[Continued] = []
        for row, known, end in zip(rows, keys, ends, strict=True):
            first = len(known)
            ids.append(row.input_ids[first:end])
            positions.append(_positions(row)[:, first:end])
            sees = torch.as_tensor(_branches(row).sees(first, end), device=device)
            mask = torch.zeros(sees.shape, device=device, dtype=dtype)
            continued.append(Continued(known, mask.masked_fill_(~sees, -torch.inf)))
        lengths = tuple(map(len, ids))
        starts = np.append(0, np.cumsum(lengths)).astype(np.int32)
        input_ids = torch.as_tensor(np.concatenate(ids).astype(np.int64), device=device)
        nothing = torch.zeros(0, dtype=torch.int64, device=device)
        return Batch(
            input_ids=input_ids[None],
            position_ids=torch.as_tensor(np.concatenate(positions, axis=1), device=device)[:, None],
            segments=Segments(
                lengths, torch.as_tensor(starts, device=device), continued=tuple(continued)
            ),
            image_mask=torch.zeros((1, len(input_ids)), dtype=torch.bool, device=device),
            pixel_values=None,
            grid=torch.zeros((0, 3), dtype=torch.int64, device=device),
            image_frame=nothing,
            labels=nothing,
            predictors=nothing,
        )


def _groups(rows: Sequence[PackedRow], keys: Sequence[HistoryKeys]) -> Iterator[slice]:
    """Neighbouring rows with at most ``PASS_TOKENS`` new tokens, at least one row each."""
    limits, num_tokens = [0], 0
    for index, (row, known) in enumerate(zip(rows, keys, strict=True)):
        size = len(row.input_ids) - len(known)
        if num_tokens and num_tokens + size > PASS_TOKENS:
            limits.append(index)
            num_tokens = 0
        num_tokens += size
    limits.append(len(rows))
    return (slice(start, end) for start, end in pairwise(limits) if end > start)


def _branches(row: PackedRow) -> Branches:
    if row.branches is None or row.questions is None:
        raise ValueError("a row without questions has no forecasts")
    return row.branches


def _positions(row: PackedRow) -> NDArray[np.int64]:
    """(3, T) positions of a row without images."""
    no_pad = np.zeros(len(row.input_ids), dtype=np.bool_)
    return branched_positions(no_pad, row.segment, _branches(row), image_side=1)


def join_tails(rows: Sequence[PackedRow], firsts: Sequence[int]) -> PackedRow:
    """One packed row of the last tokens of rows, a segment each, with their questions.

    Args:
        rows: Rows of one segment, without images, whose questions are among the last tokens.
        firsts: First token of each row that is left.
    """
    sizes = np.array([len(row.input_ids) - first for row, first in zip(rows, firsts, strict=True)])
    moved = np.cumsum(sizes) - sizes - np.asarray(firsts)  # from a place in a row to the joined one

    def tokens(name: str) -> NDArray[Any]:
        columns = (getattr(row, name)[first:] for row, first in zip(rows, firsts, strict=True))
        return np.concatenate(list(columns))

    def of_branches(name: str) -> NDArray[Any]:
        columns = (
            getattr(_branches(row), name)[first:] for row, first in zip(rows, firsts, strict=True)
        )
        return np.concatenate(list(columns))

    asked = [row.questions for row in rows if row.questions is not None]
    by = np.repeat(moved, [len(questions.at) for questions in asked]).astype(np.int32)
    expansion = np.concatenate([questions.expansion for questions in asked])
    return replace(
        rows[0],
        input_ids=tokens("input_ids"),
        modality=tokens("modality"),
        segment=np.repeat(np.arange(len(rows), dtype=np.int32), sizes),
        event=tokens("event"),
        may_be_label=tokens("may_be_label"),
        branches=Branches(*(of_branches(field.name) for field in fields(Branches))),
        questions=QuestionColumns(
            at=np.concatenate([questions.at for questions in asked]) + by,
            event=np.concatenate([questions.event for questions in asked]),
            task=np.concatenate([questions.task for questions in asked]),
            expansion=np.where(expansion < 0, expansion, expansion + by),
        ),
    )
