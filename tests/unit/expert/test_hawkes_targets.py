"""Targets drawn from a Hawkes process: their share, their order, and what few events gain."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch

from mmtpp.core.past.event_memory import MemorySettings
from mmtpp.core.past.past_events import PastEvents
from mmtpp.core.point_processes.hawkes import Hawkes
from mmtpp.core.point_processes.history import History
from mmtpp.core.point_processes.next_event_draws import NextEventDraws
from mmtpp.expert.batch_order import BatchOrder
from mmtpp.expert.fit import ExpertFit
from mmtpp.expert.hawkes_targets import HawkesTargets
from mmtpp.expert.next_events import EventBlocks, NextEvents, ScoredSequence
from tests.helpers.small_experts import SETTINGS, TICK, SmallFit, finish


def _targets(events: NextEvents) -> torch.Tensor:
    return torch.stack([events.next_intervals.double(), events.next_types.double()])


@pytest.fixture(scope="module")
def drawn(small: SmallFit) -> HawkesTargets:
    return HawkesTargets.fit(small.training, num_types=2, fraction=0.6)


def _order(small: SmallFit, drawn: HawkesTargets | None) -> BatchOrder:
    return BatchOrder(small.training, events_per_step=100, seed=0, drawn=drawn)


def test_a_share_of_the_targets_is_drawn_anew_in_every_epoch(small: SmallFit, drawn):
    order = _order(small, drawn)
    size = order.steps_per_epoch
    real = [_targets(batch.events) for batch in islice(_order(small, None).batches(0), 2 * size)]
    drawing = order.batches(0, num_steps=10**9)  # the share does not fall yet
    batches = [batch.events for batch in islice(drawing, 2 * size)]
    is_kept = torch.cat(
        [(_targets(ours) == theirs).all(0) for ours, theirs in zip(batches, real, strict=True)]
    )
    # some draws equal the event that occurred
    assert 0.4 <= is_kept.double().mean() < 0.46
    first, second = is_kept.split(order.events_per_epoch)
    assert not torch.equal(first, second)
    steps = torch.cat([batch.next_intervals for batch in batches]).double() / TICK
    assert torch.allclose(steps, steps.round(), atol=1e-3)


def test_the_share_falls_to_nothing(small: SmallFit, drawn):
    order = _order(small, drawn)
    size = order.steps_per_epoch
    batches = order.batches(0, num_steps=6 * size)
    real = _order(small, None).batches(0)
    numbers = []
    for ours, theirs in islice(zip(batches, real, strict=False), 5 * size):
        is_kept = (_targets(ours.events) == _targets(theirs.events)).all(0)
        numbers.append(float((~is_kept).sum()))
    by_epoch = np.array(numbers).reshape(5, size).sum(axis=1) / order.events_per_epoch
    # the mean share of an epoch, of which 5 % are draws that equal the event
    assert by_epoch[:4] == pytest.approx(0.6 * np.array([0.875, 0.625, 0.375, 0.125]), abs=0.06)
    assert by_epoch[4] == 0


def test_draws_depend_neither_on_ranks_nor_on_the_start(small: SmallFit, drawn):
    whole = [batch.events for batch in islice(_order(small, drawn).batches(0, num_steps=40), 30)]
    later = [batch.events for batch in islice(_order(small, drawn).batches(17, num_steps=40), 13)]
    for before, after in zip(whole[17:], later, strict=True):
        assert torch.equal(_targets(before), _targets(after))
    ranks = [
        islice(_order(small, drawn).batches(0, rank, 2, num_steps=40), 30) for rank in range(2)
    ]
    for events, *parts in zip(whole, *ranks, strict=True):
        joined = torch.cat([_targets(part.events) for part in parts], dim=1)
        assert torch.equal(_targets(events), joined)


def test_without_a_tick_no_interval_of_zero_is_drawn(small: SmallFit):
    blocks = EventBlocks(small.memory, 0.0, small.training.blocks)
    targets = HawkesTargets.fit(blocks, num_types=2, fraction=0.99)
    events, index = blocks.load(0), np.arange(200)
    chosen = targets.replace(
        events.take(index), index, targets.draws(0), 0.99, np.random.default_rng(0)
    )
    assert (chosen.next_intervals > 0).all()


def _simulate(process: Hawkes, number: int, seed: int, num_events: int) -> list[ScoredSequence]:
    """Sequences of a process, drawn event by event."""
    rng = np.random.default_rng(seed)
    sequences = []
    for index in range(number):
        times, types = [0.0], [int(rng.integers(len(process.mu)))]
        while len(times) < num_events:
            history = History("", np.array(times), np.array(types))
            draws = NextEventDraws(process, [history], [np.array([len(times) - 1])])
            [interval], [kind] = draws.draw(np.array([0]), rng, tick=0.01)
            times.append(round(times[-1] + interval, 2))
            types.append(int(kind))
        past = PastEvents.from_sequence(
            np.array(times), np.array(types), np.zeros(num_events, dtype=np.int64)
        )
        sequences.append(ScoredSequence(f"{seed}-{index}", past, np.arange(num_events) > 0))
    return sequences


def test_a_process_that_does_not_fit_costs_nothing(small: SmallFit):
    """Types in turn with short and long intervals: no sum of decays can say that."""
    losses = {}
    for fraction in (0.0, 0.9):
        settings = replace(SETTINGS, num_networks=1, epochs=60, hawkes_fraction=fraction)
        fit = ExpertFit(small.training, small.validation, num_types=2, settings=settings)
        result = finish(fit).validation_losses(fit.networks())
        assert result is not None
        losses[fraction] = result.nll
    assert losses[0.9] < losses[0.0] + 0.05


def test_few_events_of_a_hawkes_process_are_learnt_better_with_draws():
    process = Hawkes(
        beta=np.array([0.05, 3.0]),
        mu=np.array([0.05, 0.05, 0.02]),
        alpha=np.random.default_rng(3).uniform(0, 0.3, (3, 3, 2)),
    )
    training = _simulate(process, 10, 0, 40)
    past = PastEvents.join(sequence.past for sequence in training)
    memory = MemorySettings.fit(past, tick=0.01, seconds_per_unit=1.0)
    blocks, validation, test = (
        EventBlocks.from_sequences(memory, sequences, tick=0.01)
        for sequences in (training, _simulate(process, 3, 1, 40), _simulate(process, 15, 2, 40))
    )
    losses = {}
    for fraction in (0.0, 0.9):
        settings = replace(SETTINGS, num_networks=1, epochs=60, hawkes_fraction=fraction)
        fit = ExpertFit(blocks, validation, num_types=3, settings=settings)
        finish(fit)
        scored = ExpertFit(blocks, test, num_types=3, settings=settings)
        result = scored.validation_losses(fit.networks())
        assert result is not None
        losses[fraction] = result.nll
    assert losses[0.9] < losses[0.0] - 0.01
