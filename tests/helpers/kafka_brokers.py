"""A broker that speaks Kafka's protocol over TCP: librdkafka's, in a process of its own."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

NUM_PARTITIONS = 4
"""Number of partitions of a topic, which its first message creates."""
MAX_PARTITION_BYTES = 5_000_000
"""About the size of a partition beyond which the broker deletes its oldest messages."""
_PROGRAM = """
import sys
from confluent_kafka import Producer

producer = Producer({"bootstrap.servers": "none:1", "test.mock.num.brokers": 1})
[broker] = producer.list_topics(timeout=30).brokers.values()
print(f"{broker.host}:{broker.port}", flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True, slots=True)
class Broker:
    """A running broker.

    Attributes:
        address: HOST:PORT.
        producer: A producer that is connected to it.
    """

    address: str
    producer: Any

    def uri(self, topic: str) -> str:
        """The address of a topic as ``stream.input`` has it."""
        return f"kafka://{self.address}/{topic}"

    def send(self, topic: str, value: bytes | None, partition: int = 0) -> None:
        """Append a message to a partition."""
        self.producer.produce(topic, value, partition=partition)
        self.producer.poll(0)

    def send_event(self, topic: str, event: Mapping[str, object], partition: int = 0) -> None:
        """Append an event to a partition."""
        self.send(topic, json.dumps(event).encode(), partition)

    def flush(self) -> None:
        """Wait until the broker has all messages."""
        assert self.producer.flush(30) == 0


@contextmanager
def running_broker() -> Iterator[Broker]:
    """Run a broker; skips the test if the package is not installed."""
    kafka = pytest.importorskip("confluent_kafka", reason="pip install 'mmtpp[kafka]'")
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        address = process.stdout.readline().strip()
        assert address, "the broker did not start"
        quiet = {"log_level": 0}
        yield Broker(address, kafka.Producer({"bootstrap.servers": address, **quiet}))
    finally:
        process.kill()
        process.communicate()
