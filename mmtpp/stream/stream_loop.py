"""Read, hold, commit, deliver: the loop of a stream."""

import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import pyarrow as pa

from mmtpp.core.errors import DataError, StorageError
from mmtpp.stream.arrivals import StreamSource
from mmtpp.stream.commit_record import RECORD_VERSION, CommitRecord
from mmtpp.stream.held_events import no_events
from mmtpp.stream.intake import Intake
from mmtpp.stream.output_folder import HELD, OutputFolder, new_token
from mmtpp.stream.service_delivery import ServiceDelivery

logger = logging.getLogger(__name__)

WHOLE_EVERY = 100
"""Number of commits between two records with all positions."""


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """Settings of the loop, see ``StreamSection``.

    Attributes:
        commit_s, poll_s, stop_when_idle_s: Times in seconds.
        max_held_events: Number of events at which reading pauses.
        max_rejected_fraction: Largest share of rejected events.
        input_uri: Location of the input, for messages.
        times_are_dates: Function that says whether times count from 1970; None before the first.
        as_landed: Function that gives events the times with which they are landed.
    """

    commit_s: float
    poll_s: float
    stop_when_idle_s: float
    max_held_events: int
    max_rejected_fraction: float
    input_uri: str
    times_are_dates: Callable[[], bool | None]
    as_landed: Callable[[pa.Table], pa.Table]


