"""Values in memory are read like the same values in a file."""

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from PIL import Image

import mmtpp
from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import ConfigError, DataError, ModelError
from mmtpp.core.forecasting.interval_forecasts import IntervalRange
from mmtpp.model.folders.record import TrainedTasks

TEXTS = ["2024-01-01 00:00:42", "2024-01-01 00:00:58", "2024-03-01 12:30:00.25"]
# computed by hand: 19,723 days from 1970 to 2024, and 60 days more to 1 March of a leap year
SECONDS = [19723 * 86400 + 42.0, 19723 * 86400 + 58.0, 19783 * 86400 + 45000.25]
NAMES = ("start", "alarm", "stop")


def _forecaster(type_names: tuple[str, ...] = NAMES, unit: float = 1.0) -> mmtpp.Forecaster:
    trained_tasks = TrainedTasks(
        tasks=("time",),
        interval_range=IntervalRange(smallest=1.0, largest=9.0, tick=1.0),
        type_codes=(0, 1),
        type_names=type_names,
        seconds_per_unit=unit,
        trains_history=False,
    )
    return mmtpp.Forecaster("model", RunConfig(), trained_tasks, cast(Any, None))


DATES = {
    "texts": TEXTS,
    "series of texts": pd.Series(TEXTS),
    "series": pd.Series(pd.to_datetime(TEXTS, format="ISO8601")),
    "another index": pd.Series(pd.to_datetime(TEXTS, format="ISO8601"), index=[7, 8, 9]),
    "index": pd.to_datetime(TEXTS, format="ISO8601"),
    "nanoseconds": np.array(TEXTS, dtype="datetime64[ns]"),
    "microseconds": np.array(TEXTS, dtype="datetime64[us]"),
    "milliseconds": np.array(TEXTS, dtype="datetime64[ms]"),
    "UTC": pd.Series(pd.to_datetime(TEXTS, format="ISO8601")).dt.tz_localize("UTC"),
    "New York": pd.Series(pd.to_datetime(TEXTS, format="ISO8601"))
    .dt.tz_localize("UTC")
    .dt.tz_convert("America/New_York"),
    "timestamps": list(pd.to_datetime(TEXTS, format="ISO8601")),
    "datetimes": [datetime.fromisoformat(text) for text in TEXTS],
    "aware datetimes": [
        datetime.fromisoformat(text).replace(tzinfo=UTC).astimezone(timezone(timedelta(hours=9)))
        for text in TEXTS
    ],
    "scalars": list(np.array(TEXTS, dtype="datetime64[us]")),
    "objects": np.array([datetime.fromisoformat(text) for text in TEXTS], dtype=object),
    "mixed": [TEXTS[0], datetime.fromisoformat(TEXTS[1]), pd.Timestamp(TEXTS[2])],
}


@pytest.mark.parametrize("times", DATES.values(), ids=DATES)
def test_dates_are_converted_to_the_time_unit_of_the_model(times: Any):
    sequence = _forecaster().sequence(times, list(NAMES))
    assert sequence.times.tolist() == SECONDS
    minutes = _forecaster(unit=60.0)
    converted = minutes.sequence(times, list(NAMES)).times
    assert converted.tolist() == [seconds / 60 for seconds in SECONDS]


def test_a_number_among_dates_is_refused():
    with pytest.raises(DataError, match="a number among dates"):
        _forecaster().sequence([TEXTS[0], TEXTS[1], 3.0], list(NAMES))


@pytest.mark.parametrize("unit", ["s", "m", "h", "D", "W", "M", "Y"])
def test_dates_of_coarse_resolution_are_converted(unit: str):
    days = ["1971-01-01", "2024-01-01"]
    values = np.array(days, dtype="datetime64[D]").astype(f"datetime64[{unit}]")
    expected = [
        (
            datetime.combine(value.astype("datetime64[D]").item(), datetime.min.time())
            - datetime(1970, 1, 1)
        ).total_seconds()
        for value in values
    ]
    assert _forecaster().sequence(values, [0, 1]).times.tolist() == expected


