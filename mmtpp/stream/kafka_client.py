"""A client of Kafka that reads given offsets, and errors with their likely causes."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmtpp.core.errors import ConfigError, StorageError

logger = logging.getLogger(__name__)

TIMEOUT_S = 15.0
"""Longest time to wait for an answer of the brokers, in seconds."""
KAFKA = "kafka://"


def split_address(uri: str) -> tuple[str, str]:
    """Hosts and topic of ``kafka://HOST:PORT,HOST:PORT/TOPIC``."""
    hosts, _, topic = uri.removeprefix(KAFKA).partition("/")
    return hosts, topic


def read_client_config(path: str) -> dict[str, str]:
    """Read settings of the client, a ``NAME=VALUE`` in each line; ``#`` begins a comment.

    Raises:
        ConfigError: The file cannot be read, or a line is no assignment.
    """
    if not path:
        return {}
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"the settings of Kafka's client cannot be read: {error}",
            setting=f"stream.kafka_config = {path}",
        ) from error
    values: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        name, equals, value = line.partition("=")
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not equals:  # the line may hold a password, so it is not shown
            raise ConfigError(
                "a line is no assignment NAME=VALUE",
                where=f"{path}, line {number}",
                setting=f"stream.kafka_config = {path}",
            )
        values[name.strip()] = value.strip()
    return values


def connect(uri: str, config_file: str) -> Any:
    """Build a ``confluent_kafka.Consumer`` that takes no offsets from its group.

    Raises:
        ConfigError: The package is missing, or a setting of the file is unknown.
    """
    hosts, _ = split_address(uri)
    try:
        from confluent_kafka import Consumer, KafkaException
    except ImportError as error:
        raise ConfigError(
            f"{KAFKA} needs a package that is not installed: {error}",
            cause="pip install 'mmtpp[kafka]'",
            setting=f"stream.input = {uri}",
        ) from error
    fixed = {
        "bootstrap.servers": hosts,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "error",  # deleted messages are never skipped unseen
        "error_cb": lambda error: logger.warning("Kafka: %s", error.str()),
    }
    settings = {"group.id": "mmtpp-stream", **read_client_config(config_file), **fixed}
    try:
        return Consumer(settings, logger=logging.getLogger("confluent_kafka"))
    except KafkaException as error:
        raise ConfigError(
            f"Kafka's client refuses its settings: {error.args[0].str()}",
            where=config_file or uri,
            setting=f"stream.kafka_config = {config_file!r}",
        ) from error


def partitions_of(consumer: Any, uri: str) -> list[int]:
    """Numbers of the topic's partitions.

    Raises:
        StorageError: No broker answers, or there is no such topic.
    """
    from confluent_kafka import KafkaException

    hosts, topic = split_address(uri)
    try:
        found = consumer.list_topics(topic, timeout=TIMEOUT_S).topics[topic]
    except KafkaException as error:
        raise unreachable(error, uri) from error
    if found.error is not None or not found.partitions:
        problem = found.error.str() if found.error else "it has no partitions"
        raise StorageError(
            f"the topic {topic} cannot be read: {problem}",
            where=hosts,
            cause="the topic is misspelt, not created yet, or this user may not see it",
            setting=f"stream.input = {uri}",
        )
    return sorted(found.partitions)


def offsets_of(consumer: Any, uri: str, partition: int) -> tuple[int, int]:
    """Offset of the oldest message of a partition, and the offset that the next one will get.

    Raises:
        StorageError: No broker answers.
    """
    from confluent_kafka import KafkaException, TopicPartition

    place = TopicPartition(split_address(uri)[1], partition)
    try:
        low, high = consumer.get_watermark_offsets(place, timeout=TIMEOUT_S)
    except (KafkaException, TypeError) as error:  # TypeError: None, for no answer in time
        raise unreachable(error, uri) from error
    return low, high


def ends_of(consumer: Any, uri: str, partitions: Sequence[int]) -> dict[int, int]:
    """Offset that the next message of each partition will get, in one request.

    Raises:
        StorageError: A partition's broker does not answer.
    """
    from confluent_kafka import OFFSET_END, KafkaException, TopicPartition

    topic = split_address(uri)[1]
    places = [TopicPartition(topic, number, OFFSET_END) for number in partitions]
    try:
        ends = consumer.offsets_for_times(places, timeout=TIMEOUT_S)
    except KafkaException as error:
        raise unreachable(error, uri) from error
    for end in ends:
        if end.error is not None:
            raise unreachable(KafkaException(end.error), uri)
    return {end.partition: end.offset for end in ends}


def unreachable(error: Exception, uri: str) -> StorageError:
    """The error of brokers that do not answer."""
    hosts, _ = split_address(uri)
    return StorageError(
        f"Kafka does not answer: {error}",
        where=hosts,
        cause="the address is wrong, the brokers are down, or they need stream.kafka_config",
        setting=f"stream.input = {uri}",
    )
