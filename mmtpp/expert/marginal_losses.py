"""The losses of the training distribution on validation events: what an expert must beat."""

from collections.abc import Iterable

import numpy as np

from mmtpp.core.forecasting.interval_forecasts import IntervalRange
from mmtpp.core.forecasting.training_distribution import TrainingDistribution
from mmtpp.core.times.clock import round_to_ticks
from mmtpp.expert.network_losses import NetworkLosses
from mmtpp.expert.next_events import EventBlocks, ScoredSequence


def marginal_losses(
    training: EventBlocks, validation: EventBlocks, *, num_types: int
) -> NetworkLosses:
    """Mean negative log-likelihood of validation events in the distribution of training events.

    It is that of the baseline ``marginal``: smoothed intervals and frequencies of types, without
    any history.

    Args:
        training: Training events; at least one interval is above zero.
        validation: Validation events.
        num_types: Number of types.
    """
    tick = training.tick
    intervals, types = _scored_events(training)
    held_out, held_out_types = _scored_events(validation)
    positive = np.concatenate([intervals, held_out])
    positive = positive[positive > 0]
    span = IntervalRange(float(positive.min()), float(positive.max()), tick)
    grid = span.grid(num_bytes=2)
    fitted = TrainingDistribution.fit(intervals, types, grid, num_types, tick=tick)
    interval_nll = fitted.interval_nll(held_out, grid, tick=tick)
    type_nll = -fitted.type_logs[held_out_types]
    return NetworkLosses(float(interval_nll.mean()), float(type_nll.mean()), len(held_out))


def _scored_events(blocks: EventBlocks) -> tuple[np.ndarray, np.ndarray]:
    """(N,) intervals in the source's unit, and (N,) types of all scored events."""
    parts = [
        (_scored_intervals(sequence, blocks.tick), sequence.past.types[sequence.is_target])
        for sequence in _sequences(blocks)
    ]
    intervals, types = zip(*parts, strict=True)
    return np.concatenate(intervals), np.concatenate(types)


def _scored_intervals(sequence: ScoredSequence, tick: float) -> np.ndarray:
    times = sequence.past.times
    intervals = round_to_ticks(np.diff(times, prepend=times[0]), tick)
    return intervals[sequence.is_target]


def _sequences(blocks: EventBlocks) -> Iterable[ScoredSequence]:
    return (sequence for block in blocks.blocks for sequence in block)
