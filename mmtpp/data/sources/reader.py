"""What every source shares: the reader type, and turning raw records into sequences.

A file is read one record after the other, so that each bad one is found and named. A source may
also offer its files as columns: those without any fault, nearly all, are then checked column by
column, some ten times faster, with the same result.
"""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.events import MAX_TYPES, EventSequence, Rejected, intervals_from_times
from mmtpp.core.split import part_of_value
from mmtpp.core.timecode import MAX_INTERVAL

# Declared intervals are often rounded; a larger difference than this to the recomputed one counts.
INTERVAL_RTOL, INTERVAL_ATOL = 1e-3, 1e-3


class MalformedFileError(ValueError):
    """A file that cannot be read as events at all; the message says where and why."""


@dataclass(frozen=True, slots=True)
class RawEvent:
    """One record as a source found it, not yet checked.

    Attributes:
        sequence: id of the sequence it belongs to.
        row: position in the file, from 0.
        time: in the source's unit, whatever the file had.
        type: a code, a name, or whatever the file had.
        text: the text, whatever the file had.
        image: path relative to the source root, or None.
        record: the raw record, for the rejected table.
        problem: a reason found while parsing, or empty.
        interval: the waiting time the file declares, None when it does not; only compared.
        part: name of the part the record is given for, whatever the file had; None when it does
            not say. Records of one id and several parts are several sequences.
    """

    sequence: str
    row: int
    time: object
    type: object
    text: object
    image: object
    record: object
    problem: str = ""
    interval: object = None
    part: object = None


@dataclass(frozen=True, slots=True)
class RawQuestion:
    """A question about a sequence, and its answer."""

    sequence: str
    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class RawColumns:
    """The records of a file that is one sequence, as columns, not yet checked; E values each."""

    sequence: str
    times: list
    types: list
    texts: list
    images: list
    intervals: list


@dataclass(frozen=True, slots=True)
class ParsedFile:
    """What one file gave.

    Attributes:
        sequences: the kept events in order of time, a sequence each, in order of appearance.
        rejected: the others.
        num_read: events read, kept or rejected.
        num_reordered: events that stood before an earlier one in the file.
        num_disagreeing: kept events whose declared interval is not the one between their times.
        parts: train, validation or test for each sequence, as the records say; empty where they do
            not.
    """

    sequences: list[EventSequence]
    rejected: list[Rejected]
    num_read: int
    num_reordered: int
    num_disagreeing: int
    parts: tuple[str, ...] = ()

    def part_of_each(self) -> list[str]:
        """The part of each sequence, empty where the records do not say."""
        return list(self.parts) if self.parts else [""] * len(self.sequences)


@dataclass(frozen=True, slots=True)
class SourceReader:
    """A kind of source.

    Attributes:
        suffixes: of its event files.
        parse: from the path and content of a file to its raw events and questions.
        seconds_per_unit: of its times; None when the configuration says.
        type_names: names by code, when the source fixes them.
        columns: from the path and content of a file to its columns; None where a record is not as
            expected, or the file has questions.
        split_by: of a sequence, what keeps it on one side of the split; its id when None.
    """

    suffixes: tuple[str, ...]
    parse: Callable[[str, bytes], Iterable[RawEvent | RawQuestion]]
    seconds_per_unit: float | None = None
    type_names: tuple[str, ...] = field(default=())
    columns: Callable[[str, bytes], RawColumns | None] | None = None
    split_by: Callable[[EventSequence], str] | None = None


_Checked = tuple[float, int, str, str | None, object]


def stem(path: str) -> str:
    """The path without its suffix, ``.gz`` included: the id of a file's only sequence."""
    folder, slash, name = path.rpartition("/")
    name = name.removesuffix(".gz")
    return f"{folder}{slash}{name.rpartition('.')[0] or name}"


def read_file(
    reader: SourceReader, path: str, data: bytes, *, type_names: Sequence[str]
) -> ParsedFile:
    """Parse and check one file.

    Args:
        reader: of the source's kind.
        path: relative to the source root.
        data: content of the file.
        type_names: accepted names by code; empty when types are numbers.

    Returns:
        Kept events sorted by time (stable), and each bad record with its cause and position.

    Raises:
        MalformedFileError: the file as a whole cannot be read.
    """
    codes = {name: code for code, name in enumerate(type_names)}
    columns = reader.columns(path, data) if reader.columns else None
    parsed = _without_fault(columns, codes) if columns else None
    return parsed or _one_by_one(reader, path, data, codes)


def _one_by_one(reader: SourceReader, path: str, data: bytes, codes: dict[str, int]) -> ParsedFile:
    kept: dict[tuple[str, str], list[_Checked]] = {}
    questions: dict[str, list[tuple[str, str]]] = {}
    rejected: list[Rejected] = []
    num_read = 0
    for raw in reader.parse(path, data):
        if isinstance(raw, RawQuestion):
            questions.setdefault(raw.sequence, []).append((raw.question, raw.answer))
            continue
        num_read += 1
        checked = _check(raw, codes)
        if len(checked) == 2:
            cause, detail = checked
            rejected.append(Rejected(path, raw.row, cause, detail[:1000], _shorten(raw.record)))
        else:
            key = raw.sequence, part_of_value(raw.part)
            kept.setdefault(key, []).append(checked)
    sequences, num_reordered, num_disagreeing = [], 0, 0
    for (name, _), events in kept.items():
        times = np.array([event[0] for event in events], dtype=np.float64)
        num_reordered += int((times < np.maximum.accumulate(times)).sum())
        order = np.argsort(times, kind="stable")
        ordered = [events[index] for index in order]
        num_disagreeing += _disagreeing(times[order], [event[4] for event in ordered])
        sequences.append(
            EventSequence(
                sequence_id=name,
                times=times[order],
                types=np.array([event[1] for event in ordered], dtype=np.int16),
                texts=tuple(event[2] for event in ordered),
                images=tuple(event[3] for event in ordered),
                questions=tuple(questions.get(name, ())),
            )
        )
    parts = tuple(part for _, part in kept)
    return ParsedFile(sequences, rejected, num_read, num_reordered, num_disagreeing, parts)


