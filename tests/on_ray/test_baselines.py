"""Classical baselines in tasks of the cluster give the same numbers as in the driver."""

import logging

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from mmtpp.core.point_processes.history import History
from mmtpp.evaluate.baselines import baseline_tasks
from mmtpp.evaluate.baselines.baseline_tasks import BaselineTasks
from mmtpp.evaluate.baselines.classical import Baselines
from tests.helpers.baselines import forecast_with_baselines


def _histories(names: str, seed: int) -> list[History]:
    rng = np.random.default_rng(seed)
    return [
        History(name, np.cumsum(rng.integers(0, 9, 30).astype(float)), rng.integers(0, 3, 30))
        for name in names
    ]


def test_tasks_fit_and_forecast_instead_of_the_driver(cluster, monkeypatch, caplog):
    train, test = _histories("abcdefgh", 0), _histories("uvwxyz", 1)
    targets = pa.table(
        {"sequence_id": ["z", "u", "u"], "position": pa.array([29, 7, 2], pa.int32())}
    )
    expected = forecast_with_baselines(train, test, targets, tick=1.0, num_types=3)
    monkeypatch.setattr(baseline_tasks, "BLOCK_EVENTS", 40)  # several tasks

    def fail(*arguments: object, **named: object) -> None:
        pytest.fail("the driver did the work of a task")

    for name in ("fit", "forecast"):
        monkeypatch.setattr(Baselines, name, fail)
    with caplog.at_level(logging.INFO):
        tasks = BaselineTasks(test, tick=1.0, num_types=3, machine_labels={})
        tasks.start_fit(train)
        tables = tasks.forecast_targets(targets)
    assert tables.keys() == expected.keys()
    for name, table in expected.items():
        pd.testing.assert_frame_equal(tables[name].to_pandas(), table.to_pandas(), rtol=1e-6)
    assert "evaluate: fit of baselines: 3 types" in caplog.text
    assert "evaluate: baselines: 2 tasks" in caplog.text


def test_without_training_sequences_there_are_no_baselines(cluster, caplog):
    targets = pa.table({"sequence_id": ["z"], "position": pa.array([1], pa.int32())})
    test = _histories("z", 1)
    tasks = BaselineTasks(test, tick=1.0, num_types=3, machine_labels={})
    tasks.start_fit([])
    assert tasks.forecast_targets(targets) == {}
    assert "there are no baselines" in caplog.text
