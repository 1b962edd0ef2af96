"""Read the records of table files: CSV, TSV, JSON lines, JSON, Parquet, Arrow and tar shards."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from mmtpp.data.sources.event_files import MalformedFileError, decode_text, suffix_of
from mmtpp.data.sources.nested_fields import struct_fields
from mmtpp.data.sources.tar_records import read_tar

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".arrow", ".tar")
CSV_SUFFIXES = (".csv", ".tsv")
SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "bar": "|"}
MAX_FIELD_BYTES = 2**27
END_OF_ARROW_STREAM = b"\xff\xff\xff\xff\0\0\0\0"
MAX_LINES_PER_RECORD = 5000  # an unclosed quote must not swallow all following lines

# the csv module has only this limit for the whole process
csv.field_size_limit(MAX_FIELD_BYTES)


class Record(NamedTuple):
    """One record of a table file.

    Attributes:
        row: Index in the file, from 0.
        values: Values by column; None if the record cannot be read.
        problem: Reason why the record is malformed; None for a well-formed record.
        line: First line of the record, from 1; None in files without lines.
    """

    row: int
    values: dict | None
    problem: str | None = None
    line: int | None = None


@dataclass(frozen=True, slots=True)
class CsvFormat:
    """How CSV files are written.

    Attributes:
        separator: Character between fields; empty to detect it.
        quote: Character around fields that contain separators.
        escape: Character before a quote inside a field; empty if such quotes are doubled.
        encoding: Name of the encoding in Python.
    """

    separator: str = ""
    quote: str = '"'
    escape: str = ""
    encoding: str = "utf-8"


@dataclass(frozen=True, slots=True)
class Table:
    """The records of a file.

    Attributes:
        records: Records in the order of the file; a malformed record has a problem.
        names: Columns of the file, and dotted names of the fields inside their structs; None for
            JSON, which has no header.
    """

    records: Iterable[Record]
    names: tuple[str, ...] | None = None


def read_table_file(
    path: str, data: bytes, *, wanted: Sequence[str] = (), csv_format: CsvFormat | None = None
) -> Table:
    """Read the records of a file. Its suffix determines the format.

    Args:
        path: Path of the file, for its suffix and for messages.
        data: Unpacked content of the file.
        wanted: Columns to read; empty reads all columns. JSON records always have all columns.
        csv_format: Format of CSV files; None uses the defaults.

    Raises:
        MalformedFileError: The file as a whole cannot be read.
    """
    csv_format = csv_format or CsvFormat()
    kind = suffix_of(path)
    if kind == ".parquet":
        return _read_parquet(path, data, wanted)
    if kind == ".arrow":
        return _read_arrow(path, data, wanted)
    if kind == ".tar":
        return Table(
            Record(row, fields, problem)
            for row, (fields, problem) in enumerate(read_tar(path, data))
        )
    if kind in CSV_SUFFIXES:
        try:
            text = decode_text(path, data, encoding=csv_format.encoding)
        except MalformedFileError as error:
            setting = f"source.csv.encoding = {csv_format.encoding}"
            raise MalformedFileError(f"{error}; correct {setting}") from error
        return _read_csv(path, text, wanted, csv_format)
    text = decode_text(path, data)
    return Table(_read_lines(text) if kind in (".jsonl", ".ndjson") else _read_json(path, text))


def read_values(
    path: str, data: bytes, *, wanted: Sequence[str], csv_format: CsvFormat
) -> dict[str, list]:
    """The values of a file by column, in the order of its records.

    This is several times faster than ``read_table_file``, and gives no names of other columns.

    Args:
        path: Path of the file, for its suffix and for messages.
        data: Unpacked content of the file.
        wanted: Columns to read. Those that the file lacks are missing in the result; in JSON, a
            record without a column that others have has None there.
        csv_format: Format of CSV files.

    Raises:
        MalformedFileError: A record is malformed, or the file as a whole cannot be read.
    """
    kind = suffix_of(path)
    if kind == ".parquet":
        return _values_of_parquet(path, data, wanted)
    if kind in CSV_SUFFIXES:
        text = decode_text(path, data, encoding=csv_format.encoding)
        return _values_of_csv(path, text, wanted, csv_format)
    table = read_table_file(path, data, wanted=wanted, csv_format=csv_format)
    records = [_whole_values(path, record) for record in table.records]
    present = [name for name in wanted if any(name in record for record in records)]
    return {name: [record.get(name) for record in records] for name in present}


def _whole_values(path: str, record: Record) -> dict:
    """The values of a record.

    Raises:
        MalformedFileError: The record is malformed.
    """
    if record.values is None or record.problem:
        raise MalformedFileError(f"{path}: row {record.row}: {record.problem}")
    return record.values


def _values_of_csv(
    path: str, text: str, wanted: Sequence[str], csv_format: CsvFormat
) -> dict[str, list]:
    lines = io.StringIO(text, newline="").readlines()
    dialect = _dialect(path, lines, wanted, csv_format)
    reader = csv.reader(lines, **dialect)
    rows: list[list[str]] = []
    done = 0
    try:
        for fields in reader:
            if reader.line_num - done >= MAX_LINES_PER_RECORD:
                raise MalformedFileError(f"{path}: line {done + 1}: a record of many lines")
            done = reader.line_num
            if fields:
                rows.append(fields)
    except csv.Error as error:
        raise MalformedFileError(f"{path}: line {done + 1}: {error}") from error
    if not rows or text[0] in "\r\n" or len(set(map(len, rows))) > 1:
        raise MalformedFileError(f"{path}: no header, or rows of several lengths")
    header = [name.strip() for name in rows[0]]
    if any(header.count(name) > 1 for name in wanted):
        raise MalformedFileError(f"{path}: two columns have the same name in {header}")
    columns = list(zip(*rows[1:], strict=True)) or [()] * len(header)
    return {
        name: list(values) for name, values in zip(header, columns, strict=True) if name in wanted
    }


def _values_of_parquet(path: str, data: bytes, wanted: Sequence[str]) -> dict[str, list]:
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        names = [name for name in file.schema_arrow.names if name in wanted]
        values: dict[str, list] = {name: [] for name in names}
        if len(values) < len(names):
            raise MalformedFileError(f"{path}: two columns have the same name in {names}")
        for batch in file.iter_batches(columns=names):
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                values[name] += _to_python(column)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise MalformedFileError(f"{path}: not readable as Parquet: {error}") from error
    return values


def read_records(path: str, data: bytes) -> Iterable[Record]:
    """Read all records of a file with all columns.

    Args:
        path: Path of the file, for its suffix and for messages.
        data: Unpacked content of the file.

    Raises:
        MalformedFileError: The file as a whole cannot be read.
    """
    return read_table_file(path, data).records


def count_lines(data: bytes) -> int:
    """Number of lines that are not blank."""
    return sum(1 for line in data.splitlines() if line.strip())


def _read_csv(path: str, text: str, wanted: Sequence[str], csv_format: CsvFormat) -> Table:
    lines = io.StringIO(text, newline="").readlines()
    rows = _split_rows(lines, _dialect(path, lines, wanted, csv_format))
    first = next(rows, _Row(1, []))
    if first.problem:
        raise MalformedFileError(f"{path}: line 1: {first.problem}")
    header = [name.strip() for name in first.fields]
    for name in wanted or header:
        if name and header.count(name) > 1:
            raise MalformedFileError(f"{path}: two columns have the same name in {header}")
    places = [(name, place) for place, name in enumerate(header) if not wanted or name in wanted]
    return Table(_csv_records(rows, header, places), tuple(header))


def _dialect(
    path: str, lines: Sequence[str], wanted: Sequence[str], csv_format: CsvFormat
) -> dict[str, Any]:
    """Arguments of ``csv.reader``."""
    separator = csv_format.separator or _detect_separator(path, lines, wanted, csv_format)
    return {
        "delimiter": separator,
        "quotechar": csv_format.quote,
        "doublequote": not csv_format.escape,
        "escapechar": csv_format.escape or None,
        "strict": True,
    }


class _Row(NamedTuple):
    """A row of a CSV file.

    Attributes:
        line: First line of the row, from 1.
        fields: Fields of the row; empty for an empty line.
        problem: Reason why the csv module cannot split the row; None if it can.
    """

    line: int
    fields: list[str]
    problem: str | None = None


def _csv_records(
    rows: Iterator[_Row], header: list[str], places: list[tuple[str, int]]
) -> Iterator[Record]:
    for row, (line, fields, damage) in enumerate(rows):
        if damage:
            yield Record(row, None, damage, line)
        elif not fields:
            continue  # an empty line is not a record
        elif len(fields) == len(header):
            yield Record(row, {name: fields[place] for name, place in places}, line=line)
        else:
            problem = (
                f"{len(fields)} fields, the header has {len(header)}; put a field that contains "
                "the separator in quotes"
            )
            yield Record(row, {"fields": fields}, problem, line)


def _split_rows(lines: Sequence[str], dialect: dict) -> Iterator[_Row]:
    """The fields of each row. After a damaged row, reading continues at the next line."""
    start = 0
    while start < len(lines):
        limit = [start + MAX_LINES_PER_RECORD]
        reader = csv.reader(_lines_up_to(lines, start, limit), **dialect)
        done = start
        try:
            for fields in reader:
                yield _Row(done + 1, fields)
                done = start + reader.line_num
                limit[0] = done + MAX_LINES_PER_RECORD
            return
        except csv.Error as error:
            problem = (
                f"{error}; double the quotes inside a field, or set source.csv.escape, "
                "source.csv.quote"
            )
            yield _Row(done + 1, [], problem)
            start = done + 1


def _lines_up_to(lines: Sequence[str], start: int, limit: list[int]) -> Iterator[str]:
    """Lines from a start up to a limit that the caller moves.

    Raises:
        csv.Error: The limit is reached.
    """
    for place in range(start, len(lines)):
        if place >= limit[0]:
            raise csv.Error(f"a quote that is not closed in {MAX_LINES_PER_RECORD} lines")
        yield lines[place]


def _detect_separator(
    path: str, lines: Sequence[str], wanted: Sequence[str], csv_format: CsvFormat
) -> str:
    """The separator that gives the header most wanted columns, and then most columns."""
    default = "\t" if suffix_of(path) == ".tsv" else ","
    header = next((line for line in lines if line.strip()), "")
    num_columns: dict[str, tuple[int, int]] = {}  # wanted and all, by separator
    for separator in dict.fromkeys([default, *SEPARATORS.values()]):
        try:
            reader = csv.reader([header], delimiter=separator, quotechar=csv_format.quote)
            names = next(reader, [])
        except csv.Error:
            continue
        names = [name.strip() for name in names]
        num_columns[separator] = (sum(name in names for name in wanted), len(names))
    return max(num_columns, key=lambda separator: num_columns[separator], default=default)


def _read_lines(text: str) -> Iterator[Record]:
    for row, line in enumerate(text.split("\n")):
        if line.strip():
            try:
                yield _build_record(row, json.loads(line), line=row + 1)
            except json.JSONDecodeError as error:
                problem = f"not JSON: {error.msg}, column {error.colno}"
                yield Record(row, {"line": line[:1000]}, problem, row + 1)
            except (ValueError, RecursionError) as error:
                yield Record(row, {"line": line[:1000]}, f"not JSON: {error}", row + 1)


def _read_json(path: str, text: str) -> Iterator[Record]:
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as error:
        first = text.lstrip().partition("\n")[0]
        if not (first.startswith("{") and first.rstrip().endswith("}")):
            raise MalformedFileError(f"{path}: not JSON: {error}") from error
        yield from _read_lines(text)  # JSON lines in a file with the suffix .json
        return
    if isinstance(tree, dict) and "\n" not in text.strip():
        tree = [tree]  # one JSON line in a file with the suffix .json
    if not isinstance(tree, list):
        raise MalformedFileError(f"{path}: a list of records expected, not {type(tree).__name__}")
    for row, record in enumerate(tree):
        yield _build_record(row, record)


def _build_record(row: int, values: object, *, line: int | None = None) -> Record:
    if isinstance(values, dict):
        return Record(row, values, line=line)
    return Record(row, {"value": values}, "a record must be an object", line)


def _read_parquet(path: str, data: bytes, wanted: Sequence[str]) -> Table:
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        names = tuple(file.schema_arrow.names)
        nested = struct_fields(file.schema_arrow)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise MalformedFileError(f"{path}: not readable as Parquet: {error}") from error
    columns = [name for name in (*names, *nested) if name in wanted] if wanted else None
    return Table(_parquet_records(path, file, columns), (*names, *nested))


def _parquet_records(
    path: str, file: pq.ParquetFile, columns: list[str] | None
) -> Iterator[Record]:
    try:
        yield from _batch_records(file.iter_batches(columns=columns))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise MalformedFileError(f"{path}: not readable as Parquet: {error}") from error


def _batch_records(batches: Iterable[pa.RecordBatch]) -> Iterator[Record]:
    row = 0
    for batch in batches:
        names = batch.schema.names
        values = [_to_python(column) for column in batch.columns]
        for place in range(batch.num_rows):
            record = {name: column[place] for name, column in zip(names, values, strict=True)}
            yield Record(row, record)
            row += 1


def _read_arrow(path: str, data: bytes, wanted: Sequence[str]) -> Table:
    """Read a file in the stream format of Arrow, as Hugging Face's ``save_to_disk`` writes it."""
    if not data.endswith(END_OF_ARROW_STREAM):  # pyarrow takes a truncated stream for a whole one
        raise MalformedFileError(
            f"{path}: not readable as an Arrow stream: truncated, or of another format"
        )
    source = pa.BufferReader(data)
    try:
        reader = pa.ipc.open_stream(source)
        top, nested = tuple(reader.schema.names), struct_fields(reader.schema)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise MalformedFileError(f"{path}: not readable as an Arrow stream: {error}") from error
    repeated = {name for name in top if top.count(name) > 1}
    if repeated:
        raise MalformedFileError(f"{path}: two columns have the same name in {list(top)}")
    # a dotted name is a column, or a field inside the structs of a column
    parents = {name.partition(".")[0] for name in wanted if name not in top}
    columns = [name for name in top if not wanted or name in wanted or name in parents]
    return Table(_arrow_records(path, source, reader, columns), (*top, *nested))