def test_dates_equal_those_of_the_same_file(tmp_path: Path):
    rng = np.random.default_rng(3)
    stamps = np.sort(rng.integers(10**15, 2 * 10**15, 50)).astype("datetime64[us]")
    frame = pd.DataFrame({"at": stamps, "what": rng.choice(list(NAMES), 50)})
    frame.to_parquet(tmp_path / "events.parquet")
    forecaster = _forecaster(unit=3600.0)
    columns = {"time": "at", "type": "what"}
    [read] = forecaster.load_sequences(tmp_path / "events.parquet", columns=columns)
    built = forecaster.sequence(frame["at"], frame["what"])
    [from_frame] = forecaster.load_sequences(frame, columns=columns)
    for sequence in (built, from_frame):
        assert sequence.times.tolist() == read.times.tolist()
        assert read.types.tolist() == sequence.types.tolist()
    assert built.times[0] == stamps[0].astype(np.int64) / 10**6 / 3600


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (np.array(["2024-01-01", "NaT"], dtype="datetime64[s]"), "time 1 is missing"),
        (pd.Series(pd.to_datetime(["2024-01-01", None])), "time 1 is missing"),
        ([datetime(2024, 1, 1), pd.NaT], "time 1 is missing"),
        ([1.0, None], "time 1 is missing"),
        ([1.0, np.nan], "time 1 is missing"),
        (pd.array([1, None], dtype="Int64"), "time 1 is missing"),
        ([0, np.inf], "time 1 is inf"),
        ([0, True], "time 1 is True"),
        (np.array([False, True]), "time 0 is False"),
        (["2024-01-01", "soon"], "time 1 is 'soon'"),
        (np.array([0, 5], dtype="timedelta64[s]"), "time 0 is a duration"),
        ([timedelta(0), timedelta(1)], "time 0 is a duration"),
        (np.zeros((2, 2)), "times has 2 dimensions"),
        ("2024-01-01", "not a list"),
        (np.array(["2024-01-01", "20000-01-01"], dtype="datetime64[s]"), "cannot be read"),
    ],
)
def test_an_invalid_time_is_refused_with_its_position(times: Any, message: str):
    with pytest.raises(DataError, match=message) as caught:
        _forecaster().sequence(times, [0, 1], sequence_id="pump-0")
    assert caught.value.where == "pump-0"


@pytest.mark.parametrize(
    "times",
    [
        [0, 1.5],
        (0, 1.5),
        np.array([0, 1.5], np.float32),
        torch.tensor([0, 1.5]),
        pd.Series([0, 1.5]),
        iter([0, 1.5]),
        pd.array([0, 1.5], dtype="Float64"),
        [np.int64(0), np.float32(1.5)],
    ],
)
def test_numbers_are_in_the_time_unit_of_the_model(times: Any):
    assert _forecaster(unit=60.0).sequence(times, [0, 1]).times.tolist() == [0.0, 1.5]


@pytest.mark.parametrize(
    "types",
    [
        ["start", "stop"],
        [0, 2],
        [0.0, 2.0],
        np.array([0, 2]),
        np.array([0.0, 2.0]),
        pd.Series(["start", "stop"]),
        pd.Categorical(["start", "stop"]),
        pd.array([0, 2], dtype="Int64"),
        np.array(["start", "stop"]),
        ["start", 2],
        torch.tensor([0, 2]),
    ],
)
def test_types_are_names_or_whole_numbers(types: Any):
    assert _forecaster().sequence([0, 1], types).types.tolist() == [0, 2]


@pytest.mark.parametrize(
    "bad",
    [
        1.7,
        np.float64(1.7),
        np.float32(0.5),
        True,
        np.True_,
        None,
        np.nan,
        pd.NA,
        b"stop",
        np.inf,
        [1],
    ],
)
def test_an_invalid_type_is_refused_with_its_position(bad: Any):
    with pytest.raises(DataError, match=r"event 1 has the type"):
        _forecaster().sequence([0, 1], [0, bad])


