"""The published MM-TPP layout: a file is a JSON list of events, with image files next to it.

    [{"time": 3.2, "text": "...", "image_path": "images/a.png",
      "TPP_attribute": {"time_since_last_event": 1.1, "event_type": 4}}, ...]

The key of the type may also be ``type_event`` (DanmakuTPP), inside or outside ``TPP_attribute``.
``image_path`` is relative to ``source.uri``. Intervals are recomputed from the times. An event with
a different declared interval is counted as disagreeing.
"""

import json
from collections.abc import Iterator

import orjson

from mmtpp.data.sources.event_files import MalformedFileError, decode_text, stem
from mmtpp.data.sources.reader import RawColumns, RawEvent, SourceReader, malformed_event


def parse(path: str, data: bytes) -> Iterator[RawEvent]:
    """Parse the raw events of one file.

    Raises:
        MalformedFileError: The file is not JSON, or not a list.
    """
    try:
        tree = json.loads(decode_text(path, data))
    except (ValueError, RecursionError) as error:
        raise MalformedFileError(f"{path}: not JSON: {error}") from error
    if not isinstance(tree, list):
        raise MalformedFileError(f"{path}: a list of events expected, not {type(tree).__name__}")
    sequence = stem(path)
    for row, record in enumerate(tree):
        if not isinstance(record, dict):
            yield malformed_event(sequence, row, record, "an event must be an object")
            continue
        attributes = record.get("TPP_attribute")
        attributes = attributes if isinstance(attributes, dict) else {}
        yield RawEvent(
            sequence=sequence,
            row=row,
            time=record.get("time"),
            type=_first_value(attributes, record, "event_type", "type_event"),
            text=record.get("text", ""),
            image=record.get("image_path"),
            record=record,
            interval=_first_value(attributes, record, "time_since_last_event"),
        )


def _first_value(attributes: dict, record: dict, *keys: str) -> object:
    """The first value under one of the keys; the attributes are searched before the record."""
    for holder in (attributes, record):
        for key in keys:
            if holder.get(key) is not None:
                return holder[key]
    return None


def parse_columns(path: str, data: bytes) -> RawColumns | None:
    """Parse a file in which every event has the published attributes; None for any other file.

    orjson is stricter than ``json``: it refuses NaN, lone surrogates and byte order marks. Files
    that it refuses are read record by record.
    """
    try:
        sequence = stem(path)
        sequence.encode()
        tree = orjson.loads(data)
        attributes = [record["TPP_attribute"] for record in tree]
        return RawColumns(
            sequences=sequence,
            times=[record["time"] for record in tree],
            types=[attribute["event_type"] for attribute in attributes],
            texts=[record["text"] for record in tree],
            images=[record.get("image_path") for record in tree],
            intervals=[attribute["time_since_last_event"] for attribute in attributes],
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def count_events(path: str, data: bytes) -> int | None:
    """Estimate the number of events in a damaged file; None if it cannot be known."""
    del path
    return data.count(b'"time"') or None


MMTPP = SourceReader(suffixes=(".json",), parse=parse, columns=parse_columns, count=count_events)