def _arrow_records(
    path: str, source: pa.BufferReader, reader: pa.RecordBatchReader, columns: list[str]
) -> Iterator[Record]:
    def valid_batches() -> Iterator[pa.RecordBatch]:
        for batch in reader:
            batch = batch.select(columns)
            batch.validate(full=True)  # wrong offsets would read foreign memory
            yield batch

    try:
        yield from _batch_records(valid_batches())
    except (pa.ArrowException, OSError, ValueError) as error:
        raise MalformedFileError(f"{path}: not readable as an Arrow stream: {error}") from error
    if source.tell() != source.size():
        raise MalformedFileError(
            f"{path}: not readable as an Arrow stream: it ends at byte {source.tell():,} of "
            f"{source.size():,}"
        )


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A value that Python cannot represent, such as a date after the year 9999."""

    reason: str


def _to_python(column: pa.Array) -> list:
    """Values of a column; ``Unreadable`` for values that Python cannot represent."""
    try:
        return column.to_pylist()
    except (ArithmeticError, ValueError):
        return [_scalar_to_python(column[place]) for place in range(len(column))]


def _scalar_to_python(scalar: pa.Scalar) -> object:
    try:
        return scalar.as_py()
    except (ArithmeticError, ValueError) as error:
        return Unreadable(str(error))
