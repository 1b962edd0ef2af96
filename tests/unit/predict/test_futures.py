"""Futures need a model that was trained to answer time, and type or joint: wherever one asks."""

from pathlib import Path

import numpy as np
import pytest

from mmtpp.api.forecaster import Forecaster
from mmtpp.config.load import config_from_tree
from mmtpp.core.errors import ConfigError
from mmtpp.core.events import EventSequence
from mmtpp.core.forecasting.interval_forecasts import IntervalRange
from mmtpp.core.representation.tasks import check_futures
from mmtpp.model.folders.record import TrainedTasks, write_template
from mmtpp.model.tokens.vocabulary import train_tokenizer
from mmtpp.predict.predict import predict

CANNOT = [("time",), ("type", "joint"), ("qa",), ("time", "text"), ()]
CAN = [("time", "type"), ("time", "joint"), ("time", "type", "text")]


@pytest.mark.parametrize("tasks", CANNOT)
def test_a_model_without_time_or_type_draws_no_futures(tasks: tuple[str, ...]):
    with pytest.raises(ConfigError) as caught:
        check_futures(tasks, setting="evaluation.num_futures = 2", where="s3://bucket/model")
    message = str(caught.value)
    assert "time, and type or joint" in message
    assert "evaluation.num_futures = 2" in message
    assert "s3://bucket/model" in message
    assert (", ".join(tasks) or "no task") in message


@pytest.mark.parametrize("tasks", CAN)
def test_a_model_with_time_and_type_draws_futures(tasks: tuple[str, ...]):
    check_futures(tasks, setting="evaluation.num_futures = 2")


def _forecaster(tasks: tuple[str, ...]) -> Forecaster:
    trained_tasks = TrainedTasks(
        tasks, IntervalRange(1.0, 9.0, 1.0), (0,), ("a",), 60.0, trains_history=False
    )
    return Forecaster("model", config_from_tree({}), trained_tasks, None)  # pyright: ignore[reportArgumentType] # the check comes before the model


@pytest.mark.parametrize("tasks", CANNOT)
def test_the_interface_says_the_same(tasks: tuple[str, ...]):
    events = EventSequence("a", np.array([1.0]), np.array([0], dtype=np.int16), ("",), (None,))
    with pytest.raises(ConfigError, match=r"(?s)time, and type or joint.*futures = 3"):
        _forecaster(tasks).forecast(events, futures=3)


@pytest.mark.parametrize("tasks", [("time",), ("type", "joint")])
def test_the_predict_job_says_the_same_before_it_prepares_anything(
    tmp_path: Path, tasks: tuple[str, ...]
):
    model, raw = tmp_path / "model", tmp_path / "raw"
    model.mkdir()
    raw.mkdir()
    (model / "tokenizer.json").write_text(train_tokenizer(["a text"], size=260))
    settings = {
        "run": {"storage_uri": str(tmp_path / "runs")},
        "source": {"kind": "mmtpp", "uri": str(raw)},
        "model": {"path": str(model)},
        "prediction": {"num_futures": 3},
    }
    config = config_from_tree(settings)
    trained_tasks = TrainedTasks(
        tasks, IntervalRange(1.0, 9.0, 1.0), (0,), ("a",), 60.0, trains_history=False
    )
    write_template(config.sample_sections, model, trained_tasks)
    with pytest.raises(ConfigError, match=r"(?s)time, and type or joint.*num_futures = 3"):
        predict(config)
    assert not list(tmp_path.glob("runs/*/store"))
