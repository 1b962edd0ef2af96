"""The tracker with an SQLite database of MLflow."""

import json
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from mmtpp.core.errors import ConfigError, StoppedError
from mmtpp.track.mlflow_tracker import MlflowTracker
from mmtpp.track.tracker import TrackedData


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Folder with one database; MLflow needs seconds to create its tables."""
    return tmp_path_factory.mktemp("tracking")


def _tracker(folder: object, name: str, parent: str | None = "") -> MlflowTracker:
    tracker = MlflowTracker(
        f"sqlite:///{folder}/mlflow.db",
        experiment="test",
        run_key=name,
        run_name=name,
        run_uri=f"{folder}/{name}",
        parent_run_id=parent or "",
    )
    assert tracker.wait_for_run(60.0)
    return tracker


def test_a_run_is_found_by_its_key_and_closes_only_the_named_children(folder):
    parent = _tracker(folder, "parent")
    names = ("stopped", "running", "ended")
    children = {name: _tracker(folder, name, parent.run_id) for name in names}
    children["ended"].close("FINISHED")
    children["stopped"].detach()  # its process has ended, its run is still open
    children["running"].detach()
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")

    def state() -> list[tuple[str, str | None]]:
        runs = [client.get_run(children[name].run_id) for name in names]
        return [(run.info.status, run.data.tags.get("mmtpp.stopped")) for run in runs]

    again = _tracker(folder, "parent")
    assert again.run_id == parent.run_id
    again.close_children("fell behind", run_name="stopped")
    again.detach()
    assert state() == [("KILLED", "fell behind"), ("RUNNING", None), ("FINISHED", None)]

    parent.close_children("the end")
    parent.close("FINISHED")
    assert state() == [("KILLED", "fell behind"), ("KILLED", "the end"), ("FINISHED", None)]

    _tracker(folder, "stopped", parent.run_id).close("FINISHED")  # the run resumes
    assert state() == [("FINISHED", None), ("KILLED", "the end"), ("FINISHED", None)]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, "FINISHED"),
        (ValueError("x"), "FAILED"),
        (StoppedError("stopped"), "KILLED"),
        (KeyboardInterrupt(), "KILLED"),
    ],
)
def test_a_run_is_closed_with_the_status_of_its_block(folder, error, status):
    tracker = _tracker(folder, f"closed-after-{type(error).__name__}")
    with pytest.raises(type(error)) if error else nullcontext(), tracker:
        if error:
            raise error
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    assert client.get_run(tracker.run_id).info.status == status


def test_records_that_cannot_be_sent_or_stored_do_not_hide_an_error(tmp_path, caplog):
    (tmp_path / "file").write_text("not a folder")
    tracker = MlflowTracker(
        "http://127.0.0.1:9",
        experiment="test",
        run_key="run",
        run_name="run",
        run_uri=f"{tmp_path}/file/run",
    )
    tracker._has_given_up.set()
    tracker.log_text("note.txt", "text")
    with pytest.raises(ValueError, match="the training's own error"), tracker:
        raise ValueError("the training's own error")
    assert "are lost" in caplog.text


def test_artifacts_are_next_to_the_database_in_any_working_directory(tmp_path, monkeypatch):
    """MLflow itself writes them to the current folder."""
    database, elsewhere = tmp_path / "a # folder", tmp_path / "elsewhere"
    for folder in (database, elsewhere):
        folder.mkdir()
    monkeypatch.chdir(elsewhere)
    tracker = _tracker(database, "run")
    tracker.log_text("note.txt", "text")
    tracker.close("FINISHED")
    [path] = database.glob(f"mlruns/{tracker.run_id}/artifacts/note.txt")
    assert path.read_text() == "text"
    assert list(elsewhere.iterdir()) == []


def test_a_record_that_fails_by_an_unexpected_error_does_not_hold_back_the_others(folder, caplog):
    tracker = _tracker(folder, "damaged model")
    with tracker:
        # JSON cannot write an array, so the thread meets a TypeError
        tracker.log_dataset(
            TrackedData(name="d", digest="0", uri="u", context="train", counts={"n": np.ones(2)})
        )
        tracker.log_text("later.txt", "sent")
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    assert client.get_run(tracker.run_id).info.status == "FINISHED"
    assert "later.txt" in [entry.path for entry in client.list_artifacts(tracker.run_id)]
    assert "dataset cannot be sent to MLflow" in caplog.text
    (backlog,) = folder.rglob("tracking_backlog-*.jsonl")
    assert [json.loads(line)["call"] for line in backlog.read_text().splitlines()] == ["dataset"]


def test_a_run_needs_mlflow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)  # as where it is not installed
    with pytest.raises(ConfigError, match="not installed") as caught:
        MlflowTracker("", experiment="", run_key="", run_name="", run_uri=str(tmp_path))
    assert "mmtpp[track]" in caught.value.setting


def test_records_are_kept_where_mlflow_cannot_be_imported(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)  # a damaged installation
    tracker = MlflowTracker(
        f"sqlite:///{tmp_path}/mlflow.db",
        experiment="test",
        run_key="run",
        run_name="run",
        run_uri=str(tmp_path),
    )
    values = {"loss": 1.0}
    tracker.log_metrics(3, values)
    values["loss"] = 2.0  # of the next step
    tracker.detach()
    assert "MLflow cannot be imported" in caplog.text
    (backlog,) = tmp_path.glob("tracking_backlog-*.jsonl")
    (record,) = [json.loads(line) for line in backlog.read_text().splitlines()]
    assert (record["call"], record["step"], record["loss"]) == ("metrics", 3, 1.0)
