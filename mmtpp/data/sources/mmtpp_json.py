"""The published MM-TPP layout: a JSON list of events a file, images beside it.

    [{"time": 3.2, "text": "...", "image_path": "images/a.png",
      "TPP_attribute": {"time_since_last_event": 1.1, "event_type": 4}}, ...]

The type is also accepted under ``type_event`` (DanmakuTPP), inside or outside ``TPP_attribute``.
``image_path`` is relative to ``source.uri``. Intervals are recomputed from the times; where the
declared one differs, the event is counted as disagreeing.
"""

import json
from collections.abc import Iterator

import orjson

from mmtpp.data.sources.reader import RawColumns, RawEvent, SourceReader, stem
from mmtpp.data.sources.tables import MalformedFileError, as_text


def parse(path: str, data: bytes) -> Iterator[RawEvent]:
    """Raw events of one file.

    Raises:
        MalformedFileError: not JSON, or not a list.
    """
    try:
        tree = json.loads(as_text(path, data))
    except (ValueError, RecursionError) as error:
        raise MalformedFileError(f"{path}: not JSON: {error}") from error
    if not isinstance(tree, list):
        raise MalformedFileError(f"{path}: a list of events expected, found {type(tree).__name__}")
    name = stem(path)
    for row, record in enumerate(tree):
        if not isinstance(record, dict):
            problem = "an event must be an object"
            yield RawEvent(name, row, None, None, None, None, record, problem)
            continue
        attributes = record.get("TPP_attribute")
        attributes = attributes if isinstance(attributes, dict) else {}
        yield RawEvent(
            sequence=name,
            row=row,
            time=record.get("time"),
            type=_first(attributes, record, "event_type", "type_event"),
            text=record.get("text", ""),
            image=record.get("image_path"),
            record=record,
            interval=_first(attributes, record, "time_since_last_event"),
        )


def _first(attributes: dict, record: dict, *keys: str) -> object:
    """The first value there is; inside the attributes before outside."""
    for holder in (attributes, record):
        for key in keys:
            if holder.get(key) is not None:
                return holder[key]
    return None


def columns(path: str, data: bytes) -> RawColumns | None:
    """The columns of a file in which every event has the published attributes.

    orjson takes less than ``json``: no NaN, no lone surrogates, no byte order mark. What it
    refuses is read one by one.
    """
    try:
        name = stem(path)
        name.encode()
        tree = orjson.loads(data)
        attributes = [record["TPP_attribute"] for record in tree]
        return RawColumns(
            sequence=name,
            times=[record["time"] for record in tree],
            types=[each["event_type"] for each in attributes],
            texts=[record["text"] for record in tree],
            images=[record.get("image_path") for record in tree],
            intervals=[each["time_since_last_event"] for each in attributes],
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def count(path: str, data: bytes) -> int | None:
    """Number of events a damaged file seems to hold; None where that cannot be known."""
    del path
    return data.count(b'"time"') or None


MMTPP = SourceReader(suffixes=(".json",), parse=parse, columns=columns, count=count)
