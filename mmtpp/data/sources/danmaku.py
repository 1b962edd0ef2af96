"""Bilibili bullet comments: one XML file a video, ``<d p="time,mode,...">text</d>`` a comment.

The time is the position in the video in seconds; the type is the display mode (1 to 3 scrolling,
4 bottom, 5 top, 6 reverse, 7 positioned, 8 code, 9 other). Files come in order of sending, so
comments are sorted by time. Two forms of ``p`` are read:

    1.0  seconds, mode, size, colour, sent, pool, user, id
    2.0  id, 0, milliseconds, mode, size, colour, sent, 0, user    (the PC client's)

Files are read as players read them: characters that XML forbids are taken out, and where a comment
holds an unescaped ``&`` or ``<``, the file is read comment by comment. Other timed elements, such
as the gifts and paid messages of a live recording, are no comments: they are left out and counted.
"""

import html
import logging
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from mmtpp.data.sources.reader import LeftOut, RawEvent, SourceReader, stem
from mmtpp.data.sources.tables import MalformedFileError

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
_TIMED = ("ts", "p")  # attributes of elements that stand for something that happened
_DECLARED = re.compile(rb"""\s*<\?xml[^>]*?encoding\s*=\s*["']([A-Za-z0-9._-]+)["']""")
_DECLARATION = re.compile(r"\s*<\?xml[^>]*\?>")
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_REFERENCE = re.compile(r"&#(?:x([0-9A-Fa-f]{1,8})|([0-9]{1,8}));")
_ESCAPED = re.compile(r"&(?:amp|lt|gt|quot|apos|#\d{1,8}|#x[0-9A-Fa-f]{1,8});")
_ELEMENT = re.compile(r"<(?P<tag>[A-Za-z_][\w.-]*)(?P<attributes>\s[^<>]*?)(?P<empty>/?)>")
_ATTRIBUTE = re.compile(r"""([A-Za-z_][\w.-]*)\s*=\s*(?:"([^"]*)"|'([^']*)')""")
_ID_DIGITS = 9  # a number of seconds with more digits is no position in a video


class _Comment(NamedTuple):
    """A timed element of a file; text None where its end is missing."""

    tag: str
    attributes: str
    text: str | None


def parse(path: str, data: bytes) -> Iterator[RawEvent | LeftOut]:
    """Raw events of one video.

    Raises:
        MalformedFileError: No comments and not well-formed XML, an unknown encoding, or XML with
            entity tricks.
    """
    text, is_damaged = _decoded(path, data)
    text = _FORBIDDEN.sub("", _DECLARATION.sub("", text, count=1))
    text = _REFERENCE.sub(_allowed, text)
    try:
        comments = [
            _Comment(each.tag, each.get("p", ""), _text_of(each))
            for each in fromstring(text).iter()
            if each.tag == "d" or any(name in each.attrib for name in _TIMED)
        ]
    except (DefusedXmlException, ValueError, LookupError) as error:
        raise MalformedFileError(f"{path}: not readable as XML: {error}") from error
    except ParseError as error:
        comments = list(_one_by_one(text))
        if "<!DOCTYPE" in text or "<!ENTITY" in text or not comments:
            raise MalformedFileError(f"{path}: not readable as XML: {error}") from error
    name = stem(path)
    fields = [each.attributes.split(",") for each in comments if each.tag == "d"]
    read = _second_form if 2 * sum(map(_is_second_form, fields)) > len(fields) else _first_form
    row = -1
    for each in comments:
        if each.tag != "d":
            yield LeftOut(each.tag)
            continue
        row += 1
        if is_damaged and "\ufffd" in (each.text or ""):
            problem = "the comment holds bytes that are not of the file's encoding"
            yield RawEvent(name, row, None, None, None, None, each._asdict(), problem)
        else:
            yield _raw_event(name, row, each, read)


def _decoded(path: str, data: bytes) -> tuple[str, bool]:
    """The text of a file: by its byte order mark, its declaration, or as UTF-8.

    Where most characters beyond ASCII are not valid in that encoding, and the file is valid
    GB 18030, it is that. Otherwise an invalid byte becomes U+FFFD.

    Returns:
        The text, and whether a byte was invalid.

    Raises:
        MalformedFileError: An encoding that is not known.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    else:
        declared = _DECLARED.match(data)
        encoding = declared[1].decode() if declared else "utf-8"
        if encoding.lower().replace("-", "") == "utf8":
            encoding = "utf-8-sig"
        elif encoding.lower() in ("gbk", "gb2312"):
            encoding = "gb18030"  # which has them whole
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
            pass  # neither: the comments with invalid bytes are refused
        else:
            logger.warning("%s: not %s; it is read as GB 18030", path, encoding)
            return text, False
    return text, True


def _allowed(reference: re.Match[str]) -> str:
    """A reference to a character, empty where XML forbids the character."""
    code = int(reference[1], 16) if reference[1] else int(reference[2])
    if code > 0x10FFFF or _FORBIDDEN.match(chr(code)):
        return ""
    return reference[0]


def _text_of(element: Element) -> str:
    return element.text or ""


def _one_by_one(text: str) -> Iterator[_Comment]:
    """The timed elements of a file that is not well-formed."""
    found = [match for match in _ELEMENT.finditer(text) if _timed(match)]
    for place, match in enumerate(found):
        end = found[place + 1].start() if place + 1 < len(found) else len(text)
        content: str | None = ""
        if not match["empty"]:
            close = text.find(f"</{match['tag']}>", match.end(), end)
            content = None if close < 0 else _unescaped(text[match.end() : close])
        yield _Comment(match["tag"], _unescaped(_timed(match)), content)


def _timed(match: re.Match[str]) -> str:
    """The attribute that says when; empty where there is none."""
    found = {each[1]: each[2] or each[3] or "" for each in _ATTRIBUTE.finditer(match["attributes"])}
    names = ("p",) if match["tag"] == "d" else _TIMED
    return next((found[name] for name in names if name in found), "")


def _unescaped(text: str) -> str:
    """Text with the references that XML knows; any other ampersand stands for itself."""
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


def _second_form(fields: list[str]) -> tuple[float, int]:
    if not _is_second_form(fields):
        raise ValueError("not id, pool, milliseconds, mode as the other comments of this file")
    return int(fields[2]) / 1000, int(fields[3])


def _first_form(fields: list[str]) -> tuple[float, int]:
    if fields[0].isdecimal() and len(fields[0]) > _ID_DIGITS:
        raise ValueError(f"{fields[0]} is an id, not a time; the form of the file is not known")
    return float(fields[0]), int(fields[1])


def _raw_event(
    name: str, row: int, comment: _Comment, read: Callable[[list[str]], tuple[float, int]]
) -> RawEvent:
    record, text = comment._asdict(), comment.text
    if text is None:
        problem = "the comment has no end"
        return RawEvent(name, row, None, None, text, None, record, problem)
    try:
        time, mode = read(comment.attributes.split(","))
    except (ValueError, IndexError) as error:
        return RawEvent(name, row, None, None, text, None, record, f"attribute p: {error}")
    return RawEvent(name, row, time, mode, text, None, record)


def count(path: str, data: bytes) -> int | None:
    """Number of comments a file seems to hold that cannot be read."""
    del path
    return len(re.findall(rb"<\x00?d\x00?[\s>]", data)) or None


DANMAKU = SourceReader(
    suffixes=(".xml",), parse=parse, seconds_per_unit=1.0, type_names=MODES, count=count
)
