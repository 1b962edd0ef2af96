"""The accepted events of live sequences, in one SQLite file or in memory.

An event is in the log before its sender is told that it was accepted, so a process that dies loses
none. Everything else about live sequences is computed from the log.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmtpp.core.errors import StorageError
from mmtpp.core.events import EventSequence
from mmtpp.serve.live_events import LiveEvent, to_sequence

IN_MEMORY = ":memory:"
_LOCK_PATIENCE_S = 30.0
_MAX_HEADS = 1_000_000
_SCHEMA = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS types (code INTEGER PRIMARY KEY);
CREATE TABLE IF NOT EXISTS events (
    sequence TEXT NOT NULL, position INTEGER NOT NULL, time REAL NOT NULL, type INTEGER NOT NULL,
    text TEXT NOT NULL, key TEXT, PRIMARY KEY (sequence, position)
) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS keys ON events (sequence, key) WHERE key IS NOT NULL;
"""


@dataclass(frozen=True, slots=True)
class SequenceHead:
    """The end of a sequence.

    Attributes:
        num_events: Number of events.
        last_time: Time of the last event, in the model's unit.
    """

    num_events: int = 0
    last_time: float = -np.inf


def head_after(position: int, event: LiveEvent) -> SequenceHead:
    """The end of a sequence whose last event is at a position, from 0."""
    return SequenceHead(position + 1, event.time)


class EventLog:
    """The events of live sequences.

    One process at a time can open a file; a second one waits for some seconds, then fails.

    Args:
        path: Path of the file, which is created if it does not exist; ``IN_MEMORY`` keeps the
            events in memory only.

    Raises:
        StorageError: The file cannot be opened, another process has it, or it is damaged.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._heads: dict[str, SequenceHead] = {}  # of sequences with events that were added
        self._known_types: set[int] = set()  # types that this process has written
        with self._errors():
            if path != IN_MEMORY:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(
                path, timeout=_LOCK_PATIENCE_S, isolation_level=None, check_same_thread=False
            )
            # the lock is held until the process ends, and needs no memory shared between processes
            self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.executescript(_SCHEMA)

    def claim(self, about: Mapping[str, str]) -> None:
        """Record what the events belong to, or check that it is what was recorded before.

        Args:
            about: Names and values, such as the names of the types.

        Raises:
            StorageError: The events belong to something else.
        """
        with self._errors(), self._transaction():
            rows = list(about.items())
            self._database.executemany("INSERT OR IGNORE INTO about VALUES (?, ?)", rows)
            known = dict(self._database.execute("SELECT name, value FROM about"))
        for name, value in about.items():
            if known[name] != value:
                raise StorageError(
                    f"the log of events has {name} = {known[name]}, not {value}",
                    where=self.path,
                    cause="it was written with another model or other settings; use another "
                    "folder, or the old model",
                    setting=f"state_folder; {name} = {value}",
                )

    def heads(self, sequence_ids: Sequence[str]) -> dict[str, SequenceHead]:
        """Number of events and last time of sequences; zero events for an unknown one."""
        query = (
            "SELECT position, time FROM events WHERE sequence = ? ORDER BY position DESC LIMIT 1"
        )
        heads: dict[str, SequenceHead] = {}
        with self._errors():
            for name in sequence_ids:
                head = self._heads.get(name)
                if head is None:
                    row = self._database.execute(query, (name,)).fetchone()
                    head = SequenceHead(row[0] + 1, row[1]) if row else SequenceHead()
                heads[name] = head
        return heads

    def with_key(self, sequence_id: str, key: str) -> LiveEvent | None:
        """The event of a sequence with a key; None if there is none."""
        query = "SELECT time, type, text FROM events WHERE sequence = ? AND key = ?"
        with self._errors():
            row = self._database.execute(query, (sequence_id, key)).fetchone()
        if row is None:
            return None
        time, type_code, text = row
        return LiveEvent(sequence_id, time, type_code, text, key)

    def append(self, events: Sequence[tuple[int, LiveEvent]]) -> None:
        """Write events, all or none; they are on the disk afterwards.

        Args:
            events: Position in its sequence and event; the positions follow those in the log.

        Raises:
            StorageError: The disk is full or cannot be written; none of the events is in the log.
        """
        rows = [
            (
                event.sequence_id,
                position,
                event.time,
                event.type_code,
                event.text,
                event.key or None,
            )
            for position, event in events
        ]
        with self._errors(), self._transaction():
            self._database.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)", rows)
            codes = {event.type_code for _, event in events} - self._known_types
            rows_of_types = [(code,) for code in codes]
            self._database.executemany("INSERT OR IGNORE INTO types VALUES (?)", rows_of_types)
        self._known_types |= codes
        if len(self._heads) > _MAX_HEADS:
            self._heads.clear()  # they are read again
        for position, event in events:
            self._heads[event.sequence_id] = head_after(position, event)

    def type_codes(self) -> frozenset[int]:
        """Codes of the types of all events that were ever appended."""
        with self._errors():
            return frozenset(code for (code,) in self._database.execute("SELECT code FROM types"))

    def read(self, sequence_id: str, *, start: int = 0) -> EventSequence:
        """The events of a sequence from position ``start``; none for an unknown sequence."""
        query = (
            "SELECT time, type, text FROM events WHERE sequence = ? AND position >= ? "
            "ORDER BY position"
        )
        with self._errors():
            rows = self._database.execute(query, (sequence_id, start)).fetchall()
        return to_sequence(sequence_id, [LiveEvent(sequence_id, *row) for row in rows])

    def remove(self, sequence_id: str) -> int:
        """Remove a sequence; returns the number of its events."""
        with self._errors(), self._transaction():
            self._heads.pop(sequence_id, None)
            query = "DELETE FROM events WHERE sequence = ?"
            return self._database.execute(query, (sequence_id,)).rowcount

    def close(self) -> None:
        """Close the file, so that another process may open it."""
        self._database.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._database.execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:  # an error may have ended it
                self._database.execute("ROLLBACK")
            raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            cause = "the disk is full or cannot be written, or the file is damaged"
            if "locked" in str(error):
                cause = "another process serves from the same file; it may still be ending"
            raise StorageError(
                f"the log of events cannot be used: {error}",
                where=self.path,
                cause=cause,
                setting="state_folder",
            ) from error
