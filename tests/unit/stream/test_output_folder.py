"""Commits: killed at every write, made by two jobs, damaged, and refused by the disk."""

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from mmtpp.core.errors import DataError, StorageError
from mmtpp.stream import output_folder
from mmtpp.stream.output_folder import OutputFolder
from mmtpp.stream.stream_job import stream
from tests.helpers.streams import add_file, event, rows_of, stream_config


class _KilledError(BaseException):
    """Ends a job at once, as a signal would: nothing handles it."""


class _Writes:
    """Counts the writes of a job, and kills it before one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, killed_at: int) -> None:
        self.number, self._killed_at = 0, killed_at
        for name in ("write_bytes", "create_bytes", "remove_file"):
            monkeypatch.setattr(output_folder, name, self._counted(getattr(output_folder, name)))

    def _counted(self, function):
        def write(*arguments):
            self.number += 1
            if self.number == self._killed_at:
                raise _KilledError
            return function(*arguments)

        return write


def _source(tmp_path: Path) -> Path:
    """Two files, of which the second has a late event and one that is rejected."""
    incoming = tmp_path / "incoming"
    add_file(incoming, "a.jsonl", [event("x", 10, "one"), event("y", 11, "two")])
    rows = [event("x", 1, "late"), event("y", 30, "three"), event("x", "soon", "bad")]
    add_file(incoming, "b.jsonl", [*rows, event("x", 29, "four")])
    return incoming


SETTINGS = {
    "source.max_rejected_fraction": 0.5,
    "stream.idle_release_seconds": 0.05,
    "stream.stop_when_idle_seconds": 0.1,
    "stream.commit_seconds": 1e-6,
}


def test_a_job_that_is_killed_at_any_write_lands_each_event_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    incoming = _source(tmp_path)
    killed_at = 0
    while True:
        killed_at += 1
        output = tmp_path / f"landed-{killed_at}"
        with monkeypatch.context() as patched:
            writes = _Writes(patched, killed_at=killed_at)
            with suppress(_KilledError):
                stream(stream_config(incoming, output, **SETTINGS))
        report = stream(stream_config(incoming, output, **SETTINGS))
        landed = [(row["sequence"], row["text"]) for row in rows_of(output)]
        assert sorted(landed) == [("x", "four"), ("x", "one"), ("y", "three"), ("y", "two")]
        assert [row["text"] for row in rows_of(output, "late")] == ["late"]
        assert [row["cause"] for row in rows_of(output, "rejected")] == ["unreadable_time"]
        assert (report["events_landed"], report["events_late"]) == (4, 1)
        if writes.number < killed_at:
            break
    assert killed_at > 10  # the last job was not killed


def test_a_file_that_others_read_never_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    incoming = _source(tmp_path)
    output = tmp_path / "landed"
    before: dict[Path, int] = {}
    for killed_at in range(3, 30):
        with monkeypatch.context() as patched:
            _Writes(patched, killed_at=killed_at)
            with suppress(_KilledError):
                stream(stream_config(incoming, output, **SETTINGS))
        files = {path: path.stat().st_mtime_ns for path in output.glob("[elr]*/*.parquet")}
        assert before.items() <= files.items()
        before = files
        add_file(incoming, f"more-{killed_at}.jsonl", [event("z", 100 + killed_at)])
    assert len(before) > 20


def test_a_second_job_on_one_disk_is_refused(tmp_path: Path):
    first = OutputFolder(str(tmp_path))
    with pytest.raises(StorageError) as caught:
        OutputFolder(str(tmp_path))
    error = caught.value
    assert error.problem == "another job writes to this output"
    assert (error.where, error.setting) == (str(tmp_path), f"stream.output = {tmp_path}")
    assert error.cause
    first.close()
    OutputFolder(str(tmp_path)).close()


def test_the_lock_ends_with_a_killed_process(tmp_path: Path):
    code = (
        "import os, signal; from mmtpp.stream.output_folder import OutputFolder\n"
        f"folder = OutputFolder({str(tmp_path)!r}); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode < 0
    OutputFolder(str(tmp_path)).close()


def test_of_two_jobs_in_a_bucket_one_makes_a_commit(tmp_path: Path, monkeypatch):
    """Without a lock, as in a bucket: the job that comes second to a number stops."""
    monkeypatch.setattr("mmtpp.stream.output_folder.is_remote", lambda _: True)
    incoming, output = _source(tmp_path), tmp_path / "landed"
    config = stream_config(incoming, output, **SETTINGS)
    original = OutputFolder.commit

    def commit_second(self, record, tables):
        """Let another job make the commit first."""
        monkeypatch.setattr(OutputFolder, "commit", original)
        stream(config)
        original(self, record, tables)

    monkeypatch.setattr(OutputFolder, "commit", commit_second)
    with pytest.raises(StorageError) as caught:
        stream(config)
    assert caught.value.problem == "another job has made commit 1 of this output"
    assert caught.value.where.endswith("commits/commit-000000001.json")
    texts = sorted(row["text"] for row in rows_of(output))
    assert texts == ["four", "one", "three", "two"]
    assert stream(config)["events_read"] == 6


def test_a_record_whose_answer_was_lost_is_known(tmp_path: Path, monkeypatch):
    """A client that writes again finds the file that its first attempt has written."""
    original = output_folder.create_bytes

    def create_and_lose(uri: str, content: bytes) -> bool:
        return original(uri, content) and "commits" not in uri

    monkeypatch.setattr(output_folder, "create_bytes", create_and_lose)
    output = tmp_path / "landed"
    assert stream(stream_config(_source(tmp_path), output, **SETTINGS))["events_landed"] == 4


def test_a_storage_that_replaces_files_is_named(tmp_path: Path, monkeypatch, caplog):
    monkeypatch.setattr(output_folder, "create_bytes", lambda *_: True)
    output = OutputFolder(str(tmp_path))
    assert not output.claim({"stream.input": "a"})
    output.close()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_text("{"), "damaged"),
        (lambda path: path.write_text('{"version": 7}'), "version 7"),
        (lambda path: path.with_name("commit-000000001.json").unlink(), "missing"),
    ],
)
def test_a_damaged_output_is_an_error(tmp_path: Path, damage, message: str):
    incoming, output = tmp_path / "incoming", tmp_path / "landed"
    for number in range(2):
        add_file(incoming, f"{number}.jsonl", [event("x", number)])
        stream(stream_config(incoming, output))
    records = sorted((output / "commits").glob("*.json"))
    assert [json.loads(path.read_text())["number"] for path in records] == [1, 2]
    damage(records[-1])
    with pytest.raises(DataError, match=message) as caught:
        stream(stream_config(incoming, output))
    assert caught.value.where.startswith(str(output / "commits"))


def test_an_output_that_cannot_be_written_is_an_error(tmp_path: Path):
    (tmp_path / "landed").write_text("a file")
    with pytest.raises(StorageError, match="cannot lock the folder") as caught:
        stream(stream_config(_source(tmp_path), tmp_path / "landed"))
    assert caught.value.where == str(tmp_path / "landed")


def test_a_disk_that_fills_up_is_an_error_and_the_next_job_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    incoming, output = _source(tmp_path), tmp_path / "landed"

    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        with pytest.raises(StorageError, match="No space left") as caught:
            stream(stream_config(incoming, output, **SETTINGS))
    assert caught.value.where.startswith(str(output))
    assert stream(stream_config(incoming, output, **SETTINGS))["events_landed"] == 4
