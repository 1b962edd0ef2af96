"""A topic of Kafka with JSON values, read from the offsets of the last commit."""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mmtpp.core.errors import DataError, StorageError
from mmtpp.core.events import Rejected
from mmtpp.stream.arrivals import Arrival
from mmtpp.stream.event_parser import EventParser
from mmtpp.stream.kafka_client import (
    connect,
    ends_of,
    offsets_of,
    partitions_of,
    split_address,
    unreachable,
)
from mmtpp.stream.source_positions import Positions

MAX_MESSAGES = 5000
"""Largest number of messages that are parsed at once."""
WAIT_S = 0.2
"""Longest time to wait for that many messages, in seconds."""
REFRESH_S = 60.0
"""Time between two looks for new partitions, in seconds."""
_NO_OBJECT = b"null"  # a message without a value; it is rejected as no object


class KafkaSource:
    """Reads the messages of all partitions of a topic.

    Attributes:
        positions: Offset of the next message of each partition.

    Args:
        uri: ``kafka://HOST:PORT/TOPIC``.
        parser: Parser of the values.
        positions: Offsets of an earlier job.
        config_file: Further settings of the client; empty for none.
        skips_lost: Whether deleted messages are counted and skipped.

    Raises:
        ConfigError: The client refuses its settings, or its package is missing.
        StorageError: The topic cannot be read.
        DataError: Messages were deleted before they were read.
    """

    def __init__(
        self,
        uri: str,
        parser: EventParser,
        positions: Positions,
        *,
        config_file: str,
        skips_lost: bool,
    ) -> None:
        self.positions = positions
        self._uri, self._parser = uri, parser
        self._skips_lost = skips_lost
        self._topic = split_address(uri)[1]
        self._lost = 0
        self._is_paused = False
        self._partitions: list[int] = []
        self._consumer = connect(uri, config_file)
        self._refreshed = time.monotonic()
        self._assign(partitions_of(self._consumer, uri))

    def read(self, room: int) -> list[Arrival]:
        """Read up to ``room`` messages, those that come in ``WAIT_S``.

        Raises:
            DataError: Messages were deleted before they were read.
            StorageError: A partition cannot be read.
        """
        if self._is_paused:
            self._consumer.resume(self._places())
            self._is_paused = False
        if time.monotonic() - self._refreshed > REFRESH_S:
            self._add_partitions()
        messages = self._consumer.consume(min(room, MAX_MESSAGES), timeout=WAIT_S)
        by_partition: dict[int, list[Any]] = {}
        for message in messages:
            if message.error() is None:
                by_partition.setdefault(message.partition(), []).append(message)
        arrivals = [self._parse(*item) for item in by_partition.items()]
        # errors last: after one, all partitions are read again from their positions
        for message in messages:
            if message.error() is not None:
                self._handle(message)
        return arrivals

    def pause(self) -> None:
        """Fetch no more messages; the client keeps its connection."""
        if not self._is_paused:
            self._consumer.pause(self._places())
            self._is_paused = True
        self._consumer.poll(0)

    def partitions(self) -> list[str]:
        """Numbers of the partitions."""
        return list(map(str, self._partitions))

    def drained(self) -> set[str]:
        """Partitions without a further message; none while no broker answers."""
        try:
            ends = ends_of(self._consumer, self._uri, self._partitions)
        except StorageError:  # an outage is no silence
            return set()
        return {
            str(number) for number, end in ends.items() if self.positions.values[str(number)] >= end
        }

    def lost(self) -> int:
        """Number of offsets that were skipped since the last call."""
        lost, self._lost = self._lost, 0
        return lost

    def close(self) -> None:
        """Close the connections."""
        self._consumer.close()

    def _places(self) -> list[Any]:
        from confluent_kafka import TopicPartition

        return [
            TopicPartition(self._topic, number, self.positions.values[str(number)])
            for number in self._partitions
        ]

    def _add_partitions(self) -> None:
        """Read partitions, too, that the topic got after the start."""
        self._refreshed = time.monotonic()
        numbers = partitions_of(self._consumer, self._uri)
        if numbers != self._partitions:
            self._assign(numbers)

    def _assign(self, numbers: list[int]) -> None:
        """Read partitions from their positions; a new one from its oldest message."""
        for number in numbers:
            self._check_offset(number)
        self._partitions = numbers
        self._consumer.assign(self._places())

    def _check_offset(self, number: int) -> None:
        """Check that the next message of a partition still exists, or will exist.

        Raises:
            DataError: It was deleted and ``skips_lost`` is not set, or the topic is another one.
        """
        low, high = offsets_of(self._consumer, self._uri, number)
        position = self.positions.values.get(str(number))
        if position is None:
            self.positions.set(str(number), low)
        elif position > high:
            raise DataError(
                f"partition {number} has {high:,} messages, but {position:,} were read",
                where=self._uri,
                cause="the topic was deleted and created again, or this is another cluster",
                setting=f"stream.input = {self._uri}; land it in another stream.output",
            )
        elif position < low:
            if not self._skips_lost:
                raise DataError(
                    f"partition {number} lost up to {low - position:,} messages before they were "
                    f"read: offsets {position:,} to {low - 1:,}",
                    where=self._uri,
                    cause="the topic's retention is shorter than the time without this job",
                    setting="stream.on_lost = fail; set it to skip to count them and continue",
                )
            self._lost += low - position
            self.positions.set(str(number), low)

    def _handle(self, message: Any) -> None:
        """React to an error instead of a message.

        Raises:
            DataError: Messages were deleted before they were read.
            StorageError: The partition cannot be read.
        """
        from confluent_kafka import KafkaError, KafkaException

        error = message.error()
        if error.code() == KafkaError._PARTITION_EOF:
            self._pass_markers(message.partition(), message.offset())
        elif error.code() == KafkaError._AUTO_OFFSET_RESET:
            self._assign(self._partitions)
        elif not error.retriable():
            raise unreachable(KafkaException(error), self._uri)

    def _pass_markers(self, number: int, end: int) -> None:
        """Continue at the end of a partition; only markers of transactions may lie before it."""
        if end > self.positions.values[str(number)]:
            self.positions.set(str(number), end)

    def _parse(self, number: int, messages: Sequence[Any]) -> Arrival:
        """Parse messages of a partition as a file of JSON lines, after an empty first line.

        The empty line keeps the first bytes of a message from being read as a byte order mark.
        """
        lines = [b"", *(_as_line(message.value()) for message in messages)]
        name = f"{self._topic}-{number}"
        arrival = self._parser.parse(str(number), f"{name}.jsonl", b"\n".join(lines))
        offsets = [message.offset() for message in messages]
        self.positions.set(str(number), offsets[-1] + 1)
        return replace(arrival, rejected=_with_offsets(arrival.rejected, name, offsets))


def _as_line(value: bytes | None) -> bytes:
    """A value as one line; a value that is no JSON stays invalid."""
    if value is None or not value.strip():
        return _NO_OBJECT
    if b"\n" not in value:
        return value
    try:
        return json.dumps(json.loads(value)).encode()
    except (ValueError, RecursionError):
        return value.replace(b"\n", b"\x0b")  # invalid in JSON wherever it stands


def _with_offsets(
    rejected: Sequence[Rejected], name: str, offsets: Sequence[int]
) -> list[Rejected]:
    """Rejected records with the offsets of their messages in place of rows."""
    return [
        replace(record, path=name, row=offset, detail=f"offset {offset}: {record.fault}")
        for record in rejected
        # without a row, the fault is one of all messages that were parsed together
        for offset in [offsets[record.row - 1] if record.row > 0 else offsets[0]]
    ]
