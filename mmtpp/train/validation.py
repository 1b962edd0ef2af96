"""Scores held-out windows with the model in training, on all ranks."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from mmtpp.core.event_scores import score_events
from mmtpp.core.loss_sums import LossSums
from mmtpp.core.row import Row
from mmtpp.core.tasks import TASKS
from mmtpp.core.tokens import Modality
from mmtpp.core.training_metrics import (
    VALIDATION,
    VALIDATION_EVENT_NLL,
    VALIDATION_EVENTS,
    VALIDATION_INTERVAL_NLL,
    VALIDATION_TYPE_ACCURACY,
)
from mmtpp.data.samples.feed import iter_rows
from mmtpp.data.samples.plan import load_plan
from mmtpp.train.engine import sum_over_ranks
from mmtpp.train.worker import VALIDATING, Worker

NUM_EVENT_SUMS = 5  # values that the functions below return for a row


def validate(worker: Worker, step: int) -> dict[str, float]:
    """Score the validation windows once; every rank makes the same number of forward passes.

    Args:
        worker: This rank.
        step: Number of updates made.

    Returns:
        Losses by modality, interval NLL and next-type accuracy; in stage 1 also the NLL of whole
        events in nats per event. The values are the same on all ranks. In stage 2 they are those of
        the answers.
    """
    engine, device = worker.engine, worker.batcher.device
    type_codes = np.asarray(worker.task.type_codes)
    type_ids = torch.tensor(worker.vocabulary.type_ids(worker.task.type_codes), device=device)
    losses = LossSums.from_labels(np.zeros(0), np.zeros(0, dtype=np.int64))
    event_sums = np.zeros(NUM_EVENT_SUMS)
    engine.model.eval()
    with torch.no_grad():
        for row, is_counted in _rows(worker):
            worker.watchdog.enter(step, VALIDATING, "validating")
            nll_N, best_type_N = engine.score(worker.batcher(row), type_ids)
            if not is_counted:
                continue
            nll = nll_N.double().cpu().numpy()
            assert best_type_N is not None
            best_types = type_codes[best_type_N.cpu().numpy()]
            losses += LossSums.from_labels(nll, row.modality[row.label_positions()])
            score = _score_sequence if row.branches is None else _score_answers
            event_sums += score(row, nll, best_types)
    engine.model.train()
    values = torch.tensor([*losses.nll, *losses.tokens, *event_sums], device=device)
    merged = sum_over_ranks(values).cpu().numpy()
    nll_sums, token_sums, event_sums = np.split(merged, [5, 10])
    if token_sums.sum() == 0:
        raise ValueError("no validation event is a target; lower evaluation.targets_delta")
    metrics = LossSums(nll_sums, token_sums).per_token(VALIDATION)
    return metrics | _event_metrics(event_sums, whole_events=worker.task.trained_tasks is None)


def _rows(worker: Worker) -> Iterator[tuple[Row, bool]]:
    """Validation rows of this rank, and whether each is counted.

    Ranks with fewer rows repeat some uncounted, to make the same number of forward passes.
    """
    assert worker.task.validation is not None
    plan = load_plan(worker.task.validation_plan_uri)
    num_samples = len(plan.samples)
    num_rounds = -(-num_samples // worker.num_ranks)
    positions = np.arange(num_rounds) * worker.num_ranks + worker.rank
    token_ids = worker.vocabulary.token_ids()
    rows = iter_rows(plan, positions % num_samples, worker.task.validation, token_ids)
    return zip(rows, (positions < num_samples).tolist(), strict=True)


def _event_metrics(event_sums: NDArray[np.float64], *, whole_events: bool) -> dict[str, float]:
    num_timed, interval_nll, num_typed, num_right, whole_nll = event_sums.tolist()
    metrics: dict[str, float] = {}
    if num_timed:
        metrics[VALIDATION_EVENTS] = num_timed
        metrics[VALIDATION_INTERVAL_NLL] = interval_nll / num_timed
        if whole_events:
            metrics[VALIDATION_EVENT_NLL] = whole_nll / num_timed
    if num_typed:
        metrics[VALIDATION_TYPE_ACCURACY] = num_right / num_typed
    return metrics


def _score_sequence(
    row: Row, nll: NDArray[np.float64], best_types: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Stage 1: number of events, summed interval NLL, number of events, right types, summed NLL."""
    labels = row.label_positions()
    scores = score_events(nll, row.modality[labels], row.event[labels], best_types)
    is_target = row.event_is_target[scores.event]
    is_right = scores.predicted_type == row.event_type[scores.event]
    count = float(is_target.sum())
    interval_nll, whole_nll = scores.interval_code_nll[is_target].sum(), scores.nll[is_target].sum()
    return np.array([count, interval_nll, count, is_right[is_target].sum(), whole_nll])


def _score_answers(
    row: Row, nll: NDArray[np.float64], best_types: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Stage 2: time questions, their summed interval NLL, type questions, right types.

    Types are predicted from the history alone if the row asks for that, else given the time. The
    fifth value is 0: no answer is a whole event.
    """
    assert row.branches is not None
    labels = row.label_positions()
    task, modality, event = row.branches.task[labels], row.modality[labels], row.event[labels]
    is_timed = (task == TASKS["time"]) & (modality == Modality.TIME)
    for name in ("type", "joint"):
        is_typed = (task == TASKS[name]) & (modality == Modality.TYPE)
        if is_typed.any():
            break
    is_right = best_types[is_typed] == row.event_type[event[is_typed]]
    num_timed = float(len(np.unique(event[is_timed])))
    return np.array([num_timed, nll[is_timed].sum(), float(is_typed.sum()), is_right.sum(), 0.0])
