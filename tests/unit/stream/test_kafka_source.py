"""Topics of Kafka: messages, offsets that are lost, and brokers that are away."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmtpp.core.errors import ConfigError, DataError, StorageError
from mmtpp.stream import kafka_client
from mmtpp.stream.event_parser import EventParser, message_reader
from mmtpp.stream.kafka_client import connect, read_client_config
from mmtpp.stream.kafka_source import KafkaSource
from mmtpp.stream.source_positions import Positions
from mmtpp.stream.stream_job import stream
from tests.helpers.kafka_brokers import NUM_PARTITIONS, Broker, running_broker
from tests.helpers.streams import event, rows_of, stream_config, times_of

pytest.importorskip("confluent_kafka", reason="pip install 'mmtpp[kafka]'")


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with running_broker() as running:
        yield running


SETTINGS = {"stream.idle_release_seconds": 0.5, "stream.stop_when_idle_seconds": 0.6}


def _source(
    uri: str, positions: dict | None = None, *, config_file: str = "", skips: bool = False
) -> KafkaSource:
    source = stream_config(uri, "/none").source
    parser = EventParser(
        source, message_reader(source), where=uri, image_root="", times_are_dates=None
    )
    return KafkaSource(
        uri, parser, Positions(positions or {}), config_file=config_file, skips_lost=skips
    )


def test_messages_of_all_partitions_are_landed_once_and_in_order(broker: Broker, tmp_path: Path):
    output = tmp_path / "landed"
    for number in range(40):
        name = f"s{number % 3}"
        broker.send_event("all", event(name, number), partition=number % NUM_PARTITIONS)
    broker.flush()
    config = stream_config(broker.uri("all"), output, **SETTINGS)
    report = stream(config)
    assert (report["events_read"], report["events_landed"], report["ended"]) == (40, 40, "idle")
    expected = {f"s{name}": [float(n) for n in range(40) if n % 3 == name] for name in range(3)}
    assert times_of(output) == expected
    broker.send_event("all", event("s0", 99))
    broker.flush()
    assert stream(config)["events_read"] == 41
    assert times_of(output)["s0"] == [*expected["s0"], 99.0]


def test_a_partition_that_is_behind_makes_no_event_late(broker: Broker, tmp_path: Path):
    """All of one partition is sent before the other one, as after a pause of the job."""
    for partition in (0, 1):
        for number in range(50):
            broker.send_event("behind", event(f"s{partition}", number), partition)
    broker.flush()
    limits = {"stream.max_held_events": 60}
    report = stream(stream_config(broker.uri("behind"), tmp_path / "landed", **SETTINGS, **limits))
    assert (report["events_read"], report["events_landed"], report["events_late"]) == (100, 100, 0)


def test_messages_that_are_no_events_are_kept_with_their_offsets(broker: Broker, tmp_path: Path):
    values = [
        b'{"who": "x", "at": 1, "what": "a"}',
        b"\xff\xfe{",  # the mark of UTF-16
        None,
        b" ",
        b'{"who": "x",\n"at": 2, "what": "a", "note": "two\\nlines"}',
        b'{"who": "x", "at": 3, "what": "a\n"}',
        b'{"who": "", "at": 4, "what": "a"}',
        b'{"who": "x", "what": "a"}',
        b'{"who": "x", "at": 5, "what": "a", "note": "caf\xc3\xa9"}',
    ]
    for value in values:
        broker.send("bad", value)
    broker.flush()
    settings = {**SETTINGS, "source.max_rejected_fraction": 0.9}
    report = stream(stream_config(broker.uri("bad"), tmp_path, **settings))
    assert report["events_read"] == len(values)
    assert [row["text"] for row in rows_of(tmp_path)] == ["", "two\nlines", "café"]
    rejected = rows_of(tmp_path, "rejected")
    assert [(row["path"], row["row"]) for row in rejected] == [
        ("bad-0", offset) for offset in (1, 2, 3, 5, 6, 7)
    ]
    assert all(row["detail"].startswith(f"offset {row['row']}: ") for row in rejected)
    assert report["rejected_by_cause"] == {"malformed_record": 5, "missing_time": 1}


def test_dates_among_numbers_are_rejected_with_an_offset(broker: Broker, tmp_path: Path):
    broker.send_event("dates", event("x", 1))
    broker.flush()
    settings = {**SETTINGS, "source.max_rejected_fraction": 0.9}
    config = stream_config(broker.uri("dates"), tmp_path, **settings)
    stream(config)
    broker.send_event("dates", event("x", "2024-01-01"))
    broker.flush()
    assert stream(config)["rejected_by_cause"] == {"ambiguous_time": 1}
    assert [row["row"] for row in rows_of(tmp_path, "rejected")] == [1]


def test_a_missing_topic_is_an_error(broker: Broker, tmp_path: Path):
    with pytest.raises(StorageError, match="the topic absent cannot be read") as caught:
        stream(stream_config(broker.uri("absent"), tmp_path, **SETTINGS))
    assert caught.value.where == broker.address
    assert caught.value.setting == f"stream.input = {broker.uri('absent')}"


def test_brokers_that_do_not_answer_are_an_error(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(kafka_client, "TIMEOUT_S", 1.0)
    with pytest.raises(StorageError, match="Kafka does not answer") as caught:
        stream(stream_config("kafka://127.0.0.1:1/t", tmp_path))
    assert caught.value.where == "127.0.0.1:1"
    assert "stream.kafka_config" in caught.value.cause


def test_a_topic_that_was_created_again_is_an_error(broker: Broker):
    broker.send_event("again", event("x", 1))
    broker.flush()
    with pytest.raises(DataError, match="partition 0 has 1 messages, but 7 were read") as caught:
        _source(broker.uri("again"), {"0": 7})
    assert "deleted and created again" in caught.value.cause
    assert caught.value.where == broker.uri("again")


def _fill(broker: Broker, topic: str, number: int) -> None:
    """Append events of 400 kB; the broker keeps about twelve of a partition."""
    note = "n" * 400_000
    for time in range(number):
        broker.send_event(topic, event("x", time, note))
    broker.flush()


def test_deleted_messages_stop_the_job_or_are_counted(broker: Broker, tmp_path: Path):
    broker.send_event("short", event("x", 0))
    broker.flush()
    config = stream_config(broker.uri("short"), tmp_path, **SETTINGS)
    assert stream(config)["events_read"] == 1
    _fill(broker, "short", 20)
    with pytest.raises(DataError) as caught:
        stream(config)
    assert "partition 0 lost up to" in caught.value.problem
    assert "offsets 1 to" in caught.value.problem
    assert caught.value.setting.startswith("stream.on_lost = fail")
    skipping = stream_config(
        broker.uri("short"), tmp_path, **SETTINGS, **{"stream.on_lost": "skip"}
    )
    report = stream(skipping)
    assert isinstance(report["messages_lost"], int)
    assert report["messages_lost"] > 0
    assert report["events_read"] + report["messages_lost"] == 21  # type: ignore[operator]


@pytest.mark.parametrize("skips", [False, True])
def test_messages_that_are_deleted_while_the_job_runs_are_noticed(
    broker: Broker, tmp_path: Path, skips: bool
):
    topic = f"running-{skips}"
    config_file = tmp_path / "client.properties"
    config_file.write_text(
        "# reads ahead by one message\nqueued.max.messages.kbytes=1\n"
        "fetch.queue.backoff.ms = 10\n\n"
    )
    _fill(broker, topic, 3)
    source = _source(broker.uri(topic), config_file=str(config_file), skips=skips)
    read = sum(arrival.counts.num_read for arrival in source.read(1))
    source.pause()
    _fill(broker, topic, 30)

    def read_all() -> int:
        more = 0
        while "0" not in source.drained():
            more += sum(arrival.counts.num_read for arrival in source.read(100))
        return more

    if skips:
        read += read_all()
        assert 0 < source.lost() == 33 - read
        assert source.lost() == 0
    else:
        with pytest.raises(DataError, match="lost up to"):
            read_all()
    source.close()


class _Batch:
    """A consumer whose next answer is a given list of messages."""

    def __init__(self, consumer, messages: list) -> None:
        self._consumer, self._messages = consumer, messages

    def __getattr__(self, name: str):
        return getattr(self._consumer, name)

    def consume(self, *arguments, **options):
        messages, self._messages = self._messages, []
        return messages or self._consumer.consume(*arguments, **options)


class _DeletedMessage:
    """What the client returns for an offset that no longer exists."""

    def error(self):
        from confluent_kafka import KafkaError

        return KafkaError(KafkaError._AUTO_OFFSET_RESET)


def test_messages_next_to_a_deleted_one_are_read_once(broker: Broker):
    """The error comes first in a batch, and makes the source read from its positions again."""
    for number in range(3):
        broker.send_event("beside", event("x", number), partition=1)
    broker.flush()
    source = _source(broker.uri("beside"))
    messages: list = []
    while len(messages) < 3:
        found = source._consumer.consume(3, timeout=1)
        messages += [message for message in found if message.error() is None]
    source._consumer = _Batch(source._consumer, [_DeletedMessage(), *messages])
    times: list[float] = []
    for number in (3, 4):
        broker.send_event("beside", event("x", number), partition=1)
        broker.flush()
        while "1" not in source.drained():
            for arrival in source.read(10):
                times += arrival.events["time"].to_pylist()
    assert times == [0.0, 1.0, 2.0, 3.0, 4.0]
    source.close()


def test_an_outage_is_no_silence(monkeypatch: pytest.MonkeyPatch):
    """Held events are not released while nobody can say that there are no earlier ones."""
    monkeypatch.setattr(kafka_client, "TIMEOUT_S", 1.0)
    with running_broker() as broker:
        broker.send_event("away", event("x", 1))
        broker.flush()
        source = _source(broker.uri("away"))
        while len(source.drained()) < NUM_PARTITIONS:
            source.read(1)
    assert source.drained() == set()
    assert source.read(1) == []
    source.close()


def test_settings_of_the_client_are_read_from_a_file(tmp_path: Path):
    path = tmp_path / "client.properties"
    path.write_text("# a comment\n\nsasl.password = a=b\nclient.id=me\n")
    assert read_client_config(str(path)) == {"sasl.password": "a=b", "client.id": "me"}
    path.write_text("client.id=me\nsecret\n")
    with pytest.raises(ConfigError) as caught:
        read_client_config(str(path))
    assert caught.value.where == f"{path}, line 2"
    assert "secret" not in str(caught.value)
    path.write_text("no.such.setting=1\n")
    with pytest.raises(ConfigError, match=r"no\.such\.setting"):
        connect("kafka://h:1/t", str(path))
    with pytest.raises(ConfigError, match="cannot be read"):
        connect("kafka://h:1/t", str(tmp_path / "none"))


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "confluent_kafka", None)
    with pytest.raises(ConfigError) as caught:
        connect("kafka://h:1/t", "")
    assert caught.value.cause == "pip install 'mmtpp[kafka]'"


def test_a_value_in_lines_stays_what_it_is():
    value = json.dumps({"a": "b\nc"}, indent=2).encode()
    from mmtpp.stream.kafka_source import _as_line

    assert json.loads(_as_line(value)) == {"a": "b\nc"}
    assert b"\n" not in _as_line(value)
