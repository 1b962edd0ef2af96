"""The events of a stream between their arrival and their release."""

import logging
import math
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict

import pyarrow as pa

from mmtpp.core.events import Rejected
from mmtpp.data.store.layout import REJECTED_SCHEMA
from mmtpp.stream.arrivals import Arrival
from mmtpp.stream.commit_record import StreamCounts
from mmtpp.stream.event_parser import newest_time
from mmtpp.stream.held_events import HeldEvents, no_events
from mmtpp.stream.watermark import Watermark

logger = logging.getLogger(__name__)


class Intake:
    """Sorts events that arrive into held, late and rejected ones, and releases held ones.

    Attributes:
        held: Events that wait for earlier ones.
        counts: Counts since the first commit.
        released_to: Time up to which events were released; minus infinity before the first.
        watermark: The time up to which events are complete.
    """

    def __init__(
        self, held: HeldEvents, counts: StreamCounts, released_to: float, watermark: Watermark
    ) -> None:
        self.held, self.counts, self.released_to = held, counts, released_to
        self.watermark = watermark
        self._late: list[pa.Table] = []
        self._rejected: list[Rejected] = []

    def take(self, arrival: Arrival) -> None:
        """Sort events that arrived. An event before ``released_to`` is late."""
        self.watermark.observe(arrival.partition, newest_time(arrival))
        is_late = arrival.events["time"].to_numpy() < self.released_to
        self._late.append(arrival.events.filter(pa.array(is_late)))
        self.held.add(arrival.events.filter(pa.array(~is_late)))
        self._rejected += arrival.rejected
        self._count(arrival, int(is_late.sum()))

    def _count(self, arrival: Arrival, num_late: int) -> None:
        counts = self.counts
        causes: Counter[str] = Counter()
        for record in arrival.rejected:
            causes[record.cause] += record.events
        counts.events_read += arrival.counts.num_read
        counts.events_late += num_late
        counts.events_rejected += causes.total()
        counts.rejected_by_cause = dict(Counter(counts.rejected_by_cause) + causes)
        counts.left_out_by_kind = dict(
            Counter(counts.left_out_by_kind) + Counter(arrival.counts.left_out)
        )
        counts.events_folded += arrival.counts.num_folded

    def release(self, partitions: Collection[str], idle: Collection[str]) -> pa.Table:
        """Release the events before which no other event is expected.

        Args:
            partitions: Names of all partitions.
            idle: Partitions that are not waited for.

        Returns:
            The events by sequence, in order of time.
        """
        up_to = self.watermark.value(partitions, idle)
        if up_to == math.inf:
            up_to = self.held.newest()
        self.released_to = max(self.released_to, up_to)
        return self._release()

    def release_early(self) -> pa.Table:
        """Release the earlier half of the held events, because no more events can be held."""
        self.released_to = max(self.released_to, self.held.earliest_half())
        released = self._release()
        self.counts.events_released_early += len(released)
        logger.warning(
            "%s events are landed before the allowed lateness has passed, because "
            "stream.max_held_events is reached: raise it, or lower "
            "stream.allowed_lateness_seconds; earlier events that arrive now are late",
            f"{len(released):,}",
        )
        return released

    def _release(self) -> pa.Table:
        released = self.held.release(self.released_to)
        self.counts.events_landed += len(released)
        return released

    def take_late(self) -> pa.Table:
        """The late events since the last call, in the order of their arrival."""
        late, self._late = self._late, []
        return pa.concat_tables([no_events(), *late])

    def take_rejected(self) -> pa.Table:
        """The rejected records since the last call."""
        rejected, self._rejected = self._rejected, []
        return pa.Table.from_pylist([asdict(record) for record in rejected], REJECTED_SCHEMA)

    def example(self) -> str:
        """A rejected record since the last commit, for messages."""
        return self._rejected[0].message() if self._rejected else ""
