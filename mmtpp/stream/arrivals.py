"""What a source gives to the loop: checked events of one part of the source, in arrival order."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from mmtpp.core.events import Rejected
from mmtpp.data.sources.reader import ReadCounts
from mmtpp.stream.source_positions import Positions


@dataclass(frozen=True, slots=True)
class Arrival:
    """Events that arrived together: those of a file, or of some messages of one partition.

    Attributes:
        partition: Name of the part of the source whose events are about in order: the number of a
            partition of Kafka; empty for a folder.
        events: Valid events, ``landed_events.EVENT_SCHEMA``, with times in the source's unit.
        rejected: Records that are no valid events.
        counts: Counts of the records.
    """

    partition: str
    events: pa.Table
    rejected: Sequence[Rejected]
    counts: ReadCounts


class StreamSource(Protocol):
    """A folder or a topic whose events arrive over time."""

    positions: Positions
    """What has been read."""

    def read(self, room: int) -> list[Arrival]:
        """Read what has arrived; nothing after a short wait at most.

        Args:
            room: Number of events after which reading stops, at least 1; one file is read whole.
        """
        ...

    def pause(self) -> None:
        """Called instead of ``read`` while no more events can be held."""
        ...

    def partitions(self) -> Sequence[str]:
        """Names of all partitions."""
        ...

    def drained(self) -> set[str]:
        """Partitions whose newest event has been read, as the source itself says now."""
        ...

    def lost(self) -> int:
        """Number of messages that were deleted before they were read, since the last call."""
        ...

    def close(self) -> None:
        """Close connections."""
        ...
