"""The baseline that is given the lengths of texts."""

import numpy as np
import pytest

from benchmarks.quality.controls import MIN_EVENTS, ContextMarginal, TextHistory
from mmtpp.core.forecasting.interval_forecasts import IntervalRange
from mmtpp.core.point_processes.history import History


def _sequence(name: str, lengths: list[int], *, seed: int) -> TextHistory:
    """Events whose text of n tokens is followed by an interval of n seconds."""
    kinds = np.random.default_rng(seed).integers(0, 2, len(lengths))
    times = np.append(0.0, np.cumsum(lengths[:-1]))
    return TextHistory(History(name, times.astype(float), kinds, 1.0), np.array(lengths))


def test_a_context_is_the_type_and_the_bin_of_the_length():
    text = _sequence("a", [0, 1, 4, 5, 200, 3], seed=0)
    kinds = text.history.types
    bins = [0, 1, 1, 2, 7]
    assert text.contexts(2).tolist() == [2 * b + k for b, k in zip(bins, kinds[:-1], strict=True)]


def test_intervals_follow_the_length_of_the_last_text():
    lengths = [3, 30] * (4 * MIN_EVENTS)
    grid = IntervalRange(1.0, 100.0, 1.0).grid(num_bytes=2)
    model = ContextMarginal.fit([_sequence("a", lengths, seed=0)], grid, 2, tick=1.0)
    assert len(model.by_context) == 4
    targets = model.forecast(_sequence("b", [3, 30, 3, 30, 100, 3], seed=1))
    assert targets["position"].to_pylist() == [1, 2, 3, 4, 5]
    assert targets["interval"].to_pylist() == [3.0, 30.0, 3.0, 30.0, 100.0]
    medians = targets["quantile_50"].to_numpy()
    assert medians[:4] == pytest.approx([3.0, 30.0, 3.0, 30.0], rel=0.05)
    losses = targets["time_nll"].to_numpy()
    assert max(losses[:4]) < 0.3
    # no training event has a text of this length: the marginal of all events
    assert losses[4] > 3
    assert 3.0 < targets["mean"].to_numpy()[4] < 30.0
