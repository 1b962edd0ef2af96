"""The stream job: configuration in, landed events and report out."""

import logging
import math
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import pyarrow as pa

from mmtpp.config.affects import Affects, settings_that_affect
from mmtpp.config.schema import RunConfig
from mmtpp.config.stream_checks import KAFKA, check_stream
from mmtpp.data.from_config import build_source_reader
from mmtpp.serve.guards import read_token
from mmtpp.storage.paths import check_bucket, join
from mmtpp.stream.arrivals import StreamSource
from mmtpp.stream.commit_record import CommitRecord, StreamCounts
from mmtpp.stream.event_parser import EventParser, message_reader
from mmtpp.stream.folder_source import FolderSource
from mmtpp.stream.held_events import HeldEvents, no_events
from mmtpp.stream.intake import Intake
from mmtpp.stream.kafka_source import KafkaSource
from mmtpp.stream.landed_events import EVENTS, as_landed, from_landed, prepare_settings
from mmtpp.stream.output_folder import OutputFolder
from mmtpp.stream.service_client import ServiceClient
from mmtpp.stream.service_delivery import ServiceDelivery
from mmtpp.stream.source_positions import Positions
from mmtpp.stream.stop_signal import stop_event
from mmtpp.stream.stream_loop import LoopSettings, StreamLoop
from mmtpp.stream.watermark import Watermark

logger = logging.getLogger(__name__)

# how events are read; other settings of the source only matter to ``prepare``
_READING = ("kind", "seconds_per_unit", "types", "rare_types", "columns.", "csv.")


def stream(config: RunConfig) -> dict[str, object]:
    """Land events until the job is stopped.

    Args:
        config: The whole configuration.

    Returns:
        The job's report: counts since the first commit, and where the events are.

    Raises:
        ConfigError: The settings do not fit each other, the output, Kafka or the service.
        DataError, StorageError: As ``StreamLoop`` raises them.
    """
    check_stream(config)
    token = read_token(config.stream.service_token_file)
    check_bucket(config.stream.output)
    output = OutputFolder(config.stream.output)
    try:
        with stop_event() as stop:
            return _run(config, output, token, stop)
    finally:
        output.close()


def _run(
    config: RunConfig, output: OutputFolder, token: str, stop: threading.Event
) -> dict[str, object]:
    settings = config.stream
    _claim(output, config)
    records = output.records()
    last = records[-1] if records else None
    parser = _parser(config, last)
    held = output.recover(last) if last else no_events()
    read_from = _open_source(config, parser, _positions(records))
    watermark = Watermark(
        settings.allowed_lateness_seconds / config.source.seconds_per_unit,
        settings.idle_release_seconds,
        last.newest if last else {},
        time.monotonic,
    )
    released_to = -math.inf if last is None or last.released_to is None else last.released_to
    counts = replace(last.counts) if last else StreamCounts()
    intake = Intake(HeldEvents(held), counts, released_to, watermark)
    loop = StreamLoop(
        read_from,
        intake,
        output,
        last,
        _delivery(config, output, parser, token, last),
        _loop_settings(config, parser),
    )
    try:
        ended = loop.run(stop)
    finally:
        read_from.close()
    return {**asdict(counts), **_report(config, loop, intake, parser), "ended": ended}


def _claim(output: OutputFolder, config: RunConfig) -> None:
    """Check that the output belongs to this input, read in this way."""
    reading = {
        f"source.{path}": value
        for path, value in settings_that_affect(config.source, Affects.STORE).items()
        if path.startswith(_READING)
    }
    about = {"stream.input": config.stream.input, **reading}
    if not output.claim(about):
        logger.warning(
            "%s: this storage does not refuse to replace a file, so it cannot stop a second job "
            "that lands the same stream; start only one",
            output.uri,
        )


def _positions(records: Sequence[CommitRecord]) -> Positions:
    """The positions of the last commit, from records that each have the changed ones."""
    values: dict[str, Any] = {}
    for record in records:
        values.update(record.positions)
    return Positions(values)


def _parser(config: RunConfig, last: CommitRecord | None) -> EventParser:
    is_kafka = config.stream.input.startswith(KAFKA)
    return EventParser(
        config.source,
        message_reader(config.source) if is_kafka else build_source_reader(config.source),
        where=config.stream.input,
        image_root="" if is_kafka else config.stream.input,
        times_are_dates=last.times_are_dates if last else None,
    )


def _open_source(config: RunConfig, parser: EventParser, positions: Positions) -> StreamSource:
    settings = config.stream
    if settings.input.startswith(KAFKA):
        return KafkaSource(
            settings.input,
            parser,
            positions,
            config_file=settings.kafka_config,
            skips_lost=settings.on_lost == "skip",
        )
    return FolderSource(
        settings.input, parser, positions, max_file_bytes=config.source.max_file_mib * 2**20
    )


def _delivery(
    config: RunConfig,
    output: OutputFolder,
    parser: EventParser,
    token: str,
    last: CommitRecord | None,
) -> ServiceDelivery | None:
    """The delivery to the service, with the commits that it does not have; None for no service."""
    if not config.stream.service:
        return None

    def as_source(events: pa.Table) -> pa.Table:
        return from_landed(
            events,
            times_are_dates=bool(parser.times_are_dates),
            seconds_per_unit=config.source.seconds_per_unit,
        )

    client = ServiceClient(config.stream.service, token)
    delivery = ServiceDelivery(client, output, as_source, time.monotonic)
    if last is not None:
        for number in range(last.delivered + 1, last.number + 1):
            events = output.read_published(EVENTS, number)
            if events is not None:
                delivery.add(number, len(events))
    return delivery


def _loop_settings(config: RunConfig, parser: EventParser) -> LoopSettings:
    settings = config.stream

    def landed(events: pa.Table) -> pa.Table:
        return as_landed(
            events,
            times_are_dates=bool(parser.times_are_dates),
            seconds_per_unit=config.source.seconds_per_unit,
        )

    return LoopSettings(
        commit_s=settings.commit_seconds,
        poll_s=settings.poll_seconds,
        stop_when_idle_s=settings.stop_when_idle_seconds,
        max_held_events=settings.max_held_events,
        max_rejected_fraction=config.source.max_rejected_fraction,
        input_uri=settings.input,
        times_are_dates=lambda: parser.times_are_dates,
        as_landed=landed,
    )


def _report(
    config: RunConfig, loop: StreamLoop, intake: Intake, parser: EventParser
) -> dict[str, object]:
    output_uri = config.stream.output
    return {
        "events_held": len(intake.held),
        "events_undelivered": loop.num_undelivered,
        "commits": loop.last.number if loop.last else 0,
        "events_uri": join(output_uri, EVENTS),
        "prepare_settings": prepare_settings(
            output_uri,
            config.source,
            input_uri=config.stream.input,
            times_are_dates=bool(parser.times_are_dates),
        ),
    }
