"""The log of events: what was written is read again, also by another process after a kill."""

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from mmtpp.core.errors import StorageError
from mmtpp.serve import event_log
from mmtpp.serve.event_log import IN_MEMORY, EventLog, SequenceHead
from mmtpp.serve.live_events import LiveEvent


def _write(log: EventLog, name: str, number: int, *, start: int = 0) -> None:
    log.append(
        [(place, LiveEvent(name, 0.1 * place, place % 7)) for place in range(start, start + number)]
    )


def test_events_are_read_as_they_were_written(tmp_path: Path):
    log = EventLog(str(tmp_path / "new" / "log.sqlite"))
    log.append([(0, LiveEvent("a", 1 / 3, 2, "é \x00 x", "k")), (0, LiveEvent("b", -1e300, 0))])
    log.append([(1, LiveEvent("a", 5.0, 3))])
    log.close()
    again = EventLog(str(tmp_path / "new" / "log.sqlite"))
    sequence = again.read("a")
    assert sequence.times.tolist() == [1 / 3, 5.0]
    assert sequence.types.tolist() == [2, 3]
    assert sequence.texts == ("é \x00 x", "")
    assert again.read("a", start=1).times.tolist() == [5.0]
    assert len(again.read("c")) == 0
    assert again.heads(["a", "c"]) == {"a": SequenceHead(2, 5.0), "c": SequenceHead()}
    assert again.with_key("a", "k") == LiveEvent("a", 1 / 3, 2, "é \x00 x", "k")
    assert again.with_key("b", "k") is None
    assert (again.remove("a"), again.remove("a")) == (2, 0)
    assert again.heads(["a"])["a"].num_events == 0


def test_a_write_that_fails_leaves_nothing():
    log = EventLog(IN_MEMORY)
    _write(log, "a", 2)
    events = [(2, LiveEvent("a", 3.0, 0)), (1, LiveEvent("a", 4.0, 0))]  # position 1 exists
    with pytest.raises(StorageError, match="cannot be used"):
        log.append(events)
    assert log.heads(["a"])["a"] == SequenceHead(2, 0.1)
    _write(log, "a", 1, start=2)


def test_a_killed_process_loses_no_event_that_it_has_reported(tmp_path: Path):
    path = str(tmp_path / "log.sqlite")
    code = (
        "import sys; from mmtpp.serve.event_log import EventLog\n"
        "from mmtpp.serve.live_events import LiveEvent\n"
        f"log = EventLog({path!r})\n"
        "for place in range(10**6):\n"
        "    log.append([(place, LiveEvent('a', float(place), 0))])\n"
        "    print(place, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    reported = -1
    while reported < 50:
        reported = int(process.stdout.readline())
    os.kill(process.pid, signal.SIGKILL)
    reported = int(process.stdout.read().rstrip("\n").rpartition("\n")[2] or reported)
    process.wait()
    times = EventLog(path).read("a").times
    assert times.tolist() == list(map(float, range(len(times))))
    assert len(times) >= reported + 1


def test_a_second_process_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(event_log, "_LOCK_PATIENCE_S", 0.1)
    path = str(tmp_path / "log.sqlite")
    log = EventLog(path)
    _write(log, "a", 1)
    with pytest.raises(StorageError, match="another process serves from the same file"):
        EventLog(path)


def test_the_log_of_other_types_is_refused(tmp_path: Path):
    path = str(tmp_path / "log.sqlite")
    first = EventLog(path)
    first.claim({"type_names": "[]", "seconds_per_unit": "1.0"})
    first.close()
    again = EventLog(path)
    again.claim({"type_names": "[]"})
    with pytest.raises(StorageError, match=r"has type_names = \[\], not \[1\]"):
        again.claim({"type_names": "[1]"})
    again.claim({"type_names": "[]"})


@pytest.mark.parametrize("content", [b"no database" * 100, b"SQLite format 3\x00" + b"x" * 2000])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "log.sqlite"
    path.write_bytes(content)
    with pytest.raises(StorageError, match="the file is damaged"):
        EventLog(str(path))


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be used"):
        EventLog(str(tmp_path / "file" / "log.sqlite"))


def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path: Path):
    log = EventLog(str(tmp_path / "log.sqlite"))
    _write(log, "a", 1)
    pages = log._database.execute("PRAGMA page_count").fetchone()[0]
    log._database.execute(f"PRAGMA max_page_count = {pages + 1}")
    with pytest.raises(StorageError, match="the disk is full"):
        log.append([(place, LiveEvent("a", 1.0, 0, "x" * 500)) for place in range(1, 100)])
    assert log.heads(["a"])["a"].num_events == 1
    assert isinstance(log._database, sqlite3.Connection)
