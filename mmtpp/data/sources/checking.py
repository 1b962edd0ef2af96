"""Reading one event file: raw records to checked sequences, and each bad record with its cause.

A file is read one record after the other, so that each bad one is found and named. A source may
also offer its files as columns: those without any fault, nearly all, are then checked column by
column, some ten times faster, with the same result.
"""

import gc
import json
import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.events import EventSequence, Rejected, intervals_from_times
from mmtpp.core.split import split_from_value
from mmtpp.core.timecode import MAX_INTERVAL
from mmtpp.data.sources.reader import (
    LeftOut,
    ParsedFile,
    RawColumns,
    RawEvent,
    RawItem,
    RawQuestion,
    ReadCounts,
    SourceReader,
)
from mmtpp.data.sources.tables import MalformedFileError, unpacked
from mmtpp.data.sources.times import Unread, look_like_dates
from mmtpp.data.sources.types import OTHER, Refused, TypeCodes

logger = logging.getLogger(__name__)

# Declared intervals are often rounded; a larger difference than this to the recomputed one counts.
INTERVAL_RTOL, INTERVAL_ATOL = 1e-3, 1e-3
MAX_TIME = MAX_INTERVAL / 2  # so that the interval between any two times has a code


class _Checked(NamedTuple):
    """A record that is an event."""

    time: float
    code: int  # -1 for a rare type
    text: str
    image: str | None
    interval: object


def read_file(reader: SourceReader, path: str, data: bytes, *, types: TypeCodes) -> ParsedFile:
    """Parse and check one file.

    Args:
        reader: Of the source's kind.
        path: Relative to the source root.
        data: Content of the file.
        types: Codes of its types.

    Returns:
        Kept events sorted by time (stable), and each bad record with its cause and position.

    Raises:
        MalformedFileError: The file as a whole cannot be read; it says how many events are lost,
            where that is known.
    """
    data = unpacked(path, data)
    if not data:
        raise MalformedFileError(f"{path}: the file is empty", num_events=0)
    try:
        with _no_garbage_collection():
            columns = reader.columns(path, data) if reader.columns else None
            parsed = _without_fault(columns, types) if columns else None
            return parsed or _one_by_one(reader, path, data, types)
    except MalformedFileError as error:
        if error.num_events is None and reader.count is not None:
            raise MalformedFileError(str(error), num_events=reader.count(path, data)) from error
        raise


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Records have no cycles, and searching them while they grow doubles the time of parsing."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def warn_of_dates(parsed: ParsedFile, path: str, *, seconds_per_unit: float) -> None:
    """Log a warning where the times of a file, read as numbers, look like dates."""
    for sequence in parsed.sequences[:1]:
        problem = ""
        if not parsed.counts.num_dated:
            problem = look_like_dates(sequence.times.tolist(), seconds_per_unit=seconds_per_unit)
        if problem:
            logger.warning(
                "%s: times look like dates written as numbers, such as %.0f; they are read as "
                "numbers in units of %g s (source.seconds_per_unit); source.kind = columns reads "
                "dates",
                path,
                sequence.times[0],
                seconds_per_unit,
            )


def raw_items(reader: SourceReader, path: str, data: bytes) -> Iterable[RawItem]:
    """The records of one file before they are checked.

    Raises:
        MalformedFileError: The file as a whole cannot be read.
    """
    return reader.parse(path, unpacked(path, data))


def _one_by_one(reader: SourceReader, path: str, data: bytes, types: TypeCodes) -> ParsedFile:
    kept: dict[tuple[str, str], list[_Checked]] = {}
    questions: dict[str, list[tuple[str, str]]] = {}
    rejected: list[Rejected] = []
    left_out: Counter[str] = Counter()
    last_kept: dict[str, int] = {}  # of each sequence, counted in the order of the file
    place_of: list[int] = []
    num_read = num_dated = 0
    for raw in reader.parse(path, data):
        if isinstance(raw, RawQuestion):
            questions.setdefault(raw.sequence, []).append((raw.question, raw.answer))
            continue
        if isinstance(raw, LeftOut):
            left_out[raw.kind] += 1
            continue
        num_read += 1
        checked = _check(raw, types)
        if isinstance(checked, Refused):
            cause, detail = checked
            place_of.append(num_read)
            rejected.append(
                Rejected(
                    path,
                    raw.row,
                    cause,
                    detail[:1000],
                    _shorten(raw.record),
                    _printable(raw.sequence),
                    None if raw.problem else _finite(raw.time),
                )
            )
        else:
            num_dated += raw.is_dated
            last_kept[raw.sequence] = num_read
            kept.setdefault((raw.sequence, split_from_value(raw.part)), []).append(checked)
    rejected = [
        replace(record, is_last=place > last_kept.get(record.sequence_id, 0))
        for record, place in zip(rejected, place_of, strict=True)
    ]
    counts = ReadCounts(num_read, left_out=dict(left_out), num_dated=num_dated)
    sequences = []
    for (name, _), events in kept.items():
        sequence, of_sequence = _ordered(name, events, types, tuple(questions.get(name, ())))
        sequences.append(sequence)
        counts += of_sequence
    return ParsedFile(sequences, rejected, counts, tuple(part for _, part in kept))


