"""The output of a stream: tables that appear exactly once, and the records of the commits.

A commit is written in three steps: its tables below ``state/``, its record, and then the tables
that others read. The record is the commit: before it, nothing of the commit can be seen; after it,
the tables are written again by the next job if this one dies. So files that others read never
change, and of two jobs on one output only one can write the record of a number.
"""

import json
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mmtpp.core.errors import ConfigError, DataError, StorageError
from mmtpp.storage.filesystems import filesystem_of, is_remote
from mmtpp.storage.parquet import read_table
from mmtpp.storage.paths import (
    create_bytes,
    exists,
    join,
    list_files,
    read_bytes,
    remove_file,
    write_bytes,
)
from mmtpp.stream.commit_record import CommitRecord
from mmtpp.stream.held_events import no_events
from mmtpp.stream.output_lock import OutputLock

HELD = "held"
PUBLISHED = ("events", "late", "rejected")
ABOUT_FILE = "about.json"
_COMMITS, _STATE, _REFUSED = "commits", "state", "refused"


class OutputFolder:
    """The folder of an output.

    Args:
        uri: Its URI.

    Raises:
        StorageError: Another job writes to it, or it cannot be written.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._lock: OutputLock | None = None
        if not is_remote(uri):
            self._lock = OutputLock(Path(filesystem_of(uri)[1]))

    def claim(self, about: Mapping[str, object]) -> bool:
        """Record what the output belongs to, or check that it is what was recorded before.

        Args:
            about: Input and settings of the events, by the path of the setting.

        Returns:
            Whether the storage can refuse the second of two jobs.

        Raises:
            ConfigError: The output belongs to something else.
        """
        uri = join(self.uri, ABOUT_FILE)
        content = json.dumps(about, ensure_ascii=False, indent=2).encode()
        if exists(uri):
            self._compare(json.loads(read_bytes(uri)), json.loads(content))
        else:
            create_bytes(uri, content)
        return not create_bytes(uri, content)

    def _compare(self, before: dict[str, object], now: dict[str, object]) -> None:
        changed = [
            f"{name} = {now.get(name)!r}, before {before.get(name)!r}"
            for name in sorted(before.keys() | now.keys())
            if before.get(name) != now.get(name)
        ]
        if changed:
            raise ConfigError(
                "the output has events of another input or with other settings",
                where=self.uri,
                cause="they would be mixed; choose another folder, or the settings of before",
                setting="; ".join(["stream.output", *changed]),
            )

    def records(self) -> list[CommitRecord]:
        """The newest records in order, from the last one with all positions; none at first.

        Raises:
            DataError: A record is damaged or missing.
        """
        folder = join(self.uri, _COMMITS)
        if not exists(folder):
            return []
        files = list_files(folder, ".json")
        records: list[CommitRecord] = []
        for info in reversed(files):
            uri = join(folder, info.path.rpartition("/")[2])
            records.append(CommitRecord.from_json(read_bytes(uri), where=uri))
            if records[-1].is_whole:
                break
        records.reverse()
        numbers = [record.number for record in records]
        is_complete = not records or records[0].is_whole
        if not is_complete or numbers != list(range(len(files) - len(records) + 1, len(files) + 1)):
            raise DataError(
                "records of commits are missing",
                where=folder,
                cause="files of the output were removed; land the stream in another folder",
                setting=f"stream.output = {self.uri}",
            )
        return records

    def recover(self, record: CommitRecord) -> pa.Table:
        """Finish the last commit of a job that may have been killed; returns the held events."""
        for name in PUBLISHED:
            if record.num_rows.get(name) and not exists(self.table_uri(name, record.number)):
                content = read_bytes(self._state_uri(record, name))
                write_bytes(self.table_uri(name, record.number), content)
        for uri in self._outdated(record):
            remove_file(uri)
        if not record.num_rows.get(HELD):
            return no_events()
        return read_table(self._state_uri(record, HELD))

    def commit(self, record: CommitRecord, tables: Mapping[str, pa.Table]) -> None:
        """Write a commit.

        Args:
            record: Its record, with the number of rows of each table and a new token.
            tables: Tables by name: ``HELD`` and ``PUBLISHED``.

        Raises:
            StorageError: Another job has made the commit, or the folder cannot be written.
        """
        contents = {name: _as_parquet(table) for name, table in tables.items() if len(table)}
        for name, content in contents.items():
            write_bytes(self._state_uri(record, name), content)
        uri = self._record_uri(record.number)
        if not create_bytes(uri, record.as_json()) and not self._is_own(uri, record):
            raise StorageError(
                f"another job has made commit {record.number} of this output",
                where=uri,
                cause="one job at a time lands a stream; this one stops and has landed nothing "
                "twice",
                setting=f"stream.output = {self.uri}",
            )
        for name in PUBLISHED:
            if name in contents:
                write_bytes(self.table_uri(name, record.number), contents[name])

    def forget(self, record: CommitRecord) -> None:
        """Remove the intermediate files of a commit that a later one has replaced."""
        for name, rows in record.num_rows.items():
            if rows:
                remove_file(self._state_uri(record, name))

    def write_refused(self, number: int, lines: list[str]) -> None:
        """Keep the events of a commit that the service refused, as JSON lines."""
        content = "".join(f"{line}\n" for line in lines).encode()
        write_bytes(join(self.uri, _REFUSED, f"{_name(number)}.jsonl"), content)

    def read_published(self, name: str, number: int) -> pa.Table | None:
        """A table of a commit that others read; None if the commit has no such rows."""
        uri = self.table_uri(name, number)
        return read_table(uri) if exists(uri) else None

    def table_uri(self, name: str, number: int) -> str:
        """The file of a table of a commit."""
        return join(self.uri, name, f"{_name(number)}.parquet")

    def close(self) -> None:
        """Let another job write to the folder."""
        if self._lock is not None:
            self._lock.close()

    def _is_own(self, uri: str, record: CommitRecord) -> bool:
        """Whether this job wrote a record, and the client lost the answer and tried again."""
        return CommitRecord.from_json(read_bytes(uri), where=uri).token == record.token

    def _record_uri(self, number: int) -> str:
        return join(self.uri, _COMMITS, f"{_name(number)}.json")

    def _state_uri(self, record: CommitRecord, name: str) -> str:
        return join(self.uri, _STATE, f"{_name(record.number)}-{record.token}-{name}.parquet")

    def _outdated(self, record: CommitRecord) -> Iterator[str]:
        """Intermediate files that no job needs. Those of later commits may be of a running job."""
        folder = join(self.uri, _STATE)
        if not exists(folder):
            return
        for info in list_files(folder, ".parquet"):
            name = info.path.rpartition("/")[2]
            number, token = name.split("-")[1:3]
            is_earlier = int(number) < record.number
            if is_earlier or (int(number) == record.number and token != record.token):
                yield join(folder, name)


def new_token() -> str:
    """A name that no other attempt at a commit has."""
    return uuid.uuid4().hex[:16]


def _name(number: int) -> str:
    return f"commit-{number:09}"


def _as_parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue().to_pybytes()
