"""Bilibili bullet comments: one XML file a video, ``<d p="time,mode,...">text</d>`` a comment.

The time is the position in the video in seconds; the type is the display mode (1 to 3 scrolling,
4 bottom, 5 top, 6 reverse, 7 positioned, 8 code, 9 other). Files come in order of sending, so
comments are sorted by time.
"""

from collections.abc import Iterator
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from mmtpp.data.sources.reader import MalformedFileError, RawEvent, SourceReader, stem

MODES = (
    "mode_0",
    "scroll",
    "scroll_2",
    "scroll_3",
    "bottom",
    "top",
    "reverse",
    "positioned",
    "code",
    "other",
)


def parse(path: str, data: bytes) -> Iterator[RawEvent]:
    """Raw events of one video.

    Raises:
        MalformedFileError: not well-formed XML, or XML with entity tricks.
    """
    try:
        root = fromstring(data)
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
        raise MalformedFileError(f"{path}: not readable as XML: {error}") from error
    name = stem(path)
    for row, comment in enumerate(root.iter("d")):
        yield _raw_event(name, row, comment)


def _raw_event(name: str, row: int, comment: Element) -> RawEvent:
    attributes, text = comment.get("p", ""), comment.text or ""
    record = {"p": attributes, "text": text}
    fields = attributes.split(",")
    try:
        time, mode = float(fields[0]), int(fields[1])
    except (ValueError, IndexError) as error:
        return RawEvent(name, row, None, None, text, None, record, f"attribute p: {error}")
    return RawEvent(name, row, time, mode, text, None, record)


DANMAKU = SourceReader(suffixes=(".xml",), parse=parse, seconds_per_unit=1.0, type_names=MODES)
