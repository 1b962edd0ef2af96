"""XES event logs: traces, attributes, rejected events, damaged and hostile files."""

import gzip
import tracemalloc
from pathlib import Path

import pytest

import mmtpp
from mmtpp.cli.main import main
from mmtpp.data.sources import build_reader
from mmtpp.data.sources.checking import raw_items, read_file
from mmtpp.data.sources.columns import Columns
from mmtpp.data.sources.event_files import MalformedFileError
from mmtpp.data.sources.reader import ParsedFile
from mmtpp.data.sources.type_codes import TypeCodes
from tests.helpers.tables import xes_bytes

NAMES = ("register", "decide")


def _event(second: int, name: str = "register", **more: str) -> dict[str, object]:
    stamp = f"2024-01-31T08:{second // 60:02d}:{second % 60:02d}.250+01:00"
    return {"concept:name": name, "time:timestamp": stamp, **more}


def _read(data: bytes, path: str = "a/log.xes", columns: Columns | None = None) -> ParsedFile:
    reader = build_reader("xes", columns=columns)
    return read_file(reader, path, data, types=TypeCodes(NAMES))


def test_traces_are_sequences_and_attributes_are_columns():
    log = {"case 1": [_event(70, "decide"), _event(10)], "case 2": [_event(5, resource="Ann")]}
    start = 1706684400.25  # date -u -d 2024-01-31T07:00:00 +%s
    for path, data in (("a/log.xes", xes_bytes(log)), ("b.XES.gz", gzip.compress(xes_bytes(log)))):
        parsed = _read(data, path)
        assert [s.sequence_id for s in parsed.sequences] == ["case 1", "case 2"]
        assert [s.times.tolist() for s in parsed.sequences] == [
            [start + 10, start + 70],
            [start + 5],
        ]
        assert [s.types.tolist() for s in parsed.sequences] == [[0, 1], [0]]
        assert (parsed.rejected, parsed.counts.num_read, parsed.counts.num_dated) == ([], 3, 3)
    mapped = Columns(time="", text="resource", sequence="case:concept:name")
    assert _read(xes_bytes(log), columns=mapped).sequences[1].texts == ("Ann",)


def test_a_log_without_namespace_with_globals_nesting_and_an_unnamed_trace():
    log = """<log><extension name="Concept" prefix="concept"/>
      <global scope="event"><string key="concept:name" value="decide"/></global>
      <classifier name="Activity" keys="concept:name"/><string key="concept:name" value="the log"/>
      <trace><event><string key="concept:name" value="register">
            <string key="concept:name" value="inner"/></string>
          <list key="tags"><values><string key="tag" value="x"/></values></list>
          <int key="cost" value="7"/>
          <date key="time:timestamp" value="2024-01-31T07:00:01Z"/></event>
        <float key="late" value="0.5"/></trace><trace/></log>"""
    parsed = _read(log.encode(), columns=Columns(time="", text="case:late", interval="cost"))
    [sequence] = parsed.sequences
    assert (sequence.sequence_id, sequence.types.tolist()) == ("a/log#0", [0])
    assert (sequence.times.tolist(), sequence.texts) == ([1706684401.0], ("0.5",))


def test_bad_events_are_rejected_and_the_other_events_are_kept():
    no_time, no_type = _event(1), _event(2)
    del no_time["time:timestamp"]
    del no_type["concept:name"]
    bad_time = {**_event(3), "time:timestamp": "soon"}
    data = xes_bytes({"a": [_event(0), no_time, no_type, bad_time, _event(4, "other")]})
    more = b"""<event><date key="time:timestamp" value="2024-01-31T07:00:01Z"/></event>
      <trace><string key="concept:name" value="a"/><event>
        <string key="concept:name" value="register"/>
        <date key="time:timestamp" value="2024-01-31T07:00:02Z"/></event></trace>
      <trace><string key="concept:name" value="b"/><event><string key="k" value="1"/>
        <string key="k" value="2"/></event></trace></log>"""
    parsed = _read(data.replace(b"</log>", more))
    assert [(record.row, record.cause) for record in parsed.rejected] == [
        (1, "missing_time"),
        (2, "missing_type"),
        (3, "unreadable_time"),
        (4, "unknown_type"),
        (5, "malformed_record"),
        (6, "malformed_record"),
        (7, "malformed_record"),
    ]
    details = [record.detail for record in parsed.rejected[4:]]
    assert details == [
        "the event is outside of the traces",
        "an earlier trace has the same concept:name 'a'",
        "<event> has two attributes 'k'",
    ]
    assert [len(sequence) for sequence in parsed.sequences] == [1]
    assert parsed.counts.num_read == 8


GOOD = xes_bytes({"a": [_event(0), _event(1)], "b": [_event(2)]})
BOMB = b"""<?xml version="1.0"?><!DOCTYPE log [<!ENTITY a "aaaaaaaaaa">
<!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]><log><trace><event>
<string key="concept:name" value="&b;"/></event></trace></log>"""
EXTERNAL = b"""<?xml version="1.0"?><!DOCTYPE log SYSTEM "file:///etc/hostname">
<log><trace><event/></trace></log>"""


@pytest.mark.parametrize(
    ("path", "data", "problem", "num_events"),
    [
        ("a.xes", GOOD[:-20], "not readable as XML: no element found|unclosed token", 3),
        ("a.xes", b"PK\x03\x04", "not readable as XML: not well-formed", None),
        ("a.xes.gz", GOOD, "not gzip", None),
        ("a.xes.gz", gzip.compress(GOOD)[:-9], "not gzip, or damaged", None),
        ("a.xes", b"<html><event/></html>", "no event log: its root is <html>", 1),
        ("a.xes", GOOD.replace(b"UTF-8", b"klingon"), "unknown encoding", 3),
        ("a.xes", BOMB, "document type", 1),
        ("a.xes", EXTERNAL, "document type", 1),
        ("a.xes", GOOD.replace(b"time:timestamp", b"when"), "no column 'time:timestamp'", 3),
    ],
)
def test_a_file_that_cannot_be_read_is_an_error_with_the_number_of_its_events(
    path: str, data: bytes, problem: str, num_events: int | None
):
    with pytest.raises(MalformedFileError, match=problem) as caught:
        _read(data, path)
    assert caught.value.num_events == num_events


def test_parsing_keeps_no_tree_of_the_log():
    """Every event holds an attribute of 20 kB that is not mapped and not kept by the test."""
    events = [_event(second, note="x" * 20_000) for second in range(400)]
    data = xes_bytes({f"case {place}": [event] for place, event in enumerate(events)})
    reader = build_reader("xes", columns=Columns(time=""))
    list(raw_items(reader, "a.xes", data))  # imports and caches are not measured
    tracemalloc.start()
    count = sum(1 for _ in raw_items(reader, "a.xes", data))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 400
    assert peak < len(data) / 4


def test_inspect_knows_the_kind_from_the_suffix(tmp_path: Path, capsys):
    (tmp_path / "log.xes").write_bytes(GOOD)
    assert main(["inspect", str(tmp_path / "log.xes")]) == 0
    printed = capsys.readouterr()
    assert "(xes, 1 files)" in printed.out
    assert "3 events in 2 sequences; 3 read, 0 rejected" in printed.out
    assert "files read, by suffix: 1 .xes" in printed.out
    assert "read with --kind xes" in printed.err
    sequences = mmtpp.load_sequences(str(tmp_path / "log.xes"), kind="xes", types="auto")
    assert [sequence.sequence_id for sequence in sequences] == ["a", "b"]
