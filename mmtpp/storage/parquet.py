"""Parquet files by URI."""

import hashlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mmtpp.storage.cache import DiskCache
from mmtpp.storage.client_errors import storage_errors
from mmtpp.storage.filesystems import filesystem_of
from mmtpp.storage.paths import read_bytes, write_bytes


def write_groups(
    uri: str,
    groups: Iterable[pa.Table],
    schema: pa.Schema,
    *,
    dictionaries: Sequence[str] | bool = True,
) -> None:
    """Write a file with one row group per table. The write is atomic.

    Args:
        uri: Location of the file.
        groups: The row groups.
        schema: Schema of the file.
        dictionaries: Paths of the columns with a dictionary of their values, which makes columns of
            few values small and the others slow to write; True for all columns.
    """
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        schema,
        compression="zstd",
        use_dictionary=dictionaries,  # pyright: ignore[reportArgumentType]  the stub knows only bool
    ) as writer:
        for table in groups:
            writer.write_table(table)
    write_bytes(uri, sink.getvalue())


def write_table(uri: str, table: pa.Table, *, rows_per_group: int = 2**16) -> None:
    """Write a file with ``rows_per_group`` rows in a row group."""
    starts = range(0, len(table), rows_per_group)
    write_groups(uri, (table.slice(start, rows_per_group) for start in starts), table.schema)


def read_table(uri: str) -> pa.Table:
    """Read a small file completely."""
    data = read_bytes(uri)
    with storage_errors(uri, "read the table"):
        return pq.read_table(pa.BufferReader(data))


def read_shared_table(
    uri: str, open_cache: Callable[[], DiskCache | None], *, min_rows: int
) -> pa.Table:
    """Read a file completely; all processes of a machine share the memory of a large table.

    Args:
        uri: Location of the file.
        open_cache: Opens the cache from which a large table is mapped into memory. Without a cache
            the table is read like a small one.
        min_rows: Number of rows from which a table is large.

    Raises:
        StorageError: The file is missing, unreachable or not Parquet, or the cache is not safe.
    """
    data = read_bytes(uri)
    with storage_errors(uri, "read the table"):
        file = pq.ParquetFile(pa.BufferReader(data))
        cache = open_cache() if file.metadata.num_rows >= min_rows else None
        if cache is None:
            return file.read()
        return cache.mapped_table(
            f"parquet {hashlib.sha256(data).hexdigest()}",
            lambda: pa.RecordBatchReader.from_batches(file.schema_arrow, file.iter_batches()),
        )


def open_file(uri: str) -> pq.ParquetFile:
    """Open a file to read parts of it; only its index is read now."""
    with storage_errors(uri, "open the table"):
        filesystem, path = filesystem_of(uri)
        # read the columns of a row group in one request
        return pq.ParquetFile(filesystem.open_input_file(path), pre_buffer=True)


def load_file(uri: str) -> pq.ParquetFile:
    """Load a file into memory: best for reading most columns of a small file.

    Raises:
        StorageError: The file is missing, unreachable or not Parquet.
    """
    data = read_bytes(uri)
    with storage_errors(uri, "open the table"):
        return pq.ParquetFile(pa.BufferReader(data))


def list_values(table: pa.Table, name: str) -> np.ndarray:
    """Values of all lists of a column, concatenated."""
    return table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)


def list_offsets(table: pa.Table, name: str) -> NDArray[np.int64]:
    """Start of each row's list in ``list_values``, and the end of the last list, (R + 1,)."""
    offsets = table[name].combine_chunks().offsets.to_numpy()
    return (offsets - offsets[0]).astype(np.int64)
