"""Tables with a mapping of their columns: formats, dates, lists, ids and malformed rows."""

import gzip
import io
import math
from datetime import date, datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmtpp.core.errors import ConfigError
from mmtpp.data.sources import build_reader
from mmtpp.data.sources.checking import read_file
from mmtpp.data.sources.columns import Columns
from mmtpp.data.sources.decimals import plain_number
from mmtpp.data.sources.event_files import MalformedFileError
from mmtpp.data.sources.reader import ParsedFile
from mmtpp.data.sources.type_codes import TypeCodes
from tests.helpers.event_files import CAB_FILES, CAB_ROWS
from tests.helpers.tables import csv_bytes, json_lines, parquet_bytes

CAB = Columns(time="unix_time", sequence="cab_id", type="event_type")
CAB_TYPES = ("pickup", "dropoff")


def _read(path: str, data: bytes, columns: Columns = CAB, names: tuple = CAB_TYPES) -> ParsedFile:
    return read_file(build_reader("columns", columns=columns), path, data, types=TypeCodes(names))


@pytest.mark.parametrize("path", CAB_FILES)
def test_every_form_of_a_table_gives_the_same_sequences(path: str):
    parsed = _read(path, CAB_FILES[path])
    assert (parsed.counts.num_read, len(parsed.rejected), parsed.counts.num_reordered) == (3, 0, 1)
    by_id = {sequence.sequence_id: sequence for sequence in parsed.sequences}
    assert list(by_id) == ["b", "a"]
    assert by_id["b"].times.tolist() == [11.0, 20.5]
    assert by_id["b"].types.tolist() == [0, 1]
    assert by_id["b"].texts == ("", "")


def test_a_file_is_one_sequence_without_a_sequence_column():
    parsed = _read("x/t.csv", csv_bytes(CAB_ROWS), Columns(time="unix_time"), ())
    (sequence,) = parsed.sequences
    assert (sequence.sequence_id, sequence.types.tolist()) == ("x/t", [0, 0, 0])


def test_dates_become_times_in_the_unit():
    rows = [{"at": "2015-01-01 00:00:30"}, {"at": "2015-01-01T01:00:00+01:00"}, {"at": "soon"}]
    reader = build_reader("columns", columns=Columns(time="at"), seconds_per_unit=60.0)
    midnight = 1420070400 / 60  # 1 January 2015, UTC
    parsed = read_file(reader, "t.csv", csv_bytes(rows), types=TypeCodes(()))
    (sequence,) = parsed.sequences
    assert sequence.times.tolist() == [midnight, midnight + 0.5]
    assert [record.cause for record in parsed.rejected] == ["unreadable_time"]
    stamps = pa.table({"at": pa.array([1420070400_000_000], pa.timestamp("us"))})
    sink = io.BytesIO()
    pq.write_table(stamps, sink)
    (sequence,) = read_file(reader, "t.parquet", sink.getvalue(), types=TypeCodes(())).sequences
    assert sequence.times.tolist() == [midnight]


def test_rows_of_lists_are_sequences_and_declared_intervals_are_compared():
    """Published bug 19: declared and recomputed intervals that disagree are reported."""
    columns = Columns(time="t", type="k", interval="dt")
    rows = [{"t": [1.0, 2.5, 2.5], "k": [0, 1, 2], "dt": [1.0, 1.501, 0.5]}, {"t": [1], "k": []}]
    parsed = _read("s.jsonl", json_lines(rows), columns, ())
    (sequence,) = parsed.sequences
    assert (sequence.sequence_id, sequence.times.tolist()) == ("s#0", [1.0, 2.5, 2.5])
    # the first has no predecessor, the second is rounded, the third is wrong
    assert parsed.counts.num_disagreeing == 1
    assert (parsed.rejected[0].cause, parsed.rejected[0].row) == ("malformed_record", 1)
    assert parsed.counts.num_read == 4


@pytest.mark.parametrize(
    ("path", "data", "problem"),
    [
        ("t.csv", b"a,b\n1,2\n", "no column 'cab_id', 'event_type', 'unix_time'; it has"),
        ("t.csv", b"\xff\xfea", "not utf-16"),
        ("t.csv.gz", b"no", "not gzip"),
        ("t.parquet", b"PAR1no", "not readable as Parquet"),
        ("t.json", b"{", "not JSON"),
        ("t.json", b"3", "a list of records expected"),
        ("t.csv", b'"unix_time\n1,2', "line 1"),
    ],
)
def test_a_file_that_is_not_a_table_is_an_error_with_its_name(path: str, data: bytes, problem: str):
    with pytest.raises(MalformedFileError, match=problem) as caught:
        _read(path, data)
    assert path.removesuffix(".gz") in str(caught.value)


