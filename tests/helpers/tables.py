"""Table files for tests."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq


def write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write a CSV file, and create its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def csv_bytes(rows: list[dict]) -> bytes:
    """Content of a CSV file with these rows."""
    return pd.DataFrame(rows).to_csv(index=False).encode()


def parquet_bytes(rows: list[dict]) -> bytes:
    """Content of a Parquet file with these rows."""
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def arrow_bytes(rows: Sequence[Mapping[str, object]], *, rows_per_batch: int = 2) -> bytes:
    """Content of a file in the stream format of Arrow with these rows."""
    table = pa.Table.from_pylist(list(rows))
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows_per_batch)
    return sink.getvalue()


def xes_bytes(traces: Mapping[str, Sequence[Mapping[str, object]]]) -> bytes:
    """Content of an event log: attributes of the events by the name of their trace."""
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', '<log xmlns="http://www.xes-standard.org/">']
    for name, events in traces.items():
        lines.append(f'<trace><string key="concept:name" value="{name}"/>')
        for event in events:
            attributes = [
                f'<{"date" if key == "time:timestamp" else "string"} key="{key}" value="{value}"/>'
                for key, value in event.items()
            ]
            lines.append(f"<event>{''.join(attributes)}</event>")
        lines.append("</trace>")
    return "\n".join([*lines, "</log>"]).encode()


def json_lines(rows: list[dict]) -> bytes:
    """Content of a file of JSON lines with these rows."""
    return "\n".join(map(json.dumps, rows)).encode()
