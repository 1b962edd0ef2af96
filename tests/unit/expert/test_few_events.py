"""Few training events: enough updates, and an expert that is compared with the marginal."""

import logging
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest

from mmtpp.core.forecasting.interval_forecasts import IntervalRange
from mmtpp.core.past.event_memory import MemorySettings
from mmtpp.core.past.past_events import PastEvents
from mmtpp.core.point_processes.history import History
from mmtpp.core.training.training_metrics import VALIDATION_JOINT_NLL, VALIDATION_MARGINAL_NLL
from mmtpp.evaluate.baselines.marginal import Marginal
from mmtpp.expert.batch_order import BatchOrder
from mmtpp.expert.expert_folder import Expert
from mmtpp.expert.fit import ExpertFit
from mmtpp.expert.marginal_losses import marginal_losses
from mmtpp.expert.next_events import EventBlocks, ScoredSequence
from mmtpp.train.expert_metrics import final_metrics, warn_below_marginal
from tests.helpers.small_experts import TICK, SmallFit, alternating_sequences, finish


def _histories(sequences: list[ScoredSequence]) -> list[History]:
    return [
        History(sequence.sequence_id, sequence.past.times, sequence.past.types.astype(int), TICK)
        for sequence in sequences
    ]


def test_an_epoch_of_few_events_has_several_updates(small: SmallFit):
    order = BatchOrder(small.training, events_per_step=1024, seed=0)
    assert order.events_per_epoch == 20 * 59
    assert order.steps_per_epoch == 8
    sizes = [batch.size for batch in islice(order.batches(0), 8)]
    assert sum(sizes) == order.events_per_epoch
    tiny = EventBlocks.from_sequences(small.memory, alternating_sequences(3, 0), tick=TICK)
    order = BatchOrder(tiny, events_per_step=1024, seed=0)
    assert order.steps_per_epoch == 6  # 177 events, about 32 in an update
    assert BatchOrder(small.training, events_per_step=59, seed=0).steps_per_epoch == 20


def test_the_marginal_of_a_training_is_the_baseline(small: SmallFit):
    """The baseline of evaluations, which scores one event after the other."""
    sequences = [
        _histories(alternating_sequences(number, seed)) for number, seed in ((20, 0), (5, 1))
    ]
    training, validation = sequences
    intervals = np.concatenate([history.intervals for history in training + validation])
    span = IntervalRange(float(intervals.min()), float(intervals.max()), TICK)
    grid = span.grid(num_bytes=2)
    marginal = Marginal.fit(training, grid, 2, tick=TICK)
    time_nll, type_nll = [], []
    for history in validation:
        [forecasts] = marginal.forecast_intervals(history, grid)
        time_nll.append(forecasts.nll(history.intervals, tick=TICK))
        logs = marginal.forecast_types(history)
        type_nll.append(-logs[np.arange(len(logs)), history.types[1:]])
    losses = small.build().marginal_losses()
    assert losses is not None
    assert losses.interval_nll == pytest.approx(np.concatenate(time_nll).mean())
    assert losses.type_nll == pytest.approx(np.concatenate(type_nll).mean())
    assert losses.num_events == 5 * 59


def _finished(small: SmallFit, **changes: Any) -> dict[str, float]:
    settings = replace(small.settings, **changes)
    fit = finish(ExpertFit(small.training, small.validation, num_types=2, settings=settings))
    return final_metrics(fit, Expert(small.memory, TICK, tuple(fit.networks())))


def test_an_expert_that_learned_nothing_says_so(small: SmallFit, caplog: pytest.LogCaptureFixture):
    metrics = _finished(small, num_networks=1, max_steps=1, learning_rate=1e-9)
    with caplog.at_level(logging.WARNING):
        warn_below_marginal(metrics, where="s3://bucket/store")
    [record] = caplog.records
    message = record.getMessage()
    assert "s3://bucket/store" in message
    for name in (VALIDATION_JOINT_NLL, VALIDATION_MARGINAL_NLL):
        assert f"{metrics[name]:.3f}" in message


def test_an_expert_that_learned_does_not_warn(small: SmallFit, caplog: pytest.LogCaptureFixture):
    metrics = _finished(small, num_networks=1)
    warn_below_marginal(metrics, where="s3://bucket/store")
    assert metrics[VALIDATION_JOINT_NLL] < metrics[VALIDATION_MARGINAL_NLL]
    assert not caplog.records


def test_without_validation_events_nothing_is_compared(small: SmallFit):
    settings = replace(small.settings, num_networks=1, epochs=1)
    fit = finish(ExpertFit(small.training, None, num_types=2, settings=settings))
    metrics = final_metrics(fit, Expert(small.memory, TICK, tuple(fit.networks())))
    assert VALIDATION_MARGINAL_NLL not in metrics
    warn_below_marginal(metrics, where="s3://bucket/store")


def test_the_marginal_of_simultaneous_events_without_a_clock():
    times = np.array([0.0, 1.5, 1.5, 4.25])
    past = PastEvents.from_sequence(times, np.array([0, 0, 1, 0]), np.zeros(4, dtype=np.int64))
    memory = MemorySettings.fit(past, tick=0.0, seconds_per_unit=1.0)
    sequence = ScoredSequence("a", past, np.arange(4) > 0)
    blocks = EventBlocks.from_sequences(memory, [sequence], tick=0.0)
    losses = marginal_losses(blocks, blocks, num_types=2)
    # two of three intervals are positive; every type has half a pseudo-event
    assert losses.type_nll == pytest.approx(-(2 * np.log(2.5 / 4) + np.log(1.5 / 4)) / 3)
    assert np.isfinite(losses.interval_nll)
