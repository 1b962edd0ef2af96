"""Records of table files: CSV, JSON lines, JSON and Parquet."""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "bar": "|"}
MAX_UNPACKED_BYTES = 2**31
MAX_FIELD_BYTES = 2**27
MAX_LINES_A_RECORD = 5000  # a quote that is never closed must not take the rest of the file along

# for the whole process: the csv module has no other way
csv.field_size_limit(MAX_FIELD_BYTES)

Record = tuple[int, dict | None, str]
"""Row from 0, the record or None, and what is wrong with it or nothing."""


class MalformedFileError(ValueError):
    """A file that cannot be read as events at all; the message says where and why.

    Attributes:
        num_events: Number of events the file seems to hold; None where that is unknown.
    """

    def __init__(self, message: str, *, num_events: int | None = None) -> None:
        super().__init__(message)
        self.num_events = num_events


@dataclass(frozen=True, slots=True)
class CsvFormat:
    """How CSV files are written.

    Attributes:
        separator: One character, or empty to recognise it.
        quote: The character around fields that hold separators.
        escape: The character that takes the meaning from a quote; empty where quotes are doubled.
        encoding: Python's name of the encoding.
    """

    separator: str = ""
    quote: str = '"'
    escape: str = ""
    encoding: str = "utf-8"


@dataclass(frozen=True, slots=True)
class Table:
    """The records of a file.

    Attributes:
        records: One after the other; a record that cannot be read comes with its problem.
        names: Columns of the file, where its header says so; None for JSON.
    """

    records: Iterable[Record]
    names: tuple[str, ...] | None = None


def read_table_file(
    path: str, data: bytes, *, wanted: Sequence[str] = (), form: CsvFormat | None = None
) -> Table:
    """The records of a file, by its suffix.

    Args:
        path: Name of the file, for its suffix and for messages.
        data: Its content, unpacked.
        wanted: Columns to read; all where none is named. JSON records come whole.
        form: How CSV is written.

    Raises:
        MalformedFileError: The file as a whole cannot be read.
    """
    form = form or CsvFormat()
    kind = suffix_of(path)
    if kind == ".parquet":
        return _parquet(path, data, wanted)
    is_csv = kind in (".csv", ".tsv")
    text = as_text(path, data, encoding=form.encoding if is_csv else "utf-8")
    if is_csv:
        return _csv(path, text, wanted, form)
    return Table(_json_lines(text) if kind in (".jsonl", ".ndjson") else _json(path, text))


def read_records(path: str, data: bytes) -> Iterable[Record]:
    """All records of a file with all columns, as ``read_table_file`` has them.

    Raises:
        MalformedFileError: The file as a whole cannot be read.
    """
    return read_table_file(path, data).records


def suffix_of(path: str) -> str:
    """The ending of a file's name in small letters, without ``.gz``; empty if there is none."""
    name = path.rpartition("/")[2].lower().removesuffix(".gz")
    return f".{name.rpartition('.')[2]}" if "." in name else ""


