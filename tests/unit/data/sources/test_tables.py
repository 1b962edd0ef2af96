"""Records of table files: separators, quotes, encodings, damaged rows and mapped columns."""

import csv
import gzip
import io

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmtpp.data.encode.source_listing import SourceListing
from mmtpp.data.sources import build_reader
from mmtpp.data.sources.checking import read_file
from mmtpp.data.sources.columns import Columns
from mmtpp.data.sources.event_files import MalformedFileError
from mmtpp.data.sources.reader import ParsedFile
from mmtpp.data.sources.tables import CsvFormat, read_table_file
from mmtpp.data.sources.type_codes import TypeCodes

COLUMNS = Columns(time="t", sequence="s", type="k", text="x")


def _read(path: str, data: bytes, *, csv_format: CsvFormat | None = None) -> ParsedFile:
    reader = build_reader("columns", columns=COLUMNS, csv=csv_format)
    return read_file(reader, path, data, types=TypeCodes(("a",)))


def _rows(*texts: str) -> list[str]:
    return ["s,t,k,x", *(f"s0,{place},a,{text}" for place, text in enumerate(texts))]


def _texts(parsed: ParsedFile) -> tuple[str, ...]:
    return parsed.sequences[0].texts if parsed.sequences else ()


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_separator_is_the_one_by_which_the_header_has_the_columns(separator: str):
    texts = ["plain", "with, comma", "with; semicolon"]
    rows = [["s", "t", "k", "x"], *(["s0", f"{i}", "a", text] for i, text in enumerate(texts))]
    target = io.StringIO()
    csv.writer(target, delimiter=separator).writerows(rows)
    assert _texts(_read("t.csv", target.getvalue().encode())) == tuple(texts)


def test_a_semicolon_file_with_decimal_commas():
    parsed = _read("t.csv", b"s;t;k;x\ns0;0,5;a;\ns0;1,5;a;\n")
    assert parsed.sequences[0].times.tolist() == [0.5, 1.5]


@pytest.mark.parametrize(
    ("damaged", "problem"),
    [
        ('"5" screen"', "quotes inside a field"),
        ('"he said \\"hi\\" 37"', "source.csv.escape"),
        ('"never closed', "quotes inside a field|not closed|unexpected end"),
        ("two,fields", "5 fields, the header has 4"),
    ],
)
def test_a_damaged_row_is_one_rejected_row(damaged: str, problem: str):
    rows = _rows(*["before"] * 50, damaged, *['"after ""all"""'] * 50)
    parsed = _read("t.csv", "\n".join(rows).encode())
    assert _texts(parsed) == ("before",) * 50 + ('after "all"',) * 50
    [record] = parsed.rejected
    assert (record.row, record.cause, parsed.counts.num_read) == (50, "malformed_record", 101)
    assert any(part in record.detail for part in problem.split("|"))


def test_many_unclosed_quotes_are_read_fast():
    rows = _rows(*['"open'] * 3000)
    parsed = _read("t.csv", "\n".join(rows).encode())
    assert parsed.counts.num_read == 3000


def test_an_escaped_quote_is_read_with_the_setting():
    rows = _rows('"he said \\"hi\\", then left"')
    parsed = _read("t.csv", "\n".join(rows).encode(), csv_format=CsvFormat(escape="\\"))
    assert _texts(parsed) == ('he said "hi", then left',)


def test_a_text_of_more_than_131072_characters_is_a_text():
    parsed = _read("t.csv", "\n".join(_rows("short", "y" * 200_000)).encode())
    assert [len(text) for text in _texts(parsed)] == [5, 200_000]


def test_a_byte_of_another_encoding_rejects_only_its_row():
    data = "\n".join(_rows("plain", "caf\xe9", "plain")).encode("cp1252")
    parsed = _read("t.csv", data)
    assert (len(_texts(parsed)), [r.cause for r in parsed.rejected]) == (2, ["invalid_text"])
    assert parsed.rejected[0].detail.endswith(
        "text has the byte 0xE9, which is invalid in the encoding of the file; set "
        "source.csv.encoding, now utf-8, to the encoding of the file"
    )
    line = '{"s": "s0", "t": 0, "k": "a", "x": "caf\xe9"}'
    [lost] = _read("t.jsonl", line.encode("cp1252")).rejected
    assert lost.detail.endswith("encoding of the file; convert the file to UTF-8")
    assert "caf\xe9" in _texts(_read("t.csv", data, csv_format=CsvFormat(encoding="cp1252")))
    utf16 = "\n".join(_rows("caf\xe9")).encode("utf-16")
    assert _texts(_read("t.csv", utf16)) == ("caf\xe9",)
    with pytest.raises(MalformedFileError, match=r"correct source\.csv\.encoding = klingon"):
        _read("t.csv", data, csv_format=CsvFormat(encoding="klingon"))
    without_mark = "\n".join(_rows("caf\xe9")).encode("utf-16-le")
    with pytest.raises(MalformedFileError, match=r"or source\.csv\.encoding = utf-8"):
        _read("t.csv", without_mark)


def test_names_of_files_in_any_case_and_gzip():
    data = "\n".join(_rows("a", "b")).encode()
    lines = b'{"s": "s0", "t": 0, "k": "a", "x": "a"}\n{"s": "s0", "t": 1, "k": "a", "x": "b"}\n'
    files = {
        "a.CSV": data,
        "a.csv.gz": gzip.compress(data),
        "a.CSV.GZ": gzip.compress(data),
        "a.tsv": data.replace(b",", b"\t"),
        "a.ndjson": lines,
        "2015-01-01-15.json.gz": gzip.compress(lines),
        "one.json": lines.splitlines()[0],
    }
    for path, content in files.items():
        expected = ("a",) if path == "one.json" else ("a", "b")
        assert _texts(_read(path, content)) == expected