def test_numbers_are_names_if_the_names_are_numbers():
    """The names "10", "20" and "30" have the codes 0, 1, 2; the number 20 is a name."""
    forecaster = _forecaster(("10", "20", "30"))
    assert forecaster.sequence([0, 1], [20, 30.0]).types.tolist() == [1, 2]
    assert forecaster.sequence([0, 1], ["20", "30"]).types.tolist() == [1, 2]
    with pytest.raises(DataError, match="has the type 1"):
        forecaster.sequence([0], [1])
    assert _forecaster(()).sequence([0, 1], ["3", 200]).types.tolist() == [3, 200]
    with pytest.raises(DataError, match="unknown types halt"):
        forecaster.sequence([0], ["halt"])
    with pytest.raises(DataError, match="has the type 70000"):
        _forecaster(()).sequence([0], [70000])


def test_missing_texts_are_empty_and_numbers_are_texts():
    sequence = _forecaster().sequence(
        [0, 1, 2, 3, 4],
        [0] * 5,
        texts=["a", None, np.nan, 7, pd.NA],
        images=[None, "a.png", Path("b") / "c.png", np.nan, ""],
    )
    assert sequence.texts == ("a", "", "", "7", "")
    assert sequence.images == (None, "a.png", "b/c.png", None, None)
    decimals = [Decimal("7.00"), Decimal("1.50"), Decimal("NaN")]
    assert _forecaster().sequence([0, 1, 2], [0] * 3, texts=decimals).texts == ("7", "1.5", "")
    frame = pd.DataFrame({"x": ["a", None]})
    assert _forecaster().sequence([0, 1], [0, 0], texts=frame["x"]).texts == ("a", "")
    assert _forecaster().sequence([0, 1], [0, 0], texts=None).texts == ("", "")
    with pytest.raises(DataError, match=r"event 1 has the text b'x'"):
        _forecaster().sequence([0, 1], [0, 0], texts=["a", b"x"])
    with pytest.raises(DataError, match="event 0 has the image 3"):
        _forecaster().sequence([0], [0], images=[3])


def test_columns_of_unequal_length_are_refused():
    with pytest.raises(DataError, match="times has 2 values, types has 3 values, texts has 1"):
        _forecaster().sequence([0, 1], [0, 0, 0], texts=["a"])


