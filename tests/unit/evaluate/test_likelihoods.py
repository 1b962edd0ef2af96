"""Losses and perplexities of windows, by hand."""

import numpy as np
import pyarrow as pa
import pytest

from mmtpp.evaluate.actors.window_scorer import WINDOW_SCHEMA
from mmtpp.evaluate.likelihoods import WindowScores, loss_metrics


def _window(nll: list[float], num_tokens: list[float], num_events: int, *targets: tuple) -> dict:
    """A window with the sequence and the time of each target."""
    return {
        "nll": nll,
        "num_tokens": num_tokens,
        "num_events": num_events,
        "targets": [{"sequence_id": name, "time": time} for name, time in targets],
    }


def _merge(*windows: dict) -> WindowScores:
    """Merge windows that arrive one by one."""
    tables = [pa.Table.from_pylist([window], WINDOW_SCHEMA) for window in windows]
    return WindowScores.from_windows(pa.concat_tables(tables))


def test_perplexities_leave_out_tokens_of_the_template():
    # nats and labels of each window: masked, time, type, text, control
    windows = _merge(
        _window([0, 6, 2, 4, 30], [0, 4, 2, 5, 8], 2, ("a", 1.0), ("a", 2.0)),
        # the second window compresses two of its three events
        _window([0, 2, 1, 1, 10], [0, 2, 1, 2, 4], 3, ("a", 5.0)),
    )
    metrics = loss_metrics(windows.losses, num_events=windows.num_events)
    assert metrics["likelihood/content_nll_nats_per_event"] == pytest.approx(
        (6 + 2 + 4 + 2 + 1 + 1) / 5
    )
    assert metrics["likelihood/nll_nats_per_event"] == pytest.approx(56 / 5)
    assert metrics["likelihood/perplexity_per_token"] == pytest.approx(np.exp(16 / 16))
    assert metrics["likelihood/time_loss_per_token"] == pytest.approx(8 / 6)
    assert metrics["likelihood/loss_per_token"] == pytest.approx(56 / 28)


def test_windows_may_arrive_in_any_order():
    windows = [
        _window([0, 0.1, 0, 0, 0], [0, 1, 0, 0, 0], 2, ("b", 1.0), ("b", 3.0)),
        _window([0, 0.7, 0, 0, 0], [0, 2, 0, 0, 0], 1),  # without a target
        _window([0, 1e16, 0, 0, 0], [0, 3, 0, 0, 0], 1, ("a", 2.0)),
        _window([0, 0.3, 0, 0, 0], [0, 4, 0, 0, 0], 4, ("b", 2.0)),
    ]
    forward, backward = _merge(*windows), _merge(*reversed(windows))
    places = [
        (row["sequence_id"], row["time"])
        for row in forward.targets.select(["sequence_id", "time"]).to_pylist()
    ]
    assert places == [("a", 2.0), ("b", 1.0), ("b", 2.0), ("b", 3.0)]
    assert forward.targets == backward.targets
    assert forward.num_events == backward.num_events == 8
    counts = [part.losses.num_labels.tolist() for part in (forward, backward)]
    assert counts == [[0, 10, 0, 0, 0]] * 2
    # by the first target; a window without targets is last
    assert forward.losses.nll[1] == backward.losses.nll[1] == 1e16 + 0.1 + 0.3 + 0.7