def _ordered(
    name: str,
    events: list[_Checked],
    types: TypeCodes,
    questions: tuple[tuple[str, str], ...],
) -> tuple[EventSequence, ReadCounts]:
    """A sequence of checked events in order of time."""
    times = np.array([event.time for event in events], dtype=np.float64)
    num_reordered = int((times < np.maximum.accumulate(times)).sum())
    order = np.argsort(times, kind="stable")
    ordered = [events[index] for index in order]
    codes = np.array([event.code for event in ordered], dtype=np.int16)
    is_rare = codes < 0
    if is_rare.any():
        codes[is_rare] = types.codes[OTHER]
    sequence = EventSequence(
        sequence_id=name,
        times=times[order],
        types=codes,
        texts=tuple(event.text for event in ordered),
        images=tuple(event.image for event in ordered),
        questions=questions,
    )
    num_disagreeing = _disagreeing(times[order], [event.interval for event in ordered])
    return sequence, ReadCounts(0, num_reordered, num_disagreeing, int(is_rare.sum()))


_NUMBERS, _PATHS = frozenset({int, float}), frozenset({str, type(None)})


def _without_fault(columns: RawColumns, codes: TypeCodes) -> ParsedFile | None:
    """The sequence of a file in which every record is good; None when one is not."""
    if not columns.times or not (
        _NUMBERS.issuperset(map(type, columns.times))
        and {str}.issuperset(map(type, columns.texts))
        and _PATHS.issuperset(map(type, columns.images))
        and _NUMBERS.issuperset(map(type, columns.intervals))
    ):
        return None
    kinds = set(map(type, columns.types))
    if kinds == {str} and codes.names:
        types = np.array([codes.codes.get(name, -1) for name in columns.types])
    elif kinds == {int} and not codes.are_numbers:
        types = np.array(columns.types)
    else:
        return None
    times = np.array(columns.times, dtype=np.float64)
    if not (
        0 <= types.min() <= types.max() < codes.count
        and np.isfinite(times).all()
        and np.abs(times).max() <= MAX_TIME
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
    return ParsedFile([sequence], [], ReadCounts(len(times), num_reordered, num_disagreeing))


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


def _check(raw: RawEvent, types: TypeCodes) -> _Checked | Refused:
    if raw.problem:
        return Refused("malformed_record", raw.problem)
    time = raw.time
    if type(time) is not float or not -MAX_TIME <= time <= MAX_TIME:
        time = _checked_time(time)
        if isinstance(time, Refused):
            return time
    code = types.code(raw.type)
    if isinstance(code, Refused):
        return code
    if raw.part is not None and not split_from_value(raw.part):
        return Refused(
            "unknown_split",
            f"split is {raw.part!r}; train, validation, dev, test are known",
        )
    if not isinstance(raw.text, str):
        return Refused("missing_text", f"text is {raw.text!r}")
    if raw.image is not None and not isinstance(raw.image, str):
        return Refused("invalid_image_path", f"image path is {raw.image!r}")
    for cause, value in (
        ("invalid_text", raw.text),
        ("invalid_image_path", raw.image or ""),
        ("invalid_sequence_id", raw.sequence),
    ):
        if value.isascii():
            continue
        try:
            value.encode()
        except UnicodeEncodeError as error:
            return Refused(cause, f"{error}; another encoding may be meant (source.csv.encoding)")
    return _Checked(time, code, raw.text, raw.image or None, raw.interval)


def _checked_time(value: object) -> float | Refused:
    if isinstance(value, Unread):
        return Refused(value.cause, value.detail)
    if value is None or value == "":
        return Refused("missing_time", f"time is {value!r}")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Refused("unreadable_time", f"time is {value!r}, not a number"[:200])
    try:
        time = float(value)
    except OverflowError:
        return Refused("non_finite_time", "time is too large")
    if not math.isfinite(time):
        return Refused("non_finite_time", f"time is {time}")
    if abs(time) > MAX_TIME:
        return Refused("non_finite_time", f"time {time} is too large for a float32 interval")
    return time


def _finite(value: object) -> float | None:
    """A number that float64 holds; None where there is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _printable(name: str) -> str:
    """The name of a sequence, which may hold what UTF-8 cannot."""
    return name.encode("utf-8", "backslashreplace").decode()


def _shorten(record: object) -> str:
    text = record if isinstance(record, str) else json.dumps(record, ensure_ascii=True, default=str)
    return text.encode("utf-8", "backslashreplace").decode()[:1000]
