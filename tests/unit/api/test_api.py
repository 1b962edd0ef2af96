"""The Python API: sequences from files, and similar events computed by hand."""

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

import mmtpp
from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import ConfigError, DataError, ModelError
from mmtpp.core.forecasting.interval_forecasts import IntervalRange
from mmtpp.model.folders.record import TrainedTasks
from mmtpp.model.tokens.vocabulary import train_tokenizer


def test_every_public_name_can_be_imported():
    assert all(getattr(mmtpp, name) is not None for name in mmtpp.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Forecster'"):
        _ = mmtpp.Forecster  # pyright: ignore[reportAttributeAccessIssue]


def test_a_table_is_loaded_as_sequences(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "events.csv"
    path.write_text("at,car,what\n3,b,stop\n0,a,go\n5,a,stop\n1,a,\n")
    columns = {"time": "at", "sequence": "car", "type": "what"}
    sequences = mmtpp.load_sequences(str(path), columns=columns, seconds_per_unit=60)
    assert sequences.type_names == ("stop", "go")
    assert sequences.seconds_per_unit == 60
    assert {sequence.sequence_id: sequence.times.tolist() for sequence in sequences} == {
        "a": [0.0, 5.0],
        "b": [3.0],
    }
    assert {sequence.sequence_id: sequence.types.tolist() for sequence in sequences} == {
        "a": [1, 0],
        "b": [0],
    }
    [rejected] = sequences.rejected
    assert (rejected.cause, rejected.row, rejected.path) == ("missing_type", 3, "events.csv")
    assert "'missing_type': 1" in caplog.text
    assert "2 sequences, 3 events, 1 records rejected, types stop, go" in repr(sequences)
    assert len(sequences[1:]) == 1


def test_a_forecaster_loads_events_with_its_types_and_unit(tmp_path: Path):
    """Types have the codes of the model; types that the model does not know are rejected."""
    path = tmp_path / "events.csv"
    path.write_text("at,car,what\n0,a,start\n5,a,alarm\n6,a,reboot\n")
    columns = {"time": "at", "sequence": "car", "type": "what"}

    def forecaster(type_names: tuple[str, ...]) -> mmtpp.Forecaster:
        trained_tasks = TrainedTasks(
            tasks=("time",),
            interval_range=IntervalRange(smallest=1.0, largest=9.0, tick=1.0),
            type_codes=(0, 1),
            type_names=type_names,
            seconds_per_unit=60.0,
            trains_history=False,
        )
        return mmtpp.Forecaster("model", RunConfig(), trained_tasks, cast(Any, None))

    sequences = forecaster(("start", "alarm")).load_sequences(str(path), columns=columns)
    assert (sequences.seconds_per_unit, sequences.type_names) == (60.0, ("start", "alarm"))
    assert [sequence.types.tolist() for sequence in sequences] == [[0, 1]]
    [rejected] = sequences.rejected
    assert rejected.cause == "unknown_type"
    with pytest.raises(ModelError, match=r"the types are alarm, reboot, start; .* nameless"):
        forecaster(()).load_sequences(str(path), columns=columns)


def test_images_are_loaded_from_any_working_directory(tmp_path: Path):
    Image.new("RGB", (9, 5), (10, 20, 30)).save(tmp_path / "a.png")
    event = {"time": 0.0, "text": "x", "image_path": "a.png", "TPP_attribute": {"event_type": 0}}
    (tmp_path / "one.json").write_text(json.dumps([event]))
    [sequence] = mmtpp.load_sequences(str(tmp_path))
    [image] = sequence.images
    assert image
    assert mmtpp.load_image(image, image_px=28).shape == (28, 28, 3)
    with pytest.raises(DataError, match=r"one\.json"):
        mmtpp.load_image(str(tmp_path / "one.json"), image_px=28)
    with pytest.raises(DataError, match="no events") as caught:
        mmtpp.load_sequences(str(tmp_path), columns={"time": "t"})
    assert caught.value.where == str(tmp_path)
    with pytest.raises(ConfigError, match="no event store"):
        mmtpp.load_sequences(str(tmp_path), split="test")


def test_similar_events_equal_those_computed_by_hand(tmp_path: Path):
    # intervals 0 1 1.1 5 5.05 1 differ from the one before by 1 .1 3.9 .05 4.05
    times = np.cumsum([0, 1, 1.1, 5, 5.05, 1])
    texts = ("one", "two words", "two words", "x", "other text", "x")
    sequence = mmtpp.EventSequence("a", times, np.zeros(6, np.int16), texts, (None,) * 6)
    marks = mmtpp.compress(sequence, delta=0.2)
    assert marks.tolist() == [False, False, True, False, True, False]
    assert not mmtpp.compress(sequence, strategy="none").any()
    with pytest.raises(ConfigError, match="name a model"):
        mmtpp.compress(sequence, strategy="hybrid")
    (tmp_path / "tokenizer.json").write_text(train_tokenizer(texts, size=300))
    hybrid = mmtpp.compress(sequence, strategy="hybrid", delta=0.2, model=str(tmp_path))
    assert hybrid.tolist() == [False, False, True, False, False, False]
    with pytest.raises(ConfigError, match="delta"):
        mmtpp.compress(sequence, delta=-1.0)