_NUMBERS, _PATHS = frozenset({int, float}), frozenset({str, type(None)})


def _without_fault(columns: RawColumns, codes: dict[str, int]) -> ParsedFile | None:
    """The sequence of a file in which every record is good; None when one is not."""
    if not columns.times or not (
        _NUMBERS.issuperset(map(type, columns.times))
        and {str}.issuperset(map(type, columns.texts))
        and _PATHS.issuperset(map(type, columns.images))
        and _NUMBERS.issuperset(map(type, columns.intervals))
    ):
        return None
    kinds = set(map(type, columns.types))
    if kinds == {str} and codes:
        types = np.array([codes.get(name, -1) for name in columns.types])
    elif kinds == {int}:
        types = np.array(columns.types)
    else:
        return None
    times = np.array(columns.times, dtype=np.float64)
    if not (
        0 <= types.min() <= types.max() < (len(codes) or MAX_TYPES)
        and np.isfinite(times).all()
        and 0 <= times.min() <= times.max() <= MAX_INTERVAL
    ):
        return None
    texts, images, declared = columns.texts, columns.images, columns.intervals
    num_reordered = int((times < np.maximum.accumulate(times)).sum())
    if num_reordered:
        order = np.argsort(times, kind="stable")
        times, types = times[order], types[order]
        texts, images, declared = ([each[i] for i in order] for each in (texts, images, declared))
    found, waits = np.array(declared[1:], dtype=np.float64), intervals_from_times(times)[1:]
    with np.errstate(invalid="ignore"):  # infinity and NaN agree with nothing
        largest = np.maximum(np.abs(found), waits)
        agree = np.abs(found - waits) <= np.maximum(INTERVAL_RTOL * largest, INTERVAL_ATOL)
    sequence = EventSequence(
        columns.sequence,
        times,
        types.astype(np.int16),
        tuple(texts),
        tuple(image or None for image in images),
    )
    num_disagreeing = int((~(agree & np.isfinite(found))).sum())
    return ParsedFile([sequence], [], len(times), num_reordered, num_disagreeing)


def _disagreeing(times: NDArray[np.float64], declared: list[object]) -> int:
    """Events after the first whose declared interval is not the recomputed one."""
    waits = intervals_from_times(times)[1:].tolist()
    return sum(
        found is not None and not _agrees(found, expected)
        for found, expected in zip(declared[1:], waits, strict=True)
    )


def _agrees(found: object, expected: float) -> bool:
    if isinstance(found, bool) or not isinstance(found, int | float):
        return False
    try:
        return math.isclose(found, expected, rel_tol=INTERVAL_RTOL, abs_tol=INTERVAL_ATOL)
    except OverflowError:  # an integer beyond float
        return False


def _check(raw: RawEvent, codes: dict[str, int]) -> _Checked | tuple[str, str]:
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
    if time > MAX_INTERVAL:
        return "non_finite_time", f"time {time} is too large for a float32 interval"
    code = _type_of_name(raw.type, codes) if isinstance(raw.type, str) else raw.type
    if isinstance(code, float) and code.is_integer():
        code = int(code)
    if isinstance(code, bool) or not isinstance(code, int):
        return "missing_type", f"type is {raw.type!r}"
    if not 0 <= code < (len(codes) or MAX_TYPES):
        known = f"the names are {', '.join(codes)}" if codes else "codes are 0 to 255"
        return "unknown_type", f"type is {raw.type!r}; {known} (source.types)"
    if raw.part is not None and not part_of_value(raw.part):
        return "unknown_split", f"split is {raw.part!r}; train, validation, dev, test are known"
    if not isinstance(raw.text, str):
        return "missing_text", f"text is {raw.text!r}"
    if raw.image is not None and not isinstance(raw.image, str):
        return "invalid_image_path", f"image path is {raw.image!r}"
    for cause, value in (
        ("invalid_text", raw.text),
        ("invalid_image_path", raw.image or ""),
        ("invalid_sequence_id", raw.sequence),
    ):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            return cause, str(error)
    return time, code, raw.text, raw.image or None, raw.interval


def _type_of_name(name: str, codes: dict[str, int]) -> int:
    """Its code; without names a number in letters, as CSV has it; -1 when it is neither."""
    if codes:
        return codes.get(name, -1)
    digits = name.removesuffix(".0")
    return int(digits) if digits.isdecimal() and len(digits) < 10 else -1


def _shorten(record: object) -> str:
    text = record if isinstance(record, str) else json.dumps(record, ensure_ascii=True, default=str)
    return text.encode("utf-8", "backslashreplace").decode()[:1000]
