"""Tables in memory, read like ``source.kind = columns`` reads a Parquet file of the same rows."""

import pandas as pd
import pyarrow as pa

from mmtpp.config.schema import SourceSection
from mmtpp.core.errors import ConfigError, DataError
from mmtpp.data.encode.raw_dataset import find_type_names
from mmtpp.data.from_config import build_source_reader, build_type_names
from mmtpp.data.sources.checking import read_file
from mmtpp.data.sources.columns import ColumnsParser
from mmtpp.data.sources.event_files import MalformedFileError
from mmtpp.data.sources.reader import ParsedFile, SourceReader
from mmtpp.data.sources.tables import Record, Table
from mmtpp.data.sources.type_codes import OTHER, TypeCodes

NAME = "table"
_CONTENT = b"in memory"  # placeholder for the content of a file


def is_dataframe(value: object) -> bool:
    """Whether a value is a table of pandas or PyArrow."""
    return isinstance(value, pd.DataFrame | pa.Table)


def read_dataframe(
    frame: pd.DataFrame | pa.Table, source: SourceSection
) -> tuple[ParsedFile, SourceReader]:
    """Read the events of a table.

    Args:
        frame: Table with one row per event, or one row of lists per sequence.
        source: Settings with ``kind = columns``, the column names, types and time unit.

    Returns:
        The events, and the reader with the names of their types.

    Raises:
        ConfigError: ``source.kind`` is not ``columns``.
        DataError: A column does not exist or PyArrow cannot hold it, or there are no events.
    """
    if source.kind != "columns":
        raise ConfigError(
            f"kind = {source.kind!r}: a table in memory is read by its columns",
            setting="columns = {'time': 'timestamp'}: name at least the column of times",
        )
    parser = build_source_reader(source).parse
    assert isinstance(parser, ColumnsParser)
    mapped = set(parser.columns.names)
    records = _records(frame, mapped)

    def parse(path: str, _: bytes) -> object:
        return parser.parse_table(path, Table(records))

    reader = SourceReader((), parse)  # pyright: ignore[reportArgumentType]
    try:
        names, _ = build_type_names(source, reader)
        names = names or find_type_names(reader, [(NAME, _CONTENT)], source)
        types = TypeCodes(names, folds_rare=source.rare_types == OTHER and bool(names))
        parsed = read_file(reader, NAME, _CONTENT, types=types)
    except MalformedFileError as error:
        raise DataError(str(error), where=NAME) from error
    if not parsed.sequences:
        causes = sorted({f"{record.cause}: {record.detail}" for record in parsed.rejected})
        raise DataError(
            f"no events in a table of {len(records):,} rows",
            where=NAME,
            cause="; ".join(causes[:3]) or "the table is empty",
        )
    return parsed, SourceReader((), parser, type_names=tuple(names))


def _records(frame: pd.DataFrame | pa.Table, mapped: set[str]) -> list[Record]:
    """The rows of the mapped columns, with their values in the types of Parquet."""
    is_pandas = isinstance(frame, pd.DataFrame)
    names = [str(name) for name in (frame.columns if is_pandas else frame.column_names)]
    repeated = sorted({name for name in names if names.count(name) > 1} & mapped)
    if repeated:
        raise DataError(
            f"several columns have the same name: {', '.join(repeated)}",
            where=NAME,
            cause="rename one of them",
        )
    # a dotted name is a column, or a field inside the objects of a column
    mapped = mapped | {name.partition(".")[0] for name in mapped if name not in names}
    chosen = [name for name in names if name in mapped] or names[:1]
    try:
        if is_pandas:
            part = frame.rename(columns=str)[chosen]
            table = pa.Table.from_pandas(part, preserve_index=False)
        else:
            table = frame.select(chosen)
        rows = table.to_pylist()
    except (pa.ArrowException, ValueError, OverflowError) as error:
        raise DataError(
            f"a column cannot be read: {error}",
            where=NAME,
            cause="a column holds values of several kinds",
        ) from error
    # the first row has all names, so that the error for a missing column can list them
    rows[:1] = [{**dict.fromkeys(names), **row} for row in rows[:1]]
    return [Record(place, row) for place, row in enumerate(rows)]
