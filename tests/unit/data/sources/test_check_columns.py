"""Tables that are read column by column give what their records give one by one."""

import csv
import io
import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmtpp.core.events import EventSequence
from mmtpp.data.sources.check_columns import read_columns
from mmtpp.data.sources.checking import read_file
from mmtpp.data.sources.columns import Columns, ColumnsParser, build_columns_reader
from mmtpp.data.sources.event_files import MalformedFileError
from mmtpp.data.sources.reader import ParsedFile, RawColumns, SourceReader
from mmtpp.data.sources.type_codes import OTHER, TypeCodes
from tests.helpers.tables import arrow_bytes, parquet_bytes

COLUMNS = {"time": "t", "sequence": "who", "type": "k", "text": "x", "image": "i", "interval": "w"}
TEXTS = st.text(st.characters(codec="utf-8"), max_size=4)
FAULTS = ["", " ", "nan", "inf", "1e400", "-1", "x\ud800", "0x1", "1_0", "a,b", 'q"q', "2024-01-31"]


def _mostly(good: st.SearchStrategy) -> st.SearchStrategy:
    """A good value; in about one of eight columns with a fault."""
    return st.one_of(*[good] * 7, st.sampled_from(FAULTS))


def _table(**columns: st.SearchStrategy) -> st.SearchStrategy:
    return st.lists(st.fixed_dictionaries(columns), max_size=6)


NUMBERS = st.one_of(st.integers(0, 9), st.floats(-5, 5, width=16))
DATES = st.sampled_from(["2024-01-31", "2024-01-31T12:00:00", "31.01.2024", "13/01/2024"])
CLEAN = {
    "who": st.sampled_from(["a", "b ", "Ü"]),
    "k": st.sampled_from(["0", "7", "7.0"]),
    "x": TEXTS,
    "i": st.sampled_from(["", "p.png"]),
    "w": st.sampled_from(["", "0", "1.5", "2"]),
    "s": st.sampled_from(["train", "Dev", "test"]),
}
TEXT_TABLES = st.one_of(
    _table(t=NUMBERS.map(str), **CLEAN),
    _table(t=DATES, **CLEAN),
    _table(t=_mostly(NUMBERS.map(str)), **{name: _mostly(value) for name, value in CLEAN.items()}),
)


def _columns(rows: list[dict], *, split: bool) -> SourceReader:
    named = Columns(**COLUMNS, split="s" if split else "")
    return build_columns_reader(named, seconds_per_unit=60.0)


def _outcome(reader: SourceReader, path: str, data: bytes, types: TypeCodes) -> ParsedFile | str:
    try:
        return read_file(reader, path, data, types=types)
    except MalformedFileError as error:
        return f"{error} {error.num_events}"


def _check_equal(reader: SourceReader, path: str, data: bytes, types: TypeCodes) -> None:
    fast = _outcome(reader, path, data, types)
    slow = _outcome(replace(reader, columns=None), path, data, types)
    if isinstance(slow, str) or isinstance(fast, str):
        assert fast == slow
        return
    assert (fast.counts, fast.rejected, fast.splits) == (slow.counts, slow.rejected, slow.splits)
    assert [_content(sequence) for sequence in fast.sequences] == [
        _content(sequence) for sequence in slow.sequences
    ]


def _content(sequence: EventSequence) -> tuple:
    arrays = [(array.dtype, array.tolist()) for array in (sequence.times, sequence.types)]
    return (sequence.sequence_id, *arrays, sequence.texts, sequence.images, sequence.questions)


def _csv(rows: list[dict], *, line_end: str = "\n") -> bytes:
    sink = io.StringIO()
    writer = csv.DictWriter(sink, ["t", *CLEAN], lineterminator=line_end)
    writer.writeheader()
    writer.writerows(rows)
    return sink.getvalue().encode("utf-8", "surrogatepass")


@given(
    TEXT_TABLES,
    st.booleans(),
    st.sampled_from([TypeCodes(()), TypeCodes(("7", OTHER), True), TypeCodes(("0", "a"))]),
    st.sampled_from(["a.csv", "day=1/a.csv", "who=z/a.csv", "s=train/t=3/a.csv"]),
)
def test_csv(rows: list[dict], split: bool, types: TypeCodes, path: str):
    _check_equal(_columns(rows, split=split), path, _csv(rows), types)
    _check_equal(_columns(rows, split=split), path, _csv(rows, line_end="\r\n"), types)


@given(TEXT_TABLES, st.sampled_from(["a.jsonl", "a.json", "day=1/a.jsonl", "x=z/a.jsonl"]))
def test_json(rows: list[dict], path: str):
    rows = [{name: value for name, value in row.items() if value != ""} for row in rows]
    lines = "\n".join(json.dumps(row) for row in rows)
    data = (json.dumps(rows) if path == "a.json" else lines).encode()
    if rows:
        _check_equal(_columns(rows, split=False), path, data, TypeCodes(()))


