"""Scoring held-out windows with the model being trained, on all ranks."""

import numpy as np
import torch

from mmtpp.core.scores import LossSums, score_events
from mmtpp.data.feed import iter_rows
from mmtpp.data.plan import load_plan
from mmtpp.train.engine import sum_over_ranks
from mmtpp.train.worker import VALIDATING, Worker


def validate(worker: Worker, step: int) -> dict[str, float]:
    """Score the validation windows once; every rank makes equally many forward passes.

    Args:
        worker: of this rank.
        step: updates made.

    Returns:
        Losses by modality, interval NLL in nats an event and next-type accuracy, the same on all
        ranks.
    """
    task, engine, batcher = worker.task, worker.engine, worker.batcher
    rank, num_ranks = worker.rank, worker.num_ranks
    assert task.validation is not None
    plan = load_plan(task.validation_plan_uri)
    type_ids = torch.tensor(worker.vocabulary.type_ids(task.type_codes), device=batcher.device)
    num_samples = len(plan.samples)
    rounds = -(-num_samples // num_ranks)
    mine = (np.arange(rounds) * num_ranks + rank) % num_samples
    counted = np.arange(rounds) * num_ranks + rank < num_samples  # the rest only keep step
    losses = LossSums.of(np.zeros(0), np.zeros(0, dtype=np.int64))
    events = np.zeros(3)  # scored, interval NLL, right types
    engine.model.eval()
    with torch.no_grad():
        rows = iter_rows(plan, mine, task.validation, worker.vocabulary.token_ids())
        for row, counts in zip(rows, counted.tolist(), strict=True):
            worker.watchdog.at(step, VALIDATING, "validating")
            nll_N, best_type_N = engine.score(batcher(row), type_ids)
            if not counts:
                continue
            labels = row.label_positions()
            modality, event = row.modality[labels], row.event[labels]
            nll = nll_N.double().cpu().numpy()
            assert best_type_N is not None
            best = best_type_N.cpu().numpy()
            result = score_events(nll, modality, event, best)
            losses += LossSums.of(nll, modality)
            target = row.event_is_target[result.event]
            codes = np.asarray(task.type_codes)[result.predicted_type]
            right = codes == row.event_type[result.event]
            events += [target.sum(), result.interval_nll[target].sum(), right[target].sum()]
    engine.model.train()
    values = torch.tensor([*losses.nll, *losses.tokens, *events], device=batcher.device)
    merged = sum_over_ranks(values).cpu().numpy()
    nll_sums, token_sums, (num_events, interval_nll, right) = np.split(merged, [5, 10])
    if num_events == 0:
        raise ValueError("no validation event is a target; lower evaluation.targets_delta")
    return {
        **LossSums(nll_sums, token_sums).per_token("validation"),
        "validation/events": float(num_events),
        "validation/interval_nll_nats_per_event": float(interval_nll / num_events),
        "validation/type_accuracy": float(right / num_events),
    }
