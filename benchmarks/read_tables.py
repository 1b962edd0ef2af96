"""Speed of reading tables column by column, beside reading them record by record.

    python -m benchmarks.read_tables

One process reads the same events of many sequences from CSV, JSON lines and Parquet, in turns with
and without ``SourceReader.columns``; both give the same sequences. Writes ``read_tables.md``.
"""

import io
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.measure import figure, finish, machine, rate, ratio
from mmtpp.data.sources.checking import read_file
from mmtpp.data.sources.columns import Columns, build_columns_reader
from mmtpp.data.sources.type_codes import TypeCodes

NUM_EVENTS, NUM_SEQUENCES, NUM_TYPES, NUM_TEXTS = 66_000, 10_000, 20, 2000
ROUNDS = 3
RESULT = Path(__file__).with_name("read_tables.md")


def files() -> dict[str, bytes]:
    """The same events in files of three formats, by name."""
    draw = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "user": draw.integers(0, NUM_SEQUENCES, NUM_EVENTS),
            "time": np.sort(draw.integers(0, 86_400, NUM_EVENTS)),
            "kind": draw.integers(0, NUM_TYPES, NUM_EVENTS),
            "text": draw.integers(0, NUM_TEXTS, NUM_EVENTS),
        }
    )
    frame["text"] = "a text about the event number " + frame["text"].astype(str)
    parquet, json_lines = io.BytesIO(), io.BytesIO()
    frame.to_parquet(parquet)
    frame.to_json(json_lines, orient="records", lines=True)
    return {
        "events.csv": frame.to_csv(index=False).encode(),
        "events.jsonl": json_lines.getvalue(),
        "events.parquet": parquet.getvalue(),
    }


def main() -> int:
    """Measure, print and write the results."""
    columns = Columns(time="time", sequence="user", type="kind", text="text")
    by_columns = build_columns_reader(columns, seconds_per_unit=1.0)
    readers = {"records": replace(by_columns, columns=None), "columns": by_columns}
    rows = []
    for path, data in files().items():

        def work(name: str, path: str = path, data: bytes = data) -> Callable[[], object]:
            return lambda: read_file(readers[name], path, data, types=TypeCodes(()))

        rates = {name: rate(work(name), NUM_EVENTS, rounds=ROUNDS) for name in readers}
        rows.append(
            f"| {path} | {figure(rates['records'])} | {figure(rates['columns'])} "
            f"| {ratio(rates['columns'], rates['records']):.1f} |"
        )
    text = "\n".join(
        [
            "# Reading tables",
            "",
            f"`python -m benchmarks.read_tables`: {NUM_EVENTS:,} events of {NUM_SEQUENCES:,} "
            "sequences in one file, read and checked by one process; million events per second, "
            f"median and range of {ROUNDS} rounds. `prepare` reads by columns where no record has "
            "a fault, and otherwise by records.",
            "",
            f"{machine('numpy', 'pyarrow')}.",
            "",
            "| file | by records | by columns | ratio |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )
    return finish(text, RESULT)


if __name__ == "__main__":
    sys.exit(main())