def unpacked(path: str, data: bytes) -> bytes:
    """The content of a file, which is gzip where its name ends in ``.gz``.

    Raises:
        MalformedFileError: Not gzip, damaged, or larger than 2 GiB unpacked.
    """
    if not path.lower().endswith(".gz"):
        return data
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            content = file.read(MAX_UNPACKED_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise MalformedFileError(f"{path}: not gzip: {error}") from error
    if len(content) > MAX_UNPACKED_BYTES:
        raise MalformedFileError(f"{path}: more than {MAX_UNPACKED_BYTES} bytes unpacked")
    return content


def as_text(path: str, data: bytes, *, encoding: str = "utf-8") -> str:
    """Text in an encoding, or in that of a byte order mark.

    A byte that is none of the encoding becomes a lone surrogate, so that only the records that
    hold one are refused.

    Raises:
        MalformedFileError: The encoding is not known, or not one of text.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    if encoding.lower().replace("_", "-") in ("utf-8", "utf8"):
        encoding = "utf-8-sig"
    try:
        return data.decode(encoding, "surrogateescape")
    except (UnicodeError, LookupError) as error:
        raise MalformedFileError(f"{path}: not {encoding}: {error}") from error


def count_lines(data: bytes) -> int:
    """Number of lines that hold anything."""
    return sum(1 for line in data.splitlines() if line.strip())


def _csv(path: str, text: str, wanted: Sequence[str], form: CsvFormat) -> Table:
    lines = io.StringIO(text, newline="").readlines()
    separator = form.separator or _separator(path, lines, wanted, form)
    dialect: dict = {
        "delimiter": separator,
        "quotechar": form.quote,
        "doublequote": not form.escape,
        "escapechar": form.escape or None,
        "strict": True,
    }
    rows = _rows(lines, dialect)
    first = next(rows, [])
    if isinstance(first, str):
        raise MalformedFileError(f"{path}: line 1: {first}")
    header = [name.strip() for name in first]
    for name in wanted or header:
        if name and header.count(name) > 1:
            raise MalformedFileError(f"{path}: two columns of one name in {header}")
    places = [(name, place) for place, name in enumerate(header) if not wanted or name in wanted]
    return Table(_csv_records(rows, header, places), tuple(header))


def _csv_records(
    rows: Iterator[list[str] | str], header: list[str], places: list[tuple[str, int]]
) -> Iterator[Record]:
    row = -1
    for fields in rows:
        row += 1
        if isinstance(fields, str):
            yield row, None, fields
        elif not fields:
            continue  # an empty line is no record
        elif len(fields) == len(header):
            yield row, {name: fields[place] for name, place in places}, ""
        else:
            problem = (
                f"{len(fields)} fields, the header has {len(header)}; a field that holds the "
                "separator is put in quotes"
            )
            yield row, {"fields": fields}, problem


def _rows(lines: Sequence[str], dialect: dict) -> Iterator[list[str] | str]:
    """The fields of each record; of a damaged one what is wrong, and then the next line."""
    start = 0
    while start < len(lines):
        limit = [start + MAX_LINES_A_RECORD]
        reader = csv.reader(_bounded(lines, start, limit), **dialect)
        done = start
        try:
            for fields in reader:
                yield fields
                done = start + reader.line_num
                limit[0] = done + MAX_LINES_A_RECORD
            return
        except csv.Error as error:
            yield (
                f"line {done + 1}: {error}; quotes inside a field are doubled, or set "
                "source.csv.escape, source.csv.quote"
            )
            start = done + 1


def _bounded(lines: Sequence[str], start: int, limit: list[int]) -> Iterator[str]:
    for place in range(start, len(lines)):
        if place >= limit[0]:
            raise csv.Error(f"a quote that is not closed in {MAX_LINES_A_RECORD} lines")
        yield lines[place]


def _separator(path: str, lines: Sequence[str], wanted: Sequence[str], form: CsvFormat) -> str:
    """The separator by which the header has all wanted columns, or most of them, or most."""
    default = "\t" if suffix_of(path) == ".tsv" else ","
    header = next((line for line in lines if line.strip()), "")
    found = {}
    for mark in dict.fromkeys([default, *SEPARATORS.values()]):
        try:
            names = next(csv.reader([header], delimiter=mark, quotechar=form.quote), [])
        except csv.Error:
            continue
        names = [name.strip() for name in names]
        found[mark] = (sum(name in names for name in wanted), len(names))
    return max(found, key=lambda mark: found[mark], default=default)


def _json_lines(text: str) -> Iterator[Record]:
    for row, line in enumerate(text.split("\n")):
        if line.strip():
            try:
                yield _record(row, json.loads(line))
            except (ValueError, RecursionError) as error:
                yield row, {"line": line[:1000]}, f"not JSON: {error}"


def _json(path: str, text: str) -> Iterator[Record]:
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as error:
        first = text.lstrip().partition("\n")[0]
        if not (first.startswith("{") and first.rstrip().endswith("}")):
            raise MalformedFileError(f"{path}: not JSON: {error}") from error
        yield from _json_lines(text)  # JSON lines under the other name
        return
    if isinstance(tree, dict) and "\n" not in text.strip():
        tree = [tree]  # JSON lines of one line, under the other name
    if not isinstance(tree, list):
        raise MalformedFileError(f"{path}: a list of records expected, found {type(tree).__name__}")
    for row, record in enumerate(tree):
        yield _record(row, record)


def _record(row: int, record: object) -> Record:
    if isinstance(record, dict):
        return row, record, ""
    return row, {"value": record}, "a record must be an object"


def _parquet(path: str, data: bytes, wanted: Sequence[str]) -> Table:
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        names = tuple(file.schema_arrow.names)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise MalformedFileError(f"{path}: not readable as Parquet: {error}") from error
    columns = [name for name in names if name in wanted] if wanted else list(names)
    return Table(_parquet_records(path, file, columns), names)


def _parquet_records(path: str, file: pq.ParquetFile, columns: list[str]) -> Iterator[Record]:
    row = 0
    try:
        for batch in file.iter_batches(columns=columns):
            values = [_values(batch.column(place)) for place in range(len(columns))]
            for place in range(batch.num_rows):
                record = {name: column[place] for name, column in zip(columns, values, strict=True)}
                yield row, record, ""
                row += 1
    except (pa.ArrowException, OSError, ValueError) as error:
        raise MalformedFileError(f"{path}: not readable as Parquet: {error}") from error


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A value of a file that Python cannot hold, such as a date beyond the year 9999."""

    reason: str


def _values(column: pa.Array) -> list:
    """Python values of a column; ``Unreadable`` for one that Python cannot hold."""
    try:
        return column.to_pylist()
    except (ArithmeticError, ValueError):
        return [_value(column[place]) for place in range(len(column))]


def _value(scalar: pa.Scalar) -> object:
    try:
        return scalar.as_py()
    except (ArithmeticError, ValueError) as error:
        return Unreadable(str(error))
