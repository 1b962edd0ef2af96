"""The job over a folder whose files appear: what is landed, counted, kept and refused."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from mmtpp.cli.summary import next_commands
from mmtpp.config.load import config_from_tree, with_values
from mmtpp.core.errors import ConfigError, DataError, MissingFileError
from mmtpp.data.from_config import build_columns, build_source_reader
from mmtpp.data.sources.checking import read_file
from mmtpp.data.sources.type_codes import TypeCodes
from mmtpp.stream import stream_loop
from mmtpp.stream.stream_job import stream
from tests.helpers.streams import (
    add_file,
    commits_of,
    event,
    rows_of,
    set_age,
    stream_config,
    times_of,
)
from tests.helpers.tables import xes_bytes


@pytest.fixture
def incoming(tmp_path: Path) -> Path:
    folder = tmp_path / "incoming"
    folder.mkdir()
    return folder


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "landed"


def test_files_are_read_once_in_the_order_in_which_they_appeared(incoming: Path, output: Path):
    set_age(add_file(incoming, "b.jsonl", [event("x", 1, "one"), event("y", 2, "two")]), 60)
    add_file(incoming, "a.jsonl", [event("x", 4, "four", "b"), event("x", 3, "three")])
    report = stream(stream_config(incoming, output))
    assert (report["events_read"], report["events_landed"], report["events_late"]) == (4, 4, 0)
    assert (report["ended"], report["events_held"]) == ("idle", 0)
    assert times_of(output) == {"x": [1.0, 3.0, 4.0], "y": [2.0]}
    rows = {row["text"]: row for row in rows_of(output)}
    assert rows["four"] == {
        "sequence": "x",
        "time": 4.0,
        "type": "b",
        "text": "four",
        "image": None,
        "split": "",
    }
    again = stream(stream_config(incoming, output))
    assert (again["events_read"], again["commits"]) == (4, report["commits"])
    add_file(incoming, "c.jsonl", [event("y", 9, "nine")])
    assert stream(stream_config(incoming, output))["events_landed"] == 5
    assert times_of(output) == {"x": [1.0, 3.0, 4.0], "y": [2.0, 9.0]}


def test_late_events_are_kept_apart_and_the_next_job_knows_what_is_late(
    incoming: Path, output: Path
):
    add_file(incoming, "a.jsonl", [event("x", 100), event("y", 90)])
    lateness = {"stream.allowed_lateness_seconds": 5}
    assert stream(stream_config(incoming, output, **lateness))["events_landed"] == 2
    add_file(incoming, "b.jsonl", [event("x", 99, "late"), event("x", 100, "equal")])
    report = stream(stream_config(incoming, output, **lateness))
    assert (report["events_late"], report["events_landed"]) == (1, 3)
    assert [row["text"] for row in rows_of(output, "late")] == ["late"]
    assert rows_of(output)[-1]["text"] == "equal"


def test_events_are_held_across_jobs(incoming: Path, output: Path):
    settings = {
        "stream.allowed_lateness_seconds": 10,
        "stream.idle_release_seconds": 60,
        "stream.stop_when_idle_seconds": 0,
    }
    add_file(incoming, "a.jsonl", [event("x", 100, "held"), event("x", 80)])
    assert _run_and_stop(stream_config(incoming, output, **settings), landed=1) == (1, 1)
    assert times_of(output) == {"x": [80.0]}
    add_file(incoming, "b.jsonl", [event("x", 95), event("x", 120)])
    assert _run_and_stop(stream_config(incoming, output, **settings), landed=3) == (3, 1)
    assert times_of(output) == {"x": [80.0, 95.0, 100.0]}
    held = list((output / "state").glob("*-held.parquet"))
    assert len(held) == 1  # that of the last commit


def _run_and_stop(config, *, landed: int) -> tuple[object, object]:
    """Send SIGTERM to the job when it has landed events; returns how many it landed and holds."""
    folder = Path(config.stream.output)

    def stop_when_landed() -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and len(rows_of(folder)) < landed:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    stopper = threading.Thread(target=stop_when_landed)
    stopper.start()
    report = stream(config)
    stopper.join()
    assert report["ended"] == "stopped"
    assert signal.getsignal(signal.SIGTERM) is before
    return report["events_landed"], report["events_held"]


def test_rejected_records_are_counted_and_kept(incoming: Path, output: Path):
    rows = [event("x", 1), event("x", "soon"), event("", 2), event("x", 3, what=None)]
    add_file(incoming, "a.jsonl", rows)
    report = stream(stream_config(incoming, output, **{"source.max_rejected_fraction": 0.9}))
    assert report["rejected_by_cause"] == {
        "unreadable_time": 1,
        "malformed_record": 1,
        "missing_type": 1,
    }
    assert (report["events_read"], report["events_landed"]) == (4, 1)
    kept = rows_of(output, "rejected")
    assert [(row["path"], row["row"]) for row in kept] == [("a.jsonl", row) for row in (1, 2, 3)]
    assert json.loads(kept[0]["record"])["at"] == "soon"


def test_too_many_rejected_events_stop_the_job_before_a_commit(incoming: Path, output: Path):
    add_file(incoming, "a.jsonl", [event("x", 1), event("x", "soon")])
    with pytest.raises(DataError) as caught:
        stream(stream_config(incoming, output))
    error = caught.value
    assert "1 of 2 events were rejected: {'unreadable_time': 1}" in error.problem
    assert error.where == str(incoming)
    assert "a.jsonl, line 2: time is 'soon'" in error.cause
    assert error.setting == "source.max_rejected_fraction = 0.01"
    assert not list(output.glob("commits/*"))
    more = {"source.max_rejected_fraction": 0.5}
    assert stream(stream_config(incoming, output, **more))["events_landed"] == 1


def test_a_malformed_file_stops_the_job_or_is_counted(incoming: Path, output: Path):
    settings = {"source.kind": "columns", "source.max_rejected_fraction": 1.0}
    add_file(incoming, "a.jsonl", [event("x", 1)])
    (incoming / "b.csv").write_text("who;when\nx;1\nx;2\n")
    with pytest.raises(DataError) as caught:
        stream(stream_config(incoming, output, **settings))
    assert "b.csv: no column 'at'" in caught.value.problem
    assert "source.malformed_file = fail" in caught.value.setting
    report = stream(
        stream_config(incoming, output, **settings, **{"source.malformed_file": "reject"})
    )
    assert report["rejected_by_cause"] == {"malformed_file": 2}
    assert (report["events_read"], report["events_landed"]) == (3, 1)


@pytest.mark.parametrize("change", ["longer", "same size"])
def test_a_file_that_changes_after_it_was_read_is_an_error(
    incoming: Path, output: Path, change: str
):
    path = add_file(incoming, "a.jsonl", [event("x", 1)])
    stream(stream_config(incoming, output))
    add_file(incoming, "a.jsonl", [event("x", 2)] * (2 if change == "longer" else 1))
    set_age(path, -10)
    with pytest.raises(DataError) as caught:
        stream(stream_config(incoming, output))
    assert caught.value.where == str(path)
    assert "rename them" in caught.value.cause
    path.unlink()  # old files may be removed
    assert stream(stream_config(incoming, output))["events_landed"] == 1


def test_a_file_that_is_shorter_or_longer_than_listed_is_an_error(
    incoming: Path, output: Path, monkeypatch: pytest.MonkeyPatch
):
    add_file(incoming, "a.jsonl", [event("x", 1)])
    monkeypatch.setattr("mmtpp.stream.folder_source.read_bytes", lambda *_, **__: b"{}")
    with pytest.raises(DataError, match="changed after it was listed"):
        stream(stream_config(incoming, output))
    assert not list(output.glob("commits/*"))


def test_files_that_are_being_written_are_not_read(incoming: Path, output: Path):
    add_file(incoming, "a.jsonl", [event("x", 1)])
    for name in ("b.jsonl.tmp", ".c.jsonl", "_temporary/0/d.jsonl", "e.txt"):
        add_file((incoming / name).parent, (incoming / name).name, [event("x", 2)])
    assert stream(stream_config(incoming, output))["events_read"] == 1


def test_a_missing_folder_is_an_error(tmp_path: Path, output: Path):
    with pytest.raises(MissingFileError) as caught:
        stream(stream_config(tmp_path / "none", output))
    assert caught.value.where == str(tmp_path / "none")
    assert caught.value.setting == f"stream.input = {tmp_path / 'none'}"
    assert caught.value.cause


def test_reading_pauses_and_events_are_released_early_at_the_limit(
    incoming: Path, output: Path, caplog: pytest.LogCaptureFixture
):
    """Two files of three events and a limit of four: the half of six held events is released."""
    for number in range(4):
        rows = [event("x", 10 * number + place) for place in range(3)]
        set_age(add_file(incoming, f"{number}.jsonl", rows), 60 - number)
    limits = {"stream.allowed_lateness_seconds": 1000, "stream.max_held_events": 4}
    report = stream(stream_config(incoming, output, **limits))
    assert (report["events_landed"], report["events_late"]) == (12, 0)
    assert times_of(output) == {"x": [float(10 * n + p) for n in range(4) for p in range(3)]}
    assert report["events_released_early"] == 9  # after the second, third and fourth file
    assert "stream.max_held_events is reached" in caplog.text


def test_dates_are_landed_so_that_prepare_reads_the_same_times(incoming: Path, output: Path):
    rows = [
        event("x", "2024-03-31T01:30:00+01:00", "a"),
        event("x", "2024-03-31T00:45:00.123456Z", "b"),
    ]
    add_file(incoming, "a.jsonl", rows)
    minutes = {"source.seconds_per_unit": 60.0}
    report = stream(stream_config(incoming, output, **minutes))
    _check_prepared_times(
        output, report["prepare_settings"], [28530750.0, 28530765.0 + 0.123456 / 60]
    )
    assert rows_of(output)[0]["time"] == 28530750.0 * 60  # seconds since 1970


def _check_prepared_times(output: Path, settings: object, expected: list[float]) -> None:
    """Check the times that ``prepare`` reads in the landed files with the reported settings."""
    assert isinstance(settings, dict)
    assignments = {
        key: json.loads(value) if str(value).startswith("[") else value
        for key, value in settings.items()
    }
    config = with_values(config_from_tree({}), assignments)
    reader = build_source_reader(config.source)
    assert build_columns(config.source).sequence == "sequence"
    times = []
    for file in sorted((output / "events").glob("*.parquet")):
        parsed = read_file(reader, file.name, file.read_bytes(), types=TypeCodes(("a", "b")))
        assert parsed.rejected == []
        times += [time for sequence in parsed.sequences for time in sequence.times]
    assert times == pytest.approx(expected, rel=1e-15)


def test_dates_among_numbers_are_rejected_whichever_came_first(incoming: Path, output: Path):
    set_age(add_file(incoming, "a.jsonl", [event("x", 1), event("x", 2)]), 60)
    add_file(incoming, "b.jsonl", [event("x", "2024-01-01", "dated")])
    settings = {"source.max_rejected_fraction": 0.9}
    report = stream(stream_config(incoming, output, **settings))
    assert report["rejected_by_cause"] == {"ambiguous_time": 1}
    [kept] = rows_of(output, "rejected")
    assert "times are dates, those of earlier events are numbers" in kept["detail"]
    assert json.loads(kept["record"])["text"] == "dated"
    add_file(incoming, "c.jsonl", [event("x", "2024-01-02")])  # another job remembers it
    assert stream(stream_config(incoming, output, **settings))["events_rejected"] == 2


def test_types_keep_their_names_and_rare_ones_are_folded(incoming: Path, output: Path):
    rows = [event("x", 1, what="stop"), event("x", 2, what="start"), event("x", 3, what="odd")]
    add_file(incoming, "a.jsonl", rows)
    names = {"source.types": ("start", "stop"), "source.rare_types": "other"}
    report = stream(stream_config(incoming, output, **names))
    assert [row["type"] for row in rows_of(output)] == ["stop", "start", "other"]
    assert report["events_folded"] == 1
    settings = report["prepare_settings"]
    assert isinstance(settings, dict)
    assert settings["source.types"] == '["start", "stop"]'
    assert settings["source.rare_types"] == "other"
    [command] = next_commands("stream", report, stream_config(incoming, output), [])
    assert '--set \'source.types=["start", "stop"]\'' in command


def test_more_types_than_a_store_can_have_are_an_error_or_folded(incoming: Path, output: Path):
    add_file(incoming, "a.jsonl", [event("x", n, what=f"t{n:03}") for n in range(300)])
    with pytest.raises(DataError, match="300 event types"):
        stream(stream_config(incoming, output))
    folded = {"source.rare_types": "other"}
    report = stream(stream_config(incoming, output.with_name("folded"), **folded))
    assert (report["events_landed"], report["events_folded"]) == (300, 45)


def test_numbers_of_types_and_splits_are_landed(incoming: Path, output: Path):
    rows = [{**event("x", 1, what=3), "fold": "dev"}, {**event("y", 2, what=3.0), "fold": "test"}]
    add_file(incoming, "a.jsonl", rows)
    settings = {"source.types": (), "source.columns.split": "fold"}
    report = stream(stream_config(incoming, output, **settings))
    assert [(row["type"], row["split"]) for row in rows_of(output)] == [
        ("3", "validation"),
        ("3", "test"),
    ]
    assert isinstance(report["prepare_settings"], dict)
    assert report["prepare_settings"]["split.by"] == "given"
    assert "source.types" not in report["prepare_settings"]


def test_images_are_landed_as_whole_uris(incoming: Path, output: Path):
    rows = [
        {**event("x", time), "picture": picture}
        for time, picture in enumerate(("a/1.png", "https://h/2.png", None, "../3.png"))
    ]
    add_file(incoming, "a.jsonl", rows)
    report = stream(stream_config(incoming, output, **{"source.columns.image": "picture"}))
    images = [row["image"] for row in rows_of(output)]
    assert images == [f"{incoming}/a/1.png", "https://h/2.png", None, "../3.png"]
    assert isinstance(report["prepare_settings"], dict)
    assert json.loads(report["prepare_settings"]["source.image_roots"]) == [str(incoming)]


def test_an_event_log_is_a_stream_of_its_traces(incoming: Path, output: Path):
    days = ("2024-01-01T00:00:00Z", "2024-01-01T00:01:00Z")
    for name, day in zip("ab", days, strict=True):
        events = {f"case {name}": [{"concept:name": "begin", "time:timestamp": day}]}
        (incoming / f"{name}.xes").write_bytes(xes_bytes(events))
    xes = {f"source.columns.{name}": "" for name in ("time", "sequence", "type", "text")}
    report = stream(stream_config(incoming, output, **xes, **{"source.kind": "xes"}))
    assert (report["events_landed"], report["events_late"]) == (2, 0)
    assert times_of(output) == {"case a": [1704067200.0], "case b": [1704067260.0]}


def test_the_output_belongs_to_its_input_and_its_settings(
    incoming: Path, output: Path, tmp_path: Path
):
    add_file(incoming, "a.jsonl", [event("x", 1)])
    stream(stream_config(incoming, output))
    other = tmp_path / "other"
    add_file(other, "a.jsonl", [event("x", 1)])
    with pytest.raises(ConfigError) as caught:
        stream(stream_config(other, output))
    assert caught.value.where == str(output)
    assert f"stream.input = {str(other)!r}, before {str(incoming)!r}" in caught.value.setting
    with pytest.raises(ConfigError, match=r"source\.seconds_per_unit = 60\.0, before 1\.0"):
        stream(stream_config(incoming, output, **{"source.seconds_per_unit": 60.0}))
    allowed = {"stream.allowed_lateness_seconds": 9, "source.max_rejected_fraction": 0.5}
    assert stream(stream_config(incoming, output, **allowed))["events_read"] == 1


def test_positions_are_complete_after_many_commits(
    incoming: Path, output: Path, monkeypatch: pytest.MonkeyPatch
):
    """Records have all positions now and then, and the changed ones in between."""
    monkeypatch.setattr(stream_loop, "WHOLE_EVERY", 3)
    for number in range(8):
        add_file(incoming, f"{number}.jsonl", [event("x", number)])
        stream(stream_config(incoming, output))
        assert len(list(commits_of(output))) == number + 1
    sizes = [len(json.loads(path.read_text())["positions"]) for path in _records(output)]
    assert sizes == [1, 1, 1, 4, 1, 1, 7, 1]
    assert times_of(output) == {"x": [float(number) for number in range(8)]}


def _records(output: Path) -> list[Path]:
    return sorted((output / "commits").glob("*.json"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source.kind": "flights"}, "source.kind = flights, source.columns.sequence = 'who'"),
        ({"source.columns.sequence": ""}, "source.kind = columns, source.columns.sequence = ''"),
        ({"stream.input": "kafka://h:1/t", "source.kind": "xes"}, "source.kind = xes; set columns"),
        ({"stream.output": "/data/in/landed"}, "is inside stream.input = /data/in"),
        ({"stream.output": "kafka://h:1/t"}, "stream.output = kafka://h:1/t"),
        ({"stream.service": "localhost:8000"}, "begins with http:// or https://"),
        ({"stream.input": "kafka://host:9092"}, "kafka://HOST:PORT/TOPIC"),
        ({"stream.idle_release_seconds": 9.0}, "the job would end before it lands the last"),
    ],
)
def test_contradictions_are_found_before_anything_is_read(changes: dict, message: str):
    with pytest.raises(ConfigError) as caught:
        stream(stream_config("/data/in", "/data/out", **changes))
    assert message in str(caught.value)
