"""Records of table files: CSV, JSON lines, JSON and Parquet, the text ones gzipped or not."""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from mmtpp.data.sources.reader import MalformedFileError

SUFFIXES = (".csv", ".jsonl", ".json", ".parquet", ".csv.gz", ".jsonl.gz")
MAX_UNPACKED_BYTES = 2**31

Record = tuple[int, dict | None, str]
"""Row from 0, the record or None, and what is wrong with it or nothing."""


def read_records(path: str, data: bytes) -> Iterator[Record]:
    """The records of a file, by its suffix; one that cannot be read comes with its problem.

    Raises:
        MalformedFileError: the file as a whole cannot be read.
    """
    if path.endswith(".gz"):
        path, data = path.removesuffix(".gz"), _unpack(path, data)
    if path.endswith(".parquet"):
        return _parquet(path, data)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MalformedFileError(f"{path}: not UTF-8: {error}") from error
    if path.endswith(".csv"):
        return _csv(path, text)
    return _json_lines(text) if path.endswith(".jsonl") else _json(path, text)


def _unpack(path: str, data: bytes) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            unpacked = file.read(MAX_UNPACKED_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise MalformedFileError(f"{path}: not gzip: {error}") from error
    if len(unpacked) > MAX_UNPACKED_BYTES:
        raise MalformedFileError(f"{path}: more than {MAX_UNPACKED_BYTES} bytes unpacked")
    return unpacked


def _csv(path: str, text: str) -> Iterator[Record]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, [])
        if len(set(header)) < len(header):
            raise MalformedFileError(f"{path}: two columns of one name in {header}")
        for row, fields in enumerate(reader):
            if not fields:
                continue  # an empty line is no record
            if len(fields) == len(header):
                yield row, dict(zip(header, fields, strict=True)), ""
            else:
                problem = f"{len(fields)} fields, the header has {len(header)}"
                yield row, {"fields": fields}, problem
    except csv.Error as error:
        raise MalformedFileError(f"{path}: line {reader.line_num}: {error}") from error


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
    if not isinstance(tree, list):
        raise MalformedFileError(f"{path}: a list of records expected, found {type(tree).__name__}")
    for row, record in enumerate(tree):
        yield _record(row, record)


def _record(row: int, record: object) -> Record:
    if isinstance(record, dict):
        return row, record, ""
    return row, {"value": record}, "a record must be an object"


def _parquet_row(row: int, batch: pa.RecordBatch, place: int) -> Record:
    try:
        return row, {name: batch[name][place].as_py() for name in batch.schema.names}, ""
    except (ArithmeticError, ValueError) as error:  # a date that Python has no value for
        return row, {}, f"not readable: {error}"


def _parquet(path: str, data: bytes) -> Iterator[Record]:
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        row = 0
        for batch in file.iter_batches():
            for place in range(batch.num_rows):
                yield _parquet_row(row, batch, place)
                row += 1
    except (pa.ArrowException, OSError, ValueError) as error:
        raise MalformedFileError(f"{path}: not readable as Parquet: {error}") from error