def test_bad_rows_of_a_table_are_rejected_by_cause_and_row():
    data = b"cab_id,unix_time,event_type\na,1,pickup\na,x,pickup\na,2\n,3,pickup\na,4,flying\n"
    parsed = _read("t.csv", data)
    causes = [(record.row, record.cause) for record in parsed.rejected]
    assert causes == [
        (1, "unreadable_time"),
        (2, "malformed_record"),
        (3, "malformed_record"),
        (4, "unknown_type"),
    ]
    assert parsed.counts.num_read == 5


@pytest.mark.parametrize("path", ["x/a.b.csv", "x/a.b.csv.gz", "x/a.b.parquet"])
def test_only_the_suffix_is_left_out_of_a_sequence_id(path: str):
    rows = [{"t": 1}]
    data = parquet_bytes(rows) if path.endswith("parquet") else csv_bytes(rows)
    data = gzip.compress(data) if path.endswith("gz") else data
    (sequence,) = _read(path, data, Columns(time="t"), ()).sequences
    assert sequence.sequence_id == "x/a.b"


def test_a_date_that_python_cannot_represent_rejects_only_its_event():
    sink = io.BytesIO()
    pq.write_table(pa.table({"t": pa.array([1, 10**14], pa.timestamp("s"))}), sink)
    parsed = _read("t.parquet", sink.getvalue(), Columns(time="t"), ())
    assert (
        parsed.sequences[0].times.tolist(),
        [record.cause for record in parsed.rejected],
    ) == ([1.0], ["unreadable_time"])


def test_dates_without_a_time_of_day_and_decimals_are_times():
    sink = io.BytesIO()
    pq.write_table(pa.table({"t": pa.array([date(1970, 1, 3), date(1969, 1, 1)])}), sink)
    parsed = _read("t.parquet", sink.getvalue(), Columns(time="t"), ())
    assert parsed.sequences[0].times.tolist() == [-365 * 86400.0, 172800.0]
    sink = io.BytesIO()
    pq.write_table(pa.table({"t": pa.array([Decimal("1.50")])}), sink)
    (sequence,) = _read("t.parquet", sink.getvalue(), Columns(time="t"), ()).sequences
    assert sequence.times.tolist() == [1.5]


_DECIMALS = Columns(time="t", sequence="id", type="k", text="x", interval="dt", split="s")


def _decimal_table(rows: list[dict[str, str | None]], scale: int) -> bytes:
    """Content of a Parquet file whose columns, except for the split, are of the type decimal128."""
    kind = pa.decimal128(30, scale)
    columns = {
        name: pa.array([row[name] for row in rows])
        if name == "s"
        else pa.array([None if row[name] is None else Decimal(row[name]) for row in rows], kind)
        for name in rows[0]
    }
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def _is_same(first: ParsedFile, second: ParsedFile) -> bool:
    """Whether two files have the same events, rejected records apart."""
    same = len(first.sequences) == len(second.sequences) and first.splits == second.splits
    return same and all(
        (a.sequence_id, a.texts, a.times.tolist(), a.types.tolist())
        == (b.sequence_id, b.texts, b.times.tolist(), b.types.tolist())
        for a, b in zip(first.sequences, second.sequences, strict=True)
    )


@pytest.mark.parametrize("scale", [2, 0])
def test_columns_of_decimals_give_the_events_of_the_same_numbers_in_csv(scale: int):
    half = ".5" if scale else ""
    rows = [
        {"t": "1", "id": "7", "k": "0", "x": "12" + half, "dt": None, "s": "train"},
        {"t": "2" + half, "id": "7", "k": "2", "x": "3", "dt": "1" + half, "s": "train"},
        {"t": "4", "id": "-8", "k": "1", "x": None, "dt": "9", "s": "dev"},
        {"t": "5", "id": "-8", "k": "1", "x": "0", "dt": "9", "s": "dev"},
    ]
    text = "t,id,k,x,dt,s\n" + "\n".join(
        ",".join(value or "" for value in row.values()) for row in rows
    )
    decimals = _read("t.parquet", _decimal_table(rows, scale), _DECIMALS, ())
    written = _read("t.csv", text.encode(), _DECIMALS, ())
    assert (decimals.rejected, written.rejected) == ([], [])
    assert _is_same(decimals, written)
    assert [sequence.sequence_id for sequence in decimals.sequences] == ["7", "-8"]
    assert decimals.sequences[0].texts == ("12" + half, "3")
    assert decimals.counts == written.counts
    assert decimals.counts.num_disagreeing == 1


def test_decimals_stay_apart_and_a_type_between_two_numbers_is_rejected():
    close = ["9007199254740992", "9007199254740993"]  # one float
    rows = [{"t": "1", "id": value, "k": "1"} for value in close]
    columns = Columns(time="t", sequence="id", type="k")
    ids = [
        s.sequence_id for s in _read("t.parquet", _decimal_table(rows, 0), columns, ()).sequences
    ]
    assert ids == close
    finer = ["0.1000000000000000000000001", "0.1000000000000000000000002"]
    rows = [{"t": "1", "id": value, "k": "1.5"} for value in finer]
    parsed = _read("t.parquet", _decimal_table(rows, 25), columns, ())
    assert [record.cause for record in parsed.rejected] == ["unreadable_type"] * 2
    assert [record.sequence_id for record in parsed.rejected] == finer


