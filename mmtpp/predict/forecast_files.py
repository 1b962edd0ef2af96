"""The files of forecasts that ``predict`` writes."""

import io
import json
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from mmtpp.config.schema import PredictionSection
from mmtpp.storage.paths import exists, join, remove_folder, write_bytes


def write_forecasts(tables: Iterator[pa.Table], uri: str, prediction: PredictionSection) -> int:
    """Write forecasts to the files of a folder, in place of its present ones.

    Args:
        tables: The forecasts.
        uri: Folder of forecasts, which holds nothing else.
        prediction: Format and size of the files.

    Returns:
        Number of the forecasts.
    """
    if exists(uri):  # otherwise files of an earlier job with more forecasts would stay
        remove_folder(uri)
    count = 0
    for index, table in enumerate(_in_files(tables, prediction.sequences_per_file)):
        name = f"part-{index:05d}.{prediction.format}"
        write_bytes(join(uri, name), _encode(table, prediction.format))
        count += len(table)
    return count


def _in_files(tables: Iterator[pa.Table], size: int) -> Iterator[pa.Table]:
    """Regroup rows into tables of ``size`` rows; the last table may be shorter."""
    pending: list[pa.Table] = []
    for table in tables:
        pending.append(table)
        while sum(map(len, pending)) >= size:
            joined = pa.concat_tables(pending)
            yield joined.slice(0, size)
            pending = [joined.slice(size)]
    if sum(map(len, pending)):
        yield pa.concat_tables(pending)


def _encode(table: pa.Table, file_format: str) -> bytes:
    """The content of one file of forecasts."""
    if file_format == "jsonl":
        lines = (json.dumps(row, ensure_ascii=False) for row in table.to_pylist())
        return "".join(f"{line}\n" for line in lines).encode()
    content = io.BytesIO()
    pq.write_table(table, content, compression="zstd")
    return content.getvalue()
