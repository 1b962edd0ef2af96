"""Scoring held-out windows with the model being trained, on all ranks."""

import numpy as np
import torch
from numpy.typing import NDArray

from mmtpp.core.event_scores import score_events
from mmtpp.core.loss_sums import LossSums
from mmtpp.core.row import Row
from mmtpp.core.tasks import TASKS
from mmtpp.core.tokens import Modality
from mmtpp.data.samples.feed import iter_rows
from mmtpp.data.samples.plan import load_plan
from mmtpp.train.engine import sum_over_ranks
from mmtpp.train.worker import VALIDATING, Worker


def validate(worker: Worker, step: int) -> dict[str, float]:
    """Score the validation windows once; every rank makes equally many forward passes.

    Args:
        worker: of this rank.
        step: updates made.

    Returns:
        Losses by modality, NLL of intervals and, in stage 1, of whole events in nats an event, and
        next-type accuracy, the same on all ranks; of stage 2 those of the answers.
    """
    task, engine, batcher = worker.task, worker.engine, worker.batcher
    rank, num_ranks = worker.rank, worker.num_ranks
    assert task.validation is not None
    plan = load_plan(task.validation_plan_uri)
    type_ids = torch.tensor(worker.vocabulary.type_ids(task.type_codes), device=batcher.device)
    type_codes = np.asarray(task.type_codes)
    num_samples = len(plan.samples)
    rounds = -(-num_samples // num_ranks)
    mine = (np.arange(rounds) * num_ranks + rank) % num_samples
    counted = np.arange(rounds) * num_ranks + rank < num_samples  # the rest only keep step
    losses = LossSums.from_labels(np.zeros(0), np.zeros(0, dtype=np.int64))
    events = np.zeros(5)
    engine.model.eval()
    with torch.no_grad():
        rows = iter_rows(plan, mine, task.validation, worker.vocabulary.token_ids())
        for row, counts in zip(rows, counted.tolist(), strict=True):
            worker.watchdog.at(step, VALIDATING, "validating")
            nll_N, best_type_N = engine.score(batcher(row), type_ids)
            if not counts:
                continue
            nll = nll_N.double().cpu().numpy()
            assert best_type_N is not None
            best = type_codes[best_type_N.cpu().numpy()]
            losses += LossSums.from_labels(nll, row.modality[row.label_positions()])
            score = _score_sequence if row.branches is None else _score_answers
            events += score(row, nll, best)
    engine.model.train()
    values = torch.tensor([*losses.nll, *losses.tokens, *events], device=batcher.device)
    merged = sum_over_ranks(values).cpu().numpy()
    nll_sums, token_sums, sums = np.split(merged, [5, 10])
    num_timed, interval_nll, num_typed, right, whole_nll = sums.tolist()
    if token_sums.sum() == 0:
        raise ValueError("no validation event is a target; lower evaluation.targets_delta")
    metrics = LossSums(nll_sums, token_sums).per_token("validation")
    if num_timed:
        metrics["validation/events"] = num_timed
        metrics["validation/interval_nll_nats_per_event"] = interval_nll / num_timed
        if task.answers is None:
            metrics["validation/nll_nats_per_event"] = whole_nll / num_timed
    if num_typed:
        metrics["validation/type_accuracy"] = right / num_typed
    return metrics


def _score_sequence(
    row: Row, nll: NDArray[np.float64], best: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Events, summed interval NLL, events again, right types and summed NLL, of stage 1."""
    labels = row.label_positions()
    result = score_events(nll, row.modality[labels], row.event[labels], best)
    target = row.event_is_target[result.event]
    right = result.predicted_type == row.event_type[result.event]
    count = float(target.sum())
    interval_nll, nll = result.interval_code_nll[target].sum(), result.nll[target].sum()
    return np.array([count, interval_nll, count, right[target].sum(), nll])


def _score_answers(
    row: Row, nll: NDArray[np.float64], best: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Events asked about their time, summed interval NLL, events asked about their type and right
    types: from the history alone, or, where that is not asked, when the time is known. And 0: no
    answer is a whole event."""
    assert row.branches is not None
    labels = row.label_positions()
    task, modality, event = row.branches.task[labels], row.modality[labels], row.event[labels]
    timed = (task == TASKS["time"]) & (modality == Modality.TIME)
    for name in ("type", "joint"):
        typed = (task == TASKS[name]) & (modality == Modality.TYPE)
        if typed.any():
            break
    right = best[typed] == row.event_type[event[typed]]
    num_timed = float(len(np.unique(event[timed])))
    return np.array([num_timed, nll[timed].sum(), float(typed.sum()), right.sum(), 0.0])