def test_dates_in_columns_of_decimals_are_read_in_their_format():
    columns = Columns(time="t", time_format="%Y%m%d")
    for scale in (0, 2):
        data = _decimal_table([{"t": "19700102"}, {"t": "19700103"}], scale)
        (sequence,) = _read("t.parquet", data, columns, ()).sequences
        assert sequence.times.tolist() == [86400.0, 172800.0]
    columns = Columns(time="t", date="d", time_format="%Y%m%d %H%M")
    data = _decimal_table([{"d": "19700102", "t": "1030"}], 2)
    (sequence,) = _read("t.parquet", data, columns, ()).sequences
    assert sequence.times.tolist() == [86400.0 + 10.5 * 3600]


def test_long_decimals_stay_whatever_their_scale():
    digits = "1.23456789012345678901"
    assert str(plain_number(Decimal(digits + "00000"))) == digits
    assert plain_number(Decimal("1E+5000")) == Decimal("1E+5000")  # no integer of 5,001 digits


def test_plain_numbers():
    numbers = [Decimal(text) for text in ("7.00", "-0.0", "1E+3", "1.50", "1E-7")]
    assert list(map(plain_number, numbers)) == [7, 0, 1000, 1.5, 1e-7]
    assert [type(plain_number(number)) for number in numbers] == [int, int, int, float, float]
    assert plain_number(Decimal("-Infinity")) == -math.inf
    assert all(math.isnan(plain_number(Decimal(text))) for text in ("NaN", "sNaN"))  # pyright: ignore[reportArgumentType]
    longer = Decimal("0.1234567890123456789")
    assert str(plain_number(longer)) == str(longer)
    assert [plain_number(value) for value in (None, "7.00", True)] == [None, "7.00", True]


def test_dates_as_ids_are_written_and_as_texts_are_rejected():
    columns = Columns(time="t", sequence="id", text="x")
    when = [date(2024, 1, 31), datetime(2024, 1, 31, 12, 30)]
    for day, name in zip(when, ("2024-01-31", "2024-01-31 12:30:00"), strict=True):
        parsed = _read("t.parquet", parquet_bytes([{"t": 1, "id": day, "x": "a"}]), columns, ())
        assert [sequence.sequence_id for sequence in parsed.sequences] == [name]
        parsed = _read("t.parquet", parquet_bytes([{"t": 1, "id": "a", "x": day}]), columns, ())
        (rejected,) = parsed.rejected
        assert rejected.cause == "invalid_text"
        assert f"text is of the type {type(day).__name__}: datetime" in rejected.detail


def test_odd_ids_headers_and_declared_intervals():
    columns = Columns(time="t", sequence="id", interval="dt")
    data = b"t,id,dt\n1,1.0,\n2,1.0,\n3,1.0,7\n"
    parsed = _read("t.csv", data, columns, ())
    assert (
        [sequence.sequence_id for sequence in parsed.sequences],
        parsed.counts.num_disagreeing,
    ) == (["1.0"], 1)
    nameless = _read("t.json", b'[{"t": 1, "id": NaN, "dt": 0}]', columns, ())
    assert [record.cause for record in nameless.rejected] == ["malformed_record"]
    with pytest.raises(MalformedFileError, match="two columns have the same name"):
        _read("t.csv", b"t,t\n1,2\n", Columns(time="t"), ())
    unequal = _read(
        "t.jsonl", json_lines([{"t": [1, 2, 3], "k": [0]}]), Columns(time="t", type="k"), ()
    )
    assert (unequal.counts.num_read, len(unequal.rejected)) == (3, 3)


def test_a_missing_text_is_an_empty_text():
    columns = Columns(time="t", text="x")
    rows = [{"t": 1, "x": None}, {"t": 2, "x": 3.5}, {"t": 3, "x": "three"}]
    for path, data in (
        ("t.parquet", parquet_bytes([{"t": 1, "x": None}, {"t": 2, "x": "3.5"}])),
        ("t.jsonl", json_lines(rows)[: len(json_lines(rows[:2]))]),
    ):
        (sequence,) = _read(path, data, columns, ()).sequences
        assert sequence.texts == ("", "3.5")
    (sequence,) = _read("t.jsonl", json_lines([{"t": [1, 2]}]), Columns(time="t"), ()).sequences
    assert sequence.texts == ("", "")


def test_columns_without_a_time_column_is_a_configuration_error():
    with pytest.raises(ConfigError, match=r"source\.columns\.time"):
        build_reader("columns", columns=Columns(time=""))