def test_files_that_are_not_read_are_counted_by_suffix():
    reader = build_reader("columns", columns=COLUMNS)
    info = pa.fs.FileInfo("x", type=pa.fs.FileType.File, size=1)  # pyright: ignore[reportAttributeAccessIssue]
    names = [
        "a.csv",
        "b/c.JSONL",
        "d.xlsx",
        "e.XLSX",
        "README",
        "f.png",
        ".hidden",
        "_SUCCESS",
        "g.json.gz",
    ]
    listing = SourceListing.from_files(reader, [(name, info) for name in names])
    assert [path for path, _ in listing.events] == ["a.csv", "b/c.JSONL", "g.json.gz"]
    assert listing.not_read == {".xlsx": 2, "without a suffix": 1}
    assert "3 files are not read" in listing.warning()


def test_an_unmapped_column_is_not_read():
    count = 2000
    forever = pa.array([2**63 - 1] * count, pa.timestamp("us"))
    table = pa.table(
        {
            "s": ["s0"] * count,
            "t": list(range(count)),
            "k": ["a"] * count,
            "x": ["text"] * count,
            "valid_until": forever,
        }
    )
    sink = io.BytesIO()
    pq.write_table(table, sink)
    parsed = _read("t.parquet", sink.getvalue())
    assert (parsed.counts.num_read, parsed.rejected) == (count, [])
    [first, *_] = read_table_file("t.parquet", sink.getvalue(), wanted=["t"]).records
    assert first.values == {"t": 0}


def test_columns_of_one_name_matter_only_where_they_are_mapped():
    parsed = _read("t.csv", b"s,t,k,x,,\ns0,0,a,hi,,\n")
    assert _texts(parsed) == ("hi",)
    with pytest.raises(MalformedFileError, match="two columns have the same name"):
        _read("t.csv", b"s,t,k,x,x\n")


def test_events_with_a_blank_sequence_id_are_rejected():
    parsed = _read("t.csv", b"s,t,k,x\n ,0,a,hi\n\t,1,a,hi\n,2,a,hi\ns0,3,a,hi\n")
    assert (
        [sequence.sequence_id for sequence in parsed.sequences],
        sum("the sequence, is empty" in record.detail for record in parsed.rejected),
    ) == (["s0"], 3)


def test_a_date_and_a_time_of_day_in_two_columns():
    columns = Columns(time="clock", date="day", time_format="%y%m%d %H%M%S")
    reader = build_reader("columns", columns=columns)
    data = b"day,clock\n081109,203615\n081110,000001\n,000002\n"
    parsed = read_file(reader, "t.csv", data, types=TypeCodes(()))
    moments = pd.to_datetime(["2008-11-09 20:36:15", "2008-11-10 00:00:01"], utc=True)
    assert parsed.sequences[0].times.tolist() == [moment.timestamp() for moment in moments]
    assert [record.cause for record in parsed.rejected] == ["missing_time"]
    assert parsed.counts.num_dated == 2


def test_a_lost_file_says_how_many_events_it_holds():
    for path, data, count in (
        ("t.csv", b"s,t,nokind\n" + b"a,1,b\n" * 7, 7),
        ("t.jsonl", b'{"s": 1, "t": 1}\n' * 9, 9),
        ("t.json", b'[{"s": 1, "t": 1}, {"s": 2, "t": 2}, {', 2),
        ("t.parquet", b"PAR1no", None),
    ):
        with pytest.raises(MalformedFileError) as caught:
            _read(path, data)
        assert caught.value.num_events == count


@given(st.lists(st.text(alphabet=st.characters(codec="utf-8"), max_size=12), min_size=1))
def test_output_of_the_csv_module_is_read_completely(texts: list[str]):
    target = io.StringIO(newline="")
    writer = csv.writer(target)
    writer.writerows(
        [["s", "t", "k", "x"], *(["s0", i, "a", text] for i, text in enumerate(texts))]
    )
    parsed = _read("t.csv", target.getvalue().encode())
    assert _texts(parsed) == tuple(texts)


@pytest.mark.parametrize(
    ("path", "content", "position"),
    [
        ("t.csv", b's,t,k,x\ns0,0,a,"two\nlines"\n\ns0,soon,a,\n', "line 5"),
        ("t.csv", b"s,t,k,x\ns0,0,a,\ns0,1,a\n", "line 3"),
        ("t.csv", b's,t,k,x\ns0,0,a,\ns0,1,a,"open\n', "line 3"),
        (
            "t.jsonl",
            b'{"s": "s0", "t": 0, "k": "a", "x": ""}\n\n{"s": "s0", "k": "a", "x": ""}\n',
            "line 3",
        ),
        ("t.jsonl", b'{"s": "s0", "t": 0, "k": "a", "x": ""}\n{"s": \n', "line 2"),
        (
            "t.json",
            b'[{"s": "s0", "t": 0, "k": "a", "x": ""},\n\n {"s": "s0", "k": "a", "x": ""}]',
            "row 2",
        ),
    ],
)
def test_positions_in_messages_count_from_1_as_in_an_editor(
    path: str, content: bytes, position: str
):
    [rejected] = _read(path, content).rejected
    assert rejected.position == position
    assert rejected.message() == f"{path}, {position}: {rejected.fault}"
    assert "line" not in rejected.fault


def test_positions_in_a_parquet_file_count_rows_from_1():
    sink = io.BytesIO()
    columns = {"s": ["s0"] * 3, "t": [0.0, 1.0, None], "k": ["a"] * 3, "x": [""] * 3}
    pq.write_table(pa.table(columns), sink)
    [rejected] = _read("t.parquet", sink.getvalue()).rejected
    assert (rejected.row, rejected.position) == (2, "row 3")
