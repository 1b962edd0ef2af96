"""Deliver landed events to a live service, commit by commit, in order and exactly once."""

import json
import logging
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

import pyarrow as pa

from mmtpp.stream.output_folder import OutputFolder
from mmtpp.stream.service_client import ServiceAwayError, ServiceClient

logger = logging.getLogger(__name__)

EVENTS_PER_REQUEST = 500
RETRY_S = 5.0
"""Time between two deliveries to a service that is away, in seconds."""


@dataclass(slots=True)
class DeliveredCommit:
    """The outcome of the delivery of a commit.

    Attributes:
        number: Number of the commit.
        accepted: Number of events that the service has.
        refused: Number of events that it refused, by cause.
    """

    number: int
    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)


class ServiceDelivery:
    """Delivers the events of commits. They wait in the output while the service is away.

    The key of an event is its place: the number of its commit and its row. A commit whose delivery
    was interrupted is delivered again, and the service recognises the events that it has.

    Args:
        client: The service.
        output: The output with the landed events.
        as_source: Function that gives landed events times in the source's unit.
        now: Clock in seconds that never jumps.
    """

    def __init__(
        self,
        client: ServiceClient,
        output: OutputFolder,
        as_source: Callable[[pa.Table], pa.Table],
        now: Callable[[], float],
    ) -> None:
        self._client, self._output, self._as_source, self._now = client, output, as_source, now
        self._waiting: deque[tuple[int, int]] = deque()  # number and events of commits
        self._next_attempt = now()

    @property
    def num_waiting(self) -> int:
        """Number of events that wait for their delivery."""
        return sum(events for _, events in self._waiting)

    def add(self, number: int, num_events: int) -> None:
        """Note a commit that is to be delivered."""
        self._waiting.append((number, num_events))

    def deliver(self) -> list[DeliveredCommit]:
        """Deliver the waiting commits, the oldest first.

        Returns:
            The commits that are delivered as a whole.

        Raises:
            ConfigError, StorageError: The service refuses all requests.
        """
        done: list[DeliveredCommit] = []
        while self._waiting and self._now() >= self._next_attempt:
            number, _ = self._waiting[0]
            try:
                done.append(self._deliver(number))
            except ServiceAwayError as error:
                logger.warning("%s; %s events wait", error.problem, f"{self.num_waiting:,}")
                self._next_attempt = self._now() + RETRY_S
                break
            self._waiting.popleft()
        return done

    def _deliver(self, number: int) -> DeliveredCommit:
        outcome = DeliveredCommit(number)
        table = self._output.read_published("events", number)
        if table is None:
            return outcome
        refused: list[str] = []
        rows = self._as_source(table).to_pylist()
        for start in range(0, len(rows), EVENTS_PER_REQUEST):
            part = rows[start : start + EVENTS_PER_REQUEST]
            events = [_as_event(row, f"{number}:{start + place}") for place, row in enumerate(part)]
            rejected = self._client.append(events)
            outcome.accepted += len(events) - len(rejected)
            outcome.refused.update(item["cause"] for item in rejected)
            refused += [
                json.dumps({**events[item["index"]], **_reason(item)}, ensure_ascii=False)
                for item in rejected
            ]
        if refused:
            self._output.write_refused(number, refused)
        return outcome


def _as_event(row: dict, key: str) -> dict:
    """An event as the service reads it; images are not served."""
    event = {name: row[name] for name in ("sequence", "time", "type")}
    return {**event, "key": key, **({"text": row["text"]} if row["text"] else {})}


def _reason(item: dict) -> dict:
    return {"cause": item["cause"], "message": item.get("message", "")}
