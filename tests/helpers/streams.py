"""Streams for tests: settings with short times, files that appear, and what was landed."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from mmtpp.config.load import config_from_tree, with_values
from mmtpp.config.schema import RunConfig

COLUMNS = {
    "source.kind": "columns",
    "source.columns.time": "at",
    "source.columns.sequence": "who",
    "source.columns.type": "what",
    "source.columns.text": "note",
    "source.types": "auto",
}
QUICK = {
    "stream.idle_release_seconds": 0.2,
    "stream.stop_when_idle_seconds": 0.3,
    "stream.commit_seconds": 0.01,
    "stream.poll_seconds": 0.01,
}


def stream_settings(incoming: object, output: object, **changes: object) -> dict[str, object]:
    """Settings of a job that ends soon after the last event, by path."""
    places = {"stream.input": str(incoming), "stream.output": str(output)}
    return {**COLUMNS, **QUICK, **places, **changes}


def stream_config(incoming: object, output: object, **changes: object) -> RunConfig:
    """The configuration of such a job."""
    return with_values(config_from_tree({}), stream_settings(incoming, output, **changes))


def as_assignments(settings: Mapping[str, object]) -> list[str]:
    """Settings as arguments of a command."""
    return [
        word
        for key, value in settings.items()
        for word in ("--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}")
    ]


def event(who: str, at: object, note: str = "", what: object = "a") -> dict:
    """A record of the sources of these tests."""
    return {"who": who, "at": at, "what": what, "note": note}


def add_file(folder: Path, name: str, rows: Sequence[Mapping[str, object]]) -> Path:
    """Let a file of JSON lines appear, whole."""
    folder.mkdir(parents=True, exist_ok=True)
    pending = folder / f"{name}.pending"
    pending.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pending.rename(folder / name)
    return folder / name


def commits_of(output: Path, name: str = "events") -> Iterator[list[dict]]:
    """The rows of each file of a table, in the order of the commits."""
    for file in sorted((output / name).glob("*.parquet")):
        yield pq.read_table(file).to_pylist()


def rows_of(output: Path, name: str = "events") -> list[dict]:
    """The rows of a table in the order of the commits."""
    return [row for rows in commits_of(output, name) for row in rows]


def times_of(output: Path, name: str = "events") -> dict[str, list[float]]:
    """The times of each sequence in the order in which they were landed."""
    times: dict[str, list[float]] = {}
    for row in rows_of(output, name):
        times.setdefault(row["sequence"], []).append(row["time"])
    return times


def set_age(path: Path, seconds: float) -> None:
    """Let a file look as if it was written some time ago."""
    state = path.stat()
    time_ns = state.st_mtime_ns - int(seconds * 1e9)
    os.utime(path, ns=(time_ns, time_ns))
