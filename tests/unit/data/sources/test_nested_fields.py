"""Fields inside the objects of records, by dotted names."""

import json

import pandas as pd
import pytest

import mmtpp
from mmtpp.data.sources import build_reader
from mmtpp.data.sources.checking import read_file
from mmtpp.data.sources.columns import Columns
from mmtpp.data.sources.event_files import MalformedFileError
from mmtpp.data.sources.reader import ParsedFile
from mmtpp.data.sources.type_codes import TypeCodes
from tests.helpers.tables import json_lines, parquet_bytes

COLUMNS = Columns(time="a.b.t", sequence="id", type="a.k", text="x.y")
ROWS = [
    {"id": "s", "a": {"b": {"t": 4.0}, "k": "on"}, "x": {"y": "late"}},
    {"id": "s", "a": {"b": {"t": 1.5}, "k": "off"}, "x": None},
]


def _read(path: str, data: bytes, columns: Columns = COLUMNS) -> ParsedFile:
    reader = build_reader("columns", columns=columns)
    return read_file(reader, path, data, types=TypeCodes(("on", "off")))


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("t.jsonl", json_lines(ROWS)),
        ("t.json", json.dumps(ROWS).encode()),
        ("t.parquet", parquet_bytes(ROWS)),
    ],
)
def test_fields_of_objects_are_columns(path: str, data: bytes):
    parsed = _read(path, data)
    [sequence] = parsed.sequences
    assert (sequence.sequence_id, sequence.times.tolist()) == ("s", [1.5, 4.0])
    assert (sequence.types.tolist(), sequence.texts) == ([1, 0], ("", "late"))
    assert parsed.rejected == []


def test_tables_in_memory():
    columns = {"time": "a.b.t", "sequence": "id", "type": "a.k", "text": "x.y"}
    [sequence] = mmtpp.load_sequences(pd.DataFrame(ROWS), columns=columns, types=("on", "off"))
    assert (sequence.times.tolist(), sequence.texts) == ([1.5, 4.0], ("", "late"))


@pytest.mark.parametrize("form", ["t.jsonl", "t.parquet"])
def test_a_name_that_contains_the_dots_has_precedence(form: str):
    rows = [{"a.t": 1.0, "a": {"t": 9.0}}, {"a.t": 2.0, "a": {"t": 8.0}}]
    data = json_lines(rows) if form == "t.jsonl" else parquet_bytes(rows)
    [sequence] = _read(form, data, Columns(time="a.t")).sequences
    assert sequence.times.tolist() == [1.0, 2.0]


def test_a_row_of_nested_lists_is_a_sequence():
    row = {"who": "w", "log": {"t": [3, 5], "x": ["a", "b"]}}
    columns = Columns(time="log.t", text="log.x", sequence="who")
    [sequence] = _read("t.jsonl", json_lines([row]), columns).sequences
    assert (sequence.times.tolist(), sequence.texts) == ([3.0, 5.0], ("a", "b"))


def test_records_without_the_field_or_with_a_part_that_is_no_object_are_rejected():
    rows = [
        ROWS[0],
        {"id": "s", "a": {"b": "noon", "k": "on"}, "x": {"y": "text"}},
        {"id": "s", "a": {"b": {}, "k": "on"}},
        {"id": "s", "a": {"b": {"t": 2.0}}},
        {"id": "s", "a": None},
        {"id": "s", "a": {"b": {"t": 3.0}, "k": "on"}, "x": ["y"]},
    ]
    parsed = _read("t.jsonl", json_lines(rows))
    assert [(record.row, record.cause) for record in parsed.rejected] == [
        (1, "malformed_record"),
        (2, "missing_time"),
        (3, "missing_type"),
        (4, "missing_time"),
        (5, "malformed_record"),
    ]
    assert parsed.rejected[0].detail == (
        "line 2: 'a.b.t' needs an object in 'a.b', which is 'noon'; correct source.columns"
    )
    assert "'noon'" not in parsed.rejected[0].record
    assert '"b": "noon"' in parsed.rejected[0].record
    assert parsed.sequences[0].texts == ("late",)
    assert parsed.counts.num_read == 6


@pytest.mark.parametrize("form", ["t.jsonl", "t.parquet"])
def test_a_field_that_no_record_has_is_an_error_with_the_fields_there_are(form: str):
    rows = [{"a": {"b": {"at": 1.0}, "k": "on"}, "id": "s", "x": {"y": ""}}]
    data = json_lines(rows) if form == "t.jsonl" else parquet_bytes(rows)
    with pytest.raises(MalformedFileError, match=r"no column 'a\.b\.t'; it has .*'a\.b\.at'"):
        _read(form, data)


def test_events_in_a_damaged_json_file_are_counted_by_the_last_part_of_the_name():
    with pytest.raises(MalformedFileError) as caught:
        _read("t.json", json.dumps(ROWS).encode()[:-1])
    assert caught.value.num_events == 2
