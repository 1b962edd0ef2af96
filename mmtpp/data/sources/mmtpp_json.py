"""The published MM-TPP layout: a JSON list of events a file, images beside it.

    [{"time": 3.2, "text": "...", "image_path": "images/a.png",
      "TPP_attribute": {"time_since_last_event": 1.1, "event_type": 4}}, ...]

The type is also accepted under ``type_event`` (DanmakuTPP), inside or outside ``TPP_attribute``.
``image_path`` is relative to ``source.uri``. Intervals are recomputed from the times.
"""

import json
from collections.abc import Iterator

from mmtpp.data.sources.reader import MalformedFileError, RawEvent, SourceReader


def parse(path: str, data: bytes) -> Iterator[RawEvent]:
    """Raw events of one file.

    Raises:
        MalformedFileError: not JSON, or not a list.
    """
    try:
        tree = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise MalformedFileError(f"{path}: not JSON: {error}") from error
    if not isinstance(tree, list):
        raise MalformedFileError(f"{path}: a list of events expected, found {type(tree).__name__}")
    for row, record in enumerate(tree):
        if not isinstance(record, dict):
            yield RawEvent(row, None, None, None, None, record, "an event must be an object")
            continue
        attributes = record.get("TPP_attribute")
        attributes = attributes if isinstance(attributes, dict) else {}
        event_type = None
        for holder in (attributes, record):
            for key in ("event_type", "type_event"):
                if event_type is None:
                    event_type = holder.get(key)
        text = record.get("text", "")
        yield RawEvent(row, record.get("time"), event_type, text, record.get("image_path"), record)


MMTPP = SourceReader(suffix=".json", parse=parse)
