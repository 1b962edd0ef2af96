"""The record of a commit: what was read, what was landed, and what is held."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from mmtpp.core.errors import DataError

RECORD_VERSION = 1


@dataclass(slots=True)
class StreamCounts:
    """Counts since the first commit of an output.

    Attributes:
        events_read: Number of records that were read.
        events_landed: Number of events in ``events/``.
        events_late: Number of events in ``late/``.
        events_rejected: Number of records in ``rejected/``, and of the events of malformed files.
        rejected_by_cause: The same by cause.
        left_out_by_kind: Number of records that are no events, by kind of record.
        events_folded: Number of events of a rare type, which have the type ``other``.
        events_released_early: Number of landed events that were not held for the allowed lateness,
            because ``max_held_events`` was reached.
        messages_lost: Number of offsets of Kafka that were deleted before they were read.
        events_delivered: Number of events that the service accepted.
        events_refused: Number of events that the service refused, by cause.
    """

    events_read: int = 0
    events_landed: int = 0
    events_late: int = 0
    events_rejected: int = 0
    rejected_by_cause: dict[str, int] = field(default_factory=dict)
    left_out_by_kind: dict[str, int] = field(default_factory=dict)
    events_folded: int = 0
    events_released_early: int = 0
    messages_lost: int = 0
    events_delivered: int = 0
    events_refused: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CommitRecord:
    """A commit. It exists if this record exists.

    Attributes:
        version: Version of this form.
        number: Number of the commit, from 1.
        token: Name that no other attempt at a commit has; part of the name of its ``state/``.
        is_whole: Whether ``positions`` are all positions, or those since the previous commit.
        positions: Positions in the source, see ``Positions``.
        released_to: Time up to which events were released; None before the first.
        newest: Newest time of each partition, in the source's unit.
        times_are_dates: Whether the times count from 1970; None before the first event.
        num_rows: Number of rows of each table of the commit: held, events, late, rejected.
        delivered: Number of the last commit whose events the service has.
        counts: Counts since the first commit.
    """

    version: int
    number: int
    token: str
    is_whole: bool
    positions: dict[str, Any]
    released_to: float | None
    newest: dict[str, float]
    times_are_dates: bool | None
    num_rows: dict[str, int]
    delivered: int
    counts: StreamCounts

    def as_json(self) -> bytes:
        """The record as JSON."""
        return json.dumps(asdict(self), ensure_ascii=False, allow_nan=False).encode()

    @classmethod
    def from_json(cls, content: bytes, *, where: str) -> "CommitRecord":
        """Parse the content of ``as_json``.

        Raises:
            DataError: The record is damaged, or another version wrote it.
        """
        try:
            tree: Mapping[str, Any] = json.loads(content)
            version = tree["version"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError("the record of a commit is damaged", where=where) from error
        names = {item.name for item in fields(cls)}
        if version != RECORD_VERSION or set(tree) != names:
            raise DataError(
                f"the record of a commit has version {version}, but this program reads "
                f"{RECORD_VERSION}",
                where=where,
                cause="another version of mmtpp wrote it; land the stream in another folder",
                setting="stream.output",
            )
        return cls(**{**tree, "counts": StreamCounts(**tree["counts"])})
