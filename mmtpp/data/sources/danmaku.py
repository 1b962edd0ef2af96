"""Bilibili bullet comments: a file is the XML of a video, an element ``d`` is a comment.

A comment is ``<d p="time,mode,...">text</d>``. The time is the position in the video in seconds.
The type is the display mode (1 to 3 scrolling, 4 bottom, 5 top, 6 reverse, 7 positioned, 8 code,
9 other). Files are in the order of sending, so comments are sorted by time. The attribute ``p`` has
two forms:

    1.0  seconds, mode, size, colour, sent, pool, user, id
    2.0  id, 0, milliseconds, mode, size, colour, sent, 0, user    (of the PC client)

Files are read as video players read them. Characters that XML forbids are removed. If a comment
contains an unescaped ``&`` or ``<``, the file is read comment by comment. Other timed elements,
such as the gifts and paid messages of a live recording, are not comments; they are left out and
counted.
"""

import html
import logging
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple
from xml.etree.ElementTree import ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from mmtpp.data.sources.event_files import MalformedFileError, stem
from mmtpp.data.sources.reader import LeftOut, RawEvent, SourceReader, malformed_event

logger = logging.getLogger(__name__)

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
_TIME_ATTRIBUTES = ("ts", "p")  # an element with one of them is timed
_DECLARED = re.compile(rb"""\s*<\?xml[^>]*?encoding\s*=\s*["']([A-Za-z0-9._-]+)["']""")
_DECLARATION = re.compile(r"\s*<\?xml[^>]*\?>")
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_REFERENCE = re.compile(r"&#(?:x([0-9A-Fa-f]{1,8})|([0-9]{1,8}));")
_ESCAPED = re.compile(r"&(?:amp|lt|gt|quot|apos|#\d{1,8}|#x[0-9A-Fa-f]{1,8});")
_ELEMENT = re.compile(r"<(?P<tag>[A-Za-z_][\w.-]*)(?P<attributes>\s[^<>]*?)(?P<empty>/?)>")
_ATTRIBUTE = re.compile(r"""([A-Za-z_][\w.-]*)\s*=\s*(?:"([^"]*)"|'([^']*)')""")
_ID_DIGITS = 9  # a number with more digits is an id, not a position in a video


class _Comment(NamedTuple):
    """A timed element of a file; the text is None if its end tag is missing."""

    tag: str
    attributes: str
    text: str | None


def parse(path: str, data: bytes) -> Iterator[RawEvent | LeftOut]:
    """Parse the raw events of one video.

    Raises:
        MalformedFileError: The file has no comments and is not well-formed XML, has an unknown
            encoding, or declares entities.
    """
    text, is_damaged = _decode(path, data)
    text = _FORBIDDEN.sub("", _DECLARATION.sub("", text, count=1))
    text = _REFERENCE.sub(_allowed_reference, text)
    try:
        comments = [
            _Comment(element.tag, element.get("p", ""), element.text or "")
            for element in fromstring(text).iter()
            if element.tag == "d" or any(name in element.attrib for name in _TIME_ATTRIBUTES)
        ]
    except (DefusedXmlException, ValueError, LookupError) as error:
        raise MalformedFileError(f"{path}: not readable as XML: {error}") from error
    except ParseError as error:
        comments = list(_parse_damaged_xml(text))
        if "<!DOCTYPE" in text or "<!ENTITY" in text or not comments:
            raise MalformedFileError(f"{path}: not readable as XML: {error}") from error
    sequence = stem(path)
    fields = [comment.attributes.split(",") for comment in comments if comment.tag == "d"]
    is_second_form = 2 * sum(map(_is_second_form, fields)) > len(fields)
    parse_fields = _parse_second_form if is_second_form else _parse_first_form
    row = -1
    for comment in comments:
        if comment.tag != "d":
            yield LeftOut(comment.tag)
            continue
        row += 1
        if is_damaged and "\ufffd" in (comment.text or ""):
            problem = "the comment contains bytes that are invalid in the file's encoding"
            yield malformed_event(sequence, row, comment._asdict(), problem)
        else:
            yield _raw_event(sequence, row, comment, parse_fields)