def test_a_table_in_memory_is_read_like_its_file(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    frame = pd.DataFrame(
        {
            "at": [3.0, 0.0, 5.0, None, 1.0],
            "car": ["b", "a", "a", "a", "gone"],
            "what": ["stop", "start", "stop", "alarm", "launch"],
            "note": ["x", None, "y", "", "z"],
            "unmapped": [{"deep": 1}, 2, "three", None, b"4"],
        },
        index=[5, 5, 5, 5, 5],
    )
    columns = {"time": "at", "sequence": "car", "type": "what", "text": "note"}
    frame[list(columns.values())].to_parquet(tmp_path / "events.parquet")
    for types in ((), NAMES):
        read = mmtpp.load_sequences(tmp_path / "events.parquet", columns=columns, types=types)
        arrow = pa.Table.from_pandas(frame[list(columns.values())], preserve_index=False)
        for source in (frame, arrow):
            caplog.clear()
            from_memory = mmtpp.load_sequences(source, columns=columns, types=types)
            assert (read.type_names, read.seconds_per_unit) == (
                from_memory.type_names,
                from_memory.seconds_per_unit,
            )
            for sequence, expected in zip(from_memory, read, strict=True):
                assert (sequence.sequence_id, sequence.texts) == (
                    expected.sequence_id,
                    expected.texts,
                )
                assert sequence.times.tolist() == expected.times.tolist()
                assert sequence.types.tolist() == expected.types.tolist()
            assert [(record.row, record.cause) for record in read.rejected] == [
                (record.row, record.cause) for record in from_memory.rejected
            ]
            assert "records rejected, by cause" in caplog.text
    assert from_memory.losses.empty_sequences == ("gone",)
    assert "sequences without any event that was kept: 1, 'gone'" in caplog.text


def test_errors_about_tables_say_what_to_do():
    frame = pd.DataFrame({"when": [1.0], "car": ["a"]})
    with pytest.raises(ConfigError, match=r"source\.columns\.time"):
        mmtpp.load_sequences(frame)
    with pytest.raises(DataError, match=r"no column 'at'; it has 'when', 'car'"):
        mmtpp.load_sequences(frame, columns={"time": "at", "sequence": "car"})
    with pytest.raises(DataError, match="no events in a table of 0 rows"):
        mmtpp.load_sequences(frame[:0], columns={"time": "when"})
    with pytest.raises(ConfigError, match="read by its columns"):
        mmtpp.load_sequences(frame, kind="mmtpp", columns={"time": "when"})
    with pytest.raises(DataError, match="several kinds"):
        mmtpp.load_sequences(pd.DataFrame({"t": [1.0, "x", b"y"]}), columns={"time": "t"})
    for wrong in ([1, 2], {"time": [1]}, 7, None):
        with pytest.raises(DataError, match=r"pandas\.DataFrame"):
            mmtpp.load_sequences(cast(Any, wrong))


def test_every_function_accepts_paths(tmp_path: Path):
    (tmp_path / "events.csv").write_text("at\n1\n2\n")
    [read] = mmtpp.load_sequences(tmp_path / "events.csv", columns={"time": "at"})
    assert read.times.tolist() == [1.0, 2.0]
    with pytest.raises(DataError, match="pathlib removes one of two slashes"):
        mmtpp.load_sequences(Path("s3://bucket/events.csv"), columns={"time": "at"})
    with pytest.raises(ModelError, match="no model in this folder"):
        mmtpp.compress(read, strategy="hybrid", model=tmp_path)
    Image.new("RGB", (9, 5)).save(tmp_path / "a.png")
    assert mmtpp.load_image(tmp_path / "a.png", image_px=28).shape == (28, 28, 3)
    with pytest.raises(DataError, match="expected a path or a URI"):
        mmtpp.Forecaster.from_pretrained(cast(Any, 7))


def test_errors_about_a_model_folder_name_the_problem(tmp_path: Path):
    missing = tmp_path / "no" / "such" / "folder"
    for path in (missing, str(missing)):
        with pytest.raises(ModelError, match="this folder does not exist") as caught:
            mmtpp.Forecaster.from_pretrained(path)
        assert caught.value.where == str(missing)
    with pytest.raises(ModelError, match="does not exist"):
        mmtpp.Forecaster.from_pretrained("")
    empty = tmp_path / "run"
    empty.mkdir()
    with pytest.raises(ModelError, match="no model in this folder"):
        mmtpp.Forecaster.from_pretrained(empty)
    (empty / "model").mkdir()
    (empty / "config.json").write_text("{}")  # configuration of the run
    with pytest.raises(ModelError, match=r"the model is in .*/run/model"):
        mmtpp.Forecaster.from_pretrained(empty)
    (empty / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="not fine-tuned to forecast"):
        mmtpp.Forecaster.from_pretrained(empty)
    with pytest.raises(ModelError, match="this is a file"):
        mmtpp.Forecaster.from_pretrained(empty / "config.json")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"base_model_name_or_path": "gone/base"}')
    with pytest.raises(ModelError, match="this folder does not exist") as caught:
        mmtpp.Forecaster.from_pretrained(adapter)
    assert caught.value.where.endswith("gone/base")
    assert "base = gone/base" in caught.value.setting


def test_a_date_without_a_time_is_midnight():
    assert _forecaster().sequence([date(1970, 1, 1), date(1970, 1, 2)], [0, 0]).times.tolist() == [
        0.0,
        86400.0,
    ]
