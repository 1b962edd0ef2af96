"""The columns of forecasts are the same whatever one batch happens to hold; parts do not matter."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mmtpp.config.load import config_from_tree
from mmtpp.config.schema import PredictionSection
from mmtpp.core.forecasting.interval_forecasts import IntervalRange
from mmtpp.model.folders.record import TrainedTasks
from mmtpp.predict.forecast_files import write_forecasts
from mmtpp.predict.forecast_result import forecast_schema
from mmtpp.predict.predict import _without_held_out


def _answers(*tasks: str) -> TrainedTasks:
    return TrainedTasks(
        tasks, IntervalRange(1.0, 9.0, 1.0), (0, 1), ("a", "b"), 60.0, trains_history=False
    )


def test_batches_with_and_without_future_events_go_together():
    schema = forecast_schema(_answers("time", "joint"), PredictionSection(num_futures=2))
    some = {"sequence_id": "a", "futures": [[{"time": 1.0, "type": "x"}], []]}
    none = {"sequence_id": "b", "futures": [[], []]}
    table = pa.concat_tables([pa.Table.from_pylist([row], schema) for row in (some, none)])
    assert table["futures"].to_pylist() == [some["futures"], none["futures"]]


def test_there_is_a_column_for_what_the_model_answers():
    levels = PredictionSection(quantiles=(0.025, 0.5))
    time = forecast_schema(_answers("time"), levels).names
    assert {"interval_mean", "interval_q2.5", "interval_q50", "simultaneous"} <= set(time)
    assert not {"type", "futures"} & set(time)
    kind = forecast_schema(_answers("type"), levels).names
    assert {"type", "type_probabilities"} <= set(kind)
    assert "interval_mean" not in kind


def test_new_events_need_no_splits_and_none_is_held_out(tmp_path: Path):
    """Settings of the training go with new events: none is held out, and none needs a split."""
    (tmp_path / "today.csv").write_text("t\n1\n")
    tree = {
        "source": {"kind": "columns", "uri": str(tmp_path), "columns": {"time": "t"}},
        "split": {"by": "time", "test_from": "2024-01-01"},
    }
    whole = {
        "by": "hash",
        "validation_fraction": 0.0,
        "test_fraction": 0.0,
        "validation_from": "",
        "test_from": "",
    }
    assert _without_held_out(config_from_tree(tree)).split.model_dump() == whole
    tree["split"] = {"by": "given"}
    assert _without_held_out(config_from_tree(tree)).split.model_dump() == whole
    for name in ("TODAY.CSV", "today.csv.gz"):  # names of files are read as prepare reads them
        (tmp_path / "today.csv").rename(tmp_path / name)
        assert _without_held_out(config_from_tree(tree)).split.model_dump() == whole
        (tmp_path / name).rename(tmp_path / "today.csv")
    # as given, equal ids of train.csv and test.csv stay apart
    (tmp_path / "today.csv").unlink()
    for name in ("train.csv", "test.csv", "README.md"):
        (tmp_path / name).write_text("t\n1\n")
    assert _without_held_out(config_from_tree(tree)).split.by == "given"


def test_fewer_forecasts_leave_no_file_of_the_job_before(tmp_path: Path):
    uri, prediction = str(tmp_path / "forecasts"), PredictionSection(sequences_per_file=10)
    for num_sequences in (25, 5):
        tables = iter([pa.table({"sequence_id": list(range(num_sequences))})])
        assert write_forecasts(tables, uri, prediction) == num_sequences
    (file,) = (tmp_path / "forecasts").iterdir()
    assert len(pq.read_table(file)) == 5