@given(
    _table(
        t=st.one_of(NUMBERS, st.none()),
        who=st.integers(0, 2),
        k=st.integers(0, 300),
        x=TEXTS,
        i=st.sampled_from([None, "p.png"]),
        w=st.one_of(st.none(), st.floats(0, 9)),
    ).filter(bool)
)
def test_parquet_and_arrow(rows: list[dict]):
    reader = _columns(rows, split=False)
    _check_equal(reader, "a.parquet", parquet_bytes(rows), TypeCodes(()))
    _check_equal(reader, "a.arrow", arrow_bytes(rows), TypeCodes(()))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "t,who\n",
        "t,who\n1,a\n\n2,a\n",  # an empty line is no record
        "\nt,who\n1,a\n",
        "t,who,t\n1,a,2\n",
        "t,who,z,z\n1,a,2,3\n",  # two columns that are not read
        "t,who\n1,a,3\n",
        "t,who\n1\n",
        't,who\n1,"a\nb"\n2,a\n',
        't,who\n1,"a\n',
        't,who\n1,"' + "\n" * 6000 + '"\n2,a\n',
        "t;who\n1;a\n",
        "t,who\n0,a\n1,True\n",
        "t,z\n1,a\n",
    ],
)
def test_unusual_csv(text: str):
    reader = build_columns_reader(Columns(time="t", sequence="who"), seconds_per_unit=1.0)
    _check_equal(reader, "a.csv", text.encode(), TypeCodes(()))


@pytest.mark.parametrize(
    ("columns", "rows"),
    [
        ({"time": "t", "date": "d"}, [{"t": "12:00", "d": "2024-01-31"}, {"t": "1:00", "d": ""}]),
        ({"time": "t", "date": "d"}, [{"t": "12:00", "d": "2024-01-31"}]),
        (
            {"time": "t", "text": "x"},
            [{"t": 1, "x": True}, {"t": 1.5, "x": 2}, {"t": 2, "x": None}],
        ),
        ({"time": "t", "type": "k"}, [{"t": 1, "k": True}, {"t": 1, "k": 1}, {"t": 1, "k": 1.0}]),
        ({"time": "t", "type": "k"}, [{"t": 1, "k": 0.0}, {"t": 1, "k": -0.0}]),
        ({"time": "t", "sequence": "who"}, [{"t": 1, "who": 1}, {"t": 1, "who": 1.0}]),
        ({"time": "t", "sequence": "who"}, [{"t": 1, "who": [1]}, {"t": 1, "who": {}}]),
        ({"time": "t", "type": "k"}, [{"t": [1, 2], "k": [0, 1]}, {"t": 3, "k": 0}]),
        ({"time": "m.t"}, [{"m": {"t": 1}}]),
        ({"time": "t", "image": "i"}, [{"t": 1, "i": 0}, {"t": 2, "i": False}]),
        ({"time": "t"}, [1, {"t": 2}]),
        ({"time": "t"}, [{"t": 10**400}, {"t": 2}]),
        ({"time": "t", "interval": "w"}, [{"t": 0}, {"t": 1, "w": 1}, {"t": 2, "w": 10**400}]),
        ({"time": "t", "interval": "w"}, [{"t": 0}, {"t": 1, "w": True}, {"t": 2, "w": "x"}]),
        ({"time": "t", "text": "x"}, [{"t": 1, "x": "\ud83d"}, {"t": 1, "x": "\ude00"}]),
    ],
)
def test_values_of_several_kinds(columns: dict, rows: list):
    reader = build_columns_reader(Columns(**columns), seconds_per_unit=1.0)
    data = "\n".join(map(json.dumps, rows)).encode()
    _check_equal(reader, "a.jsonl", data, TypeCodes(()))


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet", ".arrow"])
def test_ordinary_files_are_read_as_columns(suffix: str):
    """Otherwise this module would compare records with themselves, and reading would be slow."""
    rows = [
        {"t": 60.0 * at, "who": f"u{at % 3}", "k": at % 2, "x": "é", "i": "p.png", "w": 180.0}
        for at in range(9)
    ]
    frame = pd.DataFrame(rows)
    data = {
        ".csv": lambda: frame.to_csv(index=False).encode(),
        ".jsonl": lambda: frame.to_json(orient="records", lines=True).encode(),
        ".parquet": lambda: parquet_bytes(rows),
        ".arrow": lambda: arrow_bytes(rows),
    }[suffix]()
    parser = ColumnsParser(Columns(**COLUMNS), 1.0)
    columns = parser.parse_columns(f"a{suffix}", data)
    assert columns is not None
    assert columns.times == [60.0 * at for at in range(9)]
    reader = replace(
        build_columns_reader(Columns(**COLUMNS), seconds_per_unit=1.0), parse=_no_parse
    )
    parsed = read_file(reader, f"a{suffix}", data, types=TypeCodes(()))
    assert [sequence.sequence_id for sequence in parsed.sequences] == ["u0", "u1", "u2"]
    assert np.array_equal(parsed.sequences[1].times, [60.0, 240.0, 420.0])
    assert (parsed.counts.num_read, parsed.counts.num_disagreeing) == (9, 0)


def _no_parse(path: str, data: bytes):
    raise AssertionError("read record by record")


@pytest.mark.parametrize(
    "columns",
    [
        RawColumns("a", [0.0, 1.0], intervals=[None, math.nan]),  # NaN is compared, None is not
        RawColumns("a", [0.0, 1.0], intervals=[0, 10**400]),
        RawColumns("a", [0.0, 10**400]),
        RawColumns(["a", "b"], [0.0, 1.0], splits=["train", "none"]),
        RawColumns("\ud800", [0.0]),
    ],
)
def test_columns_of_any_reader_that_need_a_look_at_each_record(columns: RawColumns):
    assert read_columns(columns, TypeCodes(())) is None
