"""Columns in the names of folders, such as ``day=2026-01-01/``: Hive's partitioned tables."""

from collections.abc import Iterable, Iterator, Sequence
from urllib.parse import unquote

from mmtpp.data.sources.event_files import MalformedFileError
from mmtpp.data.sources.tables import Record, Table

NO_VALUE = "__HIVE_DEFAULT_PARTITION__"  # name of the folder of rows without a value


def folder_keys(path: str) -> dict[str, str | None]:
    """The columns that the names of a file's folders give, with their values as text.

    Args:
        path: Path of the file relative to the source. ``%`` escapes in the names of its folders are
            decoded.

    Returns:
        Values by column; None for a missing value.

    Raises:
        MalformedFileError: Two folders give the same column.
    """
    keys: dict[str, str | None] = {}
    for folder in path.split("/")[:-1]:
        name, separator, value = folder.partition("=")
        if not (name and separator):
            continue
        name = unquote(name, errors="surrogateescape")
        if name in keys:
            raise MalformedFileError(f"{path}: two folders give the column {name!r}")
        keys[name] = None if value == NO_VALUE else unquote(value, errors="surrogateescape")
    return keys


def add_folder_keys(path: str, table: Table, keys: dict[str, str | None]) -> Table:
    """Add the columns that folders give to the records of a file.

    Args:
        path: Path of the file, for messages.
        table: Records of the file.
        keys: Values by column, of the columns that are mapped.

    Raises:
        MalformedFileError: The file has one of these columns, too. For JSON, the error is raised
            while the records are read.
    """
    if not keys:
        return table
    if table.names is None:
        return Table(_add_to_each(path, table.records, keys))
    _check_conflict(path, table.names, keys)
    return Table(_add_to_each(path, table.records, keys), (*table.names, *keys))


def _add_to_each(
    path: str, records: Iterable[Record], keys: dict[str, str | None]
) -> Iterator[Record]:
    for record in records:
        if record.values is None or record.problem:
            yield record
        else:
            _check_conflict(path, record.values, keys)
            yield record._replace(values=record.values | keys)


def _check_conflict(path: str, names: Iterable[str], keys: dict[str, str | None]) -> None:
    both = sorted(keys.keys() & set(names))
    if both:
        listed = ", ".join(map(repr, both))
        raise MalformedFileError(
            f"{path}: both the file and its folders have the column {listed}; rename one of them"
        )


def list_folder_keys(paths: Sequence[str]) -> dict[str, int]:
    """The columns that folders give in a source, with the number of their distinct values.

    Args:
        paths: Paths of the event files, relative to the source.
    """
    values: dict[str, set[str]] = {}
    for folder in {path.rpartition("/")[0] for path in paths}:
        for part in folder.split("/"):
            name, separator, value = part.partition("=")
            if name and separator:
                values.setdefault(unquote(name, errors="replace"), set()).add(value)
    return {name: len(distinct) for name, distinct in values.items()}
