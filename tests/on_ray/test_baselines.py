"""Classical baselines in tasks of the cluster: the same numbers as here, and none of the work."""

import logging

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from mmtpp.evaluate.baselines import baseline_tasks
from mmtpp.evaluate.baselines.baseline_tasks import BaselineTasks
from mmtpp.evaluate.baselines.classical import Baselines, baseline_targets
from mmtpp.evaluate.baselines.history import History
from tests.on_ray.settings import make_config


def _histories(names: str, seed: int) -> list[History]:
    rng = np.random.default_rng(seed)
    return [
        History(name, np.cumsum(rng.integers(0, 9, 30).astype(float)), rng.integers(0, 3, 30))
        for name in names
    ]


def test_tasks_fit_and_forecast_beside_the_driver(cluster, monkeypatch, caplog):
    train, test = _histories("abcdefgh", 0), _histories("uvwxyz", 1)
    targets = pa.table(
        {"sequence_id": ["z", "u", "u"], "position": pa.array([29, 7, 2], pa.int32())}
    )
    expected = baseline_targets(train, test, targets, tick=1.0, num_types=3)
    monkeypatch.setattr(baseline_tasks, "BLOCK_EVENTS", 40)  # several tasks

    def not_here(*arguments: object, **named: object) -> None:
        pytest.fail("the driver works")

    for name in ("fit", "forecast"):
        monkeypatch.setattr(Baselines, name, not_here)
    with caplog.at_level(logging.INFO):
        tasks = BaselineTasks(make_config(), train, test, tick=1.0, num_types=3)
        found = tasks.targets(targets)
    assert expected.keys() == found.keys()
    for name, table in expected.items():
        pd.testing.assert_frame_equal(table.to_pandas(), found[name].to_pandas(), rtol=1e-6)
    assert "evaluate: fit of baselines: 3 types" in caplog.text
    assert "evaluate: baselines: 2 tasks" in caplog.text


def test_without_training_sequences_the_model_stands_alone(cluster, caplog):
    targets = pa.table({"sequence_id": ["z"], "position": pa.array([1], pa.int32())})
    tasks = BaselineTasks(make_config(), [], _histories("z", 1), tick=1.0, num_types=3)
    assert tasks.targets(targets) == {}
    assert "nothing to train baselines on" in caplog.text
