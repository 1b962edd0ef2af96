"""What every source shares: the reader type, and turning raw records into a sequence."""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from mmtpp.core.events import MAX_TYPES, EventSequence, Rejected

_MAX_FLOAT32 = float(np.finfo(np.float32).max)


class MalformedFileError(ValueError):
    """A file that cannot be read as a sequence at all; the message says where and why."""


@dataclass(frozen=True, slots=True)
class RawEvent:
    """One record as a source found it, not yet checked.

    Attributes:
        row: position in the file, from 0.
        time: in the source's unit, whatever the file had.
        type: a code, a name, or whatever the file had.
        text: the text, whatever the file had.
        image: path relative to the source root, or None.
        record: the raw record, for the rejected table.
        problem: a reason found while parsing, or empty.
    """

    row: int
    time: object
    type: object
    text: object
    image: object
    record: object
    problem: str = ""


@dataclass(frozen=True, slots=True)
class ParsedFile:
    """What one file gave.

    Attributes:
        sequence: the kept events in order of time, None when none were kept.
        rejected: the others.
        num_read: events read, kept or rejected.
        num_reordered: events that stood before an earlier one in the file.
    """

    sequence: EventSequence | None
    rejected: list[Rejected]
    num_read: int
    num_reordered: int


@dataclass(frozen=True, slots=True)
class SourceReader:
    """A kind of source.

    Attributes:
        suffix: of its event files.
        parse: from the path and content of a file to its raw events.
        seconds_per_unit: of its times; None when the configuration says.
        type_names: names by code, when the source fixes them.
    """

    suffix: str
    parse: Callable[[str, bytes], Iterable[RawEvent]]
    seconds_per_unit: float | None = None
    type_names: tuple[str, ...] = field(default=())


def read_sequence(
    reader: SourceReader, path: str, data: bytes, *, type_names: Sequence[str]
) -> ParsedFile:
    """Parse and check one file.

    Args:
        reader: of the source's kind.
        path: relative to the source root; without its suffix it is the sequence id.
        data: content of the file.
        type_names: accepted names by code; empty when types are numbers.

    Returns:
        Kept events sorted by time (stable), and each bad record with its cause and position.

    Raises:
        MalformedFileError: the file as a whole cannot be read.
    """
    kept: list[tuple[float, int, str, str | None]] = []
    rejected: list[Rejected] = []
    num_read = 0
    codes = {name: code for code, name in enumerate(type_names)}
    for raw in reader.parse(path, data):
        num_read += 1
        checked = _check(raw, codes)
        if isinstance(checked, tuple) and len(checked) == 4:
            kept.append(checked)
        else:
            cause, detail = checked
            rejected.append(Rejected(path, raw.row, cause, detail, _shorten(raw.record)))
    times = np.array([event[0] for event in kept], dtype=np.float64)
    order = np.argsort(times, kind="stable")
    reordered = int((times < np.maximum.accumulate(times)).sum()) if kept else 0
    sequence = None
    if kept:
        ordered = [kept[index] for index in order]
        sequence = EventSequence(
            sequence_id=path.removesuffix(reader.suffix),
            times=times[order],
            types=np.array([event[1] for event in ordered], dtype=np.int16),
            texts=tuple(event[2] for event in ordered),
            images=tuple(event[3] for event in ordered),
        )
    return ParsedFile(sequence, rejected, num_read, reordered)


def _check(
    raw: RawEvent, codes: dict[str, int]
) -> tuple[float, int, str, str | None] | tuple[str, str]:
    if raw.problem:
        return "malformed_record", raw.problem
    if isinstance(raw.time, bool) or not isinstance(raw.time, int | float):
        return "missing_time", f"time is {raw.time!r}"
    try:
        time = float(raw.time)
    except OverflowError:
        return "non_finite_time", "time is too large"
    if not math.isfinite(time):
        return "non_finite_time", f"time is {time}"
    if time < 0:
        return "negative_time", f"time is {time}"
    if time > _MAX_FLOAT32:
        return "non_finite_time", f"time {time} is too large for a float32 interval"
    code = codes.get(raw.type, -1) if isinstance(raw.type, str) else raw.type
    if isinstance(code, float) and code.is_integer():
        code = int(code)
    if isinstance(code, bool) or not isinstance(code, int):
        return "missing_type", f"type is {raw.type!r}"
    if not 0 <= code < (len(codes) or MAX_TYPES):
        return "unknown_type", f"type is {raw.type!r}; set source.types to the names in use"
    if not isinstance(raw.text, str):
        return "missing_text", f"text is {raw.text!r}"
    if raw.image is not None and not isinstance(raw.image, str):
        return "invalid_image_path", f"image path is {raw.image!r}"
    for cause, value in (("invalid_text", raw.text), ("invalid_image_path", raw.image or "")):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            return cause, str(error)
    return time, code, raw.text, raw.image or None


def _shorten(record: object) -> str:
    text = record if isinstance(record, str) else json.dumps(record, ensure_ascii=True, default=str)
    return text.encode("utf-8", "backslashreplace").decode()[:1000]