def _decode(path: str, data: bytes) -> tuple[str, bool]:
    """Decode a file by its byte order mark, by its XML declaration, or as UTF-8.

    If most non-ASCII characters are invalid in this encoding, and the file is valid GB 18030, it is
    decoded as GB 18030. Otherwise an invalid byte becomes U+FFFD.

    Returns:
        The text, and whether a byte was invalid.

    Raises:
        MalformedFileError: The encoding is unknown.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    else:
        declared = _DECLARED.match(data)
        encoding = declared[1].decode() if declared else "utf-8"
        if encoding.lower().replace("-", "") == "utf8":
            encoding = "utf-8-sig"
        elif encoding.lower() in ("gbk", "gb2312"):
            encoding = "gb18030"  # a superset of both
    try:
        return data.decode(encoding), False
    except LookupError as error:
        raise MalformedFileError(f"{path}: not readable as XML: {error}") from error
    except UnicodeDecodeError:
        text = data.decode(encoding, "replace")
    broken = text.count("\ufffd")
    good = sum(character > "\x7f" for character in text) - broken
    if broken > good:
        try:
            text = data.decode("gb18030")
        except UnicodeDecodeError:
            pass  # not GB 18030 either: comments with invalid bytes are rejected
        else:
            logger.warning("%s: not %s; the file is read as GB 18030", path, encoding)
            return text, False
    return text, True


def _allowed_reference(reference: re.Match[str]) -> str:
    """A character reference; empty if XML forbids the character."""
    code = int(reference[1], 16) if reference[1] else int(reference[2])
    if code > 0x10FFFF or _FORBIDDEN.match(chr(code)):
        return ""
    return reference[0]


def _parse_damaged_xml(text: str) -> Iterator[_Comment]:
    """The timed elements of a file that is not well-formed XML."""
    matches = [match for match in _ELEMENT.finditer(text) if _time_attribute(match)]
    for place, match in enumerate(matches):
        end = matches[place + 1].start() if place + 1 < len(matches) else len(text)
        content: str | None = ""
        if not match["empty"]:
            close = text.find(f"</{match['tag']}>", match.end(), end)
            content = None if close < 0 else _unescape(text[match.end() : close])
        yield _Comment(match["tag"], _unescape(_time_attribute(match)), content)


def _time_attribute(element: re.Match[str]) -> str:
    """Value of the element's time attribute; empty if there is none."""
    values = {
        attribute[1]: attribute[2] or attribute[3] or ""
        for attribute in _ATTRIBUTE.finditer(element["attributes"])
    }
    names = ("p",) if element["tag"] == "d" else _TIME_ATTRIBUTES
    return next((values[name] for name in names if name in values), "")


def _unescape(text: str) -> str:
    """Replace the references that XML defines; keep any other ampersand."""
    return _ESCAPED.sub(lambda match: html.unescape(match[0]), text)


def _is_second_form(fields: list[str]) -> bool:
    return (
        len(fields) >= 5
        and fields[0].isdecimal()
        and len(fields[0]) > _ID_DIGITS
        and fields[2].isdecimal()
        and fields[3].isdecimal()
        and int(fields[3]) < len(MODES)
    )


def _parse_second_form(fields: list[str]) -> tuple[float, int]:
    if not _is_second_form(fields):
        raise ValueError("not id, pool, milliseconds, mode, unlike the other comments of this file")
    return int(fields[2]) / 1000, int(fields[3])


def _parse_first_form(fields: list[str]) -> tuple[float, int]:
    if fields[0].isdecimal() and len(fields[0]) > _ID_DIGITS:
        raise ValueError(f"{fields[0]} is an id, not a time; the form of the file is unknown")
    return float(fields[0]), int(fields[1])


def _raw_event(
    sequence: str,
    row: int,
    comment: _Comment,
    parse_fields: Callable[[list[str]], tuple[float, int]],
) -> RawEvent:
    record, text = comment._asdict(), comment.text
    if text is None:
        return malformed_event(sequence, row, record, "the end tag of the comment is missing")
    try:
        time, mode = parse_fields(comment.attributes.split(","))
    except (ValueError, IndexError) as error:
        return malformed_event(sequence, row, record, f"attribute p: {error}")
    return RawEvent(sequence, row, time, mode, text, image=None, record=record)


def count_comments(path: str, data: bytes) -> int | None:
    """Estimate the number of comments in an unreadable file; None if it cannot be known."""
    del path
    return len(re.findall(rb"<\x00?d\x00?[\s>]", data)) or None


DANMAKU = SourceReader(
    suffixes=(".xml",), parse=parse, seconds_per_unit=1.0, type_names=MODES, count=count_comments
)