class StreamLoop:
    """Lands the events of a source.

    Attributes:
        last: Record of the last commit; None before the first.

    Args:
        source: The source.
        intake: Events that the last commit holds.
        output: The output.
        last: Record of the last commit of an earlier job; None for a new output.
        delivery: Delivery to a service; None for no service.
        settings: Settings.
    """

    def __init__(
        self,
        source: StreamSource,
        intake: Intake,
        output: OutputFolder,
        last: CommitRecord | None,
        delivery: ServiceDelivery | None,
        settings: LoopSettings,
    ) -> None:
        self._source, self._intake, self._output = source, intake, output
        self.last, self._delivery, self._settings = last, delivery, settings
        self._delivered = last.delivered if last else 0
        self._committed_at = self._arrived_at = time.monotonic()
        self._is_paused = False

    def run(self, stop: threading.Event) -> str:
        """Land events until the job is stopped, or nothing new comes.

        Args:
            stop: Set to end the job after a commit.

        Returns:
            Why the loop ended: ``stopped`` or ``idle``.

        Raises:
            DataError: Too many events are rejected, or the source is damaged.
            StorageError: Source, output or service cannot be used.
        """
        while True:
            has_read = self._read()
            if time.monotonic() - self._committed_at >= self._settings.commit_s:
                self._commit()
            self._deliver()
            if stop.is_set():
                break
            if self._is_idle():
                break
            if not has_read:
                stop.wait(self._settings.poll_s)
        self._commit()
        self._deliver()
        if self._delivery is not None and self.last and self.last.delivered < self._delivered:
            self._write_commit(no_events())
        if stop.is_set():
            return "stopped"
        self._check_delivered()
        return "idle"

    @property
    def num_undelivered(self) -> int:
        """Number of landed events that the service does not have."""
        return self._delivery.num_waiting if self._delivery else 0

    def _read(self) -> bool:
        """Read and sort events; returns whether there were any."""
        most = self._settings.max_held_events
        if self._num_pending() >= most:
            self._make_room()
        room = most - self._num_pending()
        if room <= 0:
            self._pause()
            return False
        self._is_paused = False
        arrivals = self._source.read(room)
        for arrival in arrivals:
            self._intake.take(arrival)
        if arrivals:
            self._arrived_at = time.monotonic()
        return bool(arrivals)

    def _num_pending(self) -> int:
        return len(self._intake.held) + self.num_undelivered

    def _make_room(self) -> None:
        """Commit and deliver; if held events alone fill the room, release some of them early."""
        self._commit()
        self._deliver()
        if len(self._intake.held) >= self._settings.max_held_events and not self.num_undelivered:
            self._write_commit(self._intake.release_early())

    def _pause(self) -> None:
        self._source.pause()
        self._arrived_at = time.monotonic()  # a pause is no silence of the source
        if not self._is_paused:
            logger.warning(
                "reading pauses: %s events are held and %s are not delivered "
                "(stream.max_held_events = %s)",
                f"{len(self._intake.held):,}",
                f"{self.num_undelivered:,}",
                f"{self._settings.max_held_events:,}",
            )
        self._is_paused = True

    def _is_idle(self) -> bool:
        limit = self._settings.stop_when_idle_s
        if not limit or time.monotonic() - self._arrived_at < limit:
            return False
        return set(self._source.partitions()) <= self._source.drained()

    def _commit(self) -> None:
        """Write a commit if there is something new."""
        partitions = self._source.partitions()
        idle: set[str] = set()
        if len(self._intake.held) and (silent := self._intake.watermark.silent(partitions)):
            idle = silent & self._source.drained()
        released = self._intake.release(partitions, idle)
        if len(released) or self._source.positions.have_changed:
            self._write_commit(released)
        self._committed_at = time.monotonic()

    def _write_commit(self, released: pa.Table) -> None:
        """Write a commit with released events, and with all that was read before."""
        counts = self._intake.counts
        counts.messages_lost += self._source.lost()
        self._check_counts()
        tables = {
            HELD: self._intake.held.table(),
            "events": self._settings.as_landed(released),
            "late": self._settings.as_landed(self._intake.take_late()),
            "rejected": self._intake.take_rejected(),
        }
        number = self.last.number + 1 if self.last else 1
        if self._delivery is None:
            has_all = self.last is None or self._delivered == self.last.number
            # otherwise events of an earlier job still wait for a job with the service
            self._delivered = number if has_all else self._delivered
        elif not (self.num_undelivered or len(released)):
            self._delivered = number  # nothing is to be delivered
        is_whole = number % WHOLE_EVERY == 1
        released_to = self._intake.released_to
        record = CommitRecord(
            version=RECORD_VERSION,
            number=number,
            token=new_token(),
            is_whole=is_whole,
            positions=self._source.positions.take(whole=is_whole),
            released_to=released_to if math.isfinite(released_to) else None,
            newest=dict(self._intake.watermark.newest),
            times_are_dates=self._settings.times_are_dates(),
            num_rows={name: len(table) for name, table in tables.items()},
            delivered=self._delivered,
            counts=replace(counts),
        )
        self._output.commit(record, tables)
        if self.last is not None:
            self._output.forget(self.last)
        self.last = record
        if self._delivery is not None and len(released):
            self._delivery.add(number, len(released))
        self._report(record)

    def _check_counts(self) -> None:
        """Check that no event is missing, and that not too many were rejected."""
        counts, held = self._intake.counts, len(self._intake.held)
        placed = counts.events_landed + counts.events_late + counts.events_rejected + held
        if counts.events_read != placed:
            raise AssertionError(f"events do not add up: {counts}, {held} held")
        most = self._settings.max_rejected_fraction
        if counts.events_rejected > most * counts.events_read:
            raise DataError(
                f"{counts.events_rejected} of {counts.events_read} events were rejected: "
                f"{counts.rejected_by_cause}",
                where=self._settings.input_uri,
                cause=f"{self._intake.example()}; nothing was committed since the last commit, so "
                "the next job reads these events again",
                setting=f"source.max_rejected_fraction = {most}",
            )

    def _deliver(self) -> None:
        if self._delivery is None:
            return
        counts = self._intake.counts
        for commit in self._delivery.deliver():
            self._delivered = commit.number
            counts.events_delivered += commit.accepted
            counts.events_refused = dict(Counter(counts.events_refused) + commit.refused)

    def _check_delivered(self) -> None:
        if self.num_undelivered:
            raise StorageError(
                f"{self.num_undelivered:,} landed events are not delivered to the service",
                where=self._output.uri,
                cause="the service is away; start the job again, and it delivers them",
                setting="stream.service",
            )

    def _report(self, record: CommitRecord) -> None:
        rows = record.num_rows
        logger.info(
            "commit %d: %s landed, %s late, %s rejected, %s held, %s undelivered; up to time %s%s",
            record.number,
            *(f"{rows[name]:,}" for name in ("events", "late", "rejected", HELD)),
            f"{self.num_undelivered:,}",
            record.released_to,
            "; reading pauses" if self._is_paused else "",
        )
