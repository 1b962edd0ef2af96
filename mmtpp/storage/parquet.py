"""Parquet files by URI."""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mmtpp.storage.paths import explained, filesystem_of, read_bytes, write_bytes


def write_groups(uri: str, groups: Iterable[pa.Table], schema: pa.Schema) -> None:
    """Write a file with a row group for each table; it appears at once or not at all."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        for table in groups:
            writer.write_table(table)
    write_bytes(uri, sink.getvalue())


def write_table(uri: str, table: pa.Table, *, rows_per_group: int = 2**16) -> None:
    """Write a file with row groups of so many rows."""
    starts = range(0, len(table), rows_per_group)
    write_groups(uri, (table.slice(start, rows_per_group) for start in starts), table.schema)


def read_table(uri: str) -> pa.Table:
    """The whole of a small file."""
    data = read_bytes(uri)
    with explained(uri, "read the table"):
        return pq.read_table(pa.BufferReader(data))


def open_file(uri: str) -> pq.ParquetFile:
    """A file to read parts of; only its index is read now."""
    with explained(uri, "open the table"):
        filesystem, path = filesystem_of(uri)
        # the columns of a row group in one request
        return pq.ParquetFile(filesystem.open_input_file(path), pre_buffer=True)


def load_file(uri: str) -> pq.ParquetFile:
    """A file fetched whole and read from memory: for most columns of a small file.

    Raises:
        StorageError: missing, unreachable or no Parquet.
    """
    data = read_bytes(uri)
    with explained(uri, "open the table"):
        return pq.ParquetFile(pa.BufferReader(data))


def list_values(table: pa.Table, name: str) -> np.ndarray:
    """The values of all lists of a column, one list after the other."""
    return table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)


def list_edges(table: pa.Table, name: str) -> NDArray[np.int64]:
    """(R + 1,) where the list of each of R rows begins among the ``list_values``."""
    offsets = table[name].combine_chunks().offsets.to_numpy()
    return (offsets - offsets[0]).astype(np.int64)
