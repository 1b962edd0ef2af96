"""Read one event file: from raw records to checked sequences and rejected records.

A file is read record by record, so that each bad record is rejected with its cause. A source may
also offer its files as columns. Files without any bad record, nearly all files, are then checked
column by column (``check_columns``). This is several times faster and gives the same result.
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
from mmtpp.data.sources.check_columns import read_columns
from mmtpp.data.sources.date_like_numbers import describe_date_like_numbers
from mmtpp.data.sources.event_files import MalformedFileError, suffix_of, unpack
from mmtpp.data.sources.reader import (
    INTERVAL_ATOL,
    INTERVAL_RTOL,
    MAX_TIME,
    InvalidValue,
    LeftOut,
    ParsedFile,
    RawEvent,
    RawItem,
    RawQuestion,
    ReadCounts,
    SourceReader,
)
from mmtpp.data.sources.tables import CSV_SUFFIXES
from mmtpp.data.sources.type_codes import OTHER, RARE, TypeCodes

logger = logging.getLogger(__name__)


class _CheckedEvent(NamedTuple):
    """A record that is a valid event."""

    time: float
    code: int  # RARE for a rare type
    text: str
    image: str | None
    interval: object


def read_file(reader: SourceReader, path: str, data: bytes, *, types: TypeCodes) -> ParsedFile:
    """Parse and check one file.

    Args:
        reader: Reader of the source's kind.
        path: Path relative to the source root.
        data: Content of the file.
        types: Codes of the event types.

    Returns:
        Kept events sorted by time (stable), and each bad record with its cause and position.

    Raises:
        MalformedFileError: The file as a whole cannot be read. The error has the number of lost
            events, where it is known.
    """
    data = unpack(path, data)
    if not data:
        raise MalformedFileError(f"{path}: the file is empty", num_events=0)
    try:
        with _no_garbage_collection():
            columns = reader.columns(path, data) if reader.columns else None
            parsed = read_columns(columns, types) if columns else None
            return parsed or _read_records(reader, path, data, types)
    except MalformedFileError as error:
        if error.num_events is None and reader.count is not None:
            raise MalformedFileError(str(error), num_events=reader.count(path, data)) from error
        raise


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Records have no reference cycles; searching for cycles doubles the time of parsing."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def warn_of_dates(parsed: ParsedFile, path: str, *, seconds_per_unit: float) -> None:
    """Log a warning if the times of a file, which are read as numbers, look like dates.

    Args:
        parsed: Content of the file.
        path: Path of the file, for the message.
        seconds_per_unit: Seconds in one unit of the times.
    """
    for sequence in parsed.sequences[:1]:
        problem = ""
        if not parsed.counts.num_dated:
            problem = describe_date_like_numbers(
                sequence.times.tolist(), seconds_per_unit=seconds_per_unit
            )
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
    """The records of one file, before they are checked.

    Args:
        reader: Reader of the source's kind.
        path: Path relative to the source root.
        data: Content of the file.

    Raises:
        MalformedFileError: The file as a whole cannot be read.
    """
    return reader.parse(path, unpack(path, data))


def _read_records(reader: SourceReader, path: str, data: bytes, types: TypeCodes) -> ParsedFile:
    """Read a file record by record."""
    kept: dict[tuple[str, str], list[_CheckedEvent]] = {}  # by sequence id and split
    questions: dict[str, list[tuple[str, str]]] = {}
    rejected: list[Rejected] = []
    left_out: Counter[str] = Counter()
    last_kept: dict[str, int] = {}  # position in the file of each sequence's last kept event
    rejected_places: list[int] = []
    num_read = num_dated = 0
    encoding_advice = _encoding_advice(reader, path)
    for raw in reader.parse(path, data):
        if isinstance(raw, RawQuestion):
            questions.setdefault(raw.sequence, []).append((raw.question, raw.answer))
            continue
        if isinstance(raw, LeftOut):
            left_out[raw.kind] += 1
            continue
        num_read += 1
        checked = _check(raw, types, encoding_advice)
        if isinstance(checked, InvalidValue):
            rejected_places.append(num_read)
            rejected.append(_rejected_record(path, raw, checked))
        else:
            num_dated += raw.is_dated
            last_kept[raw.sequence] = num_read
            kept.setdefault((raw.sequence, split_from_value(raw.split)), []).append(checked)
    rejected = [
        replace(record, is_last=place > last_kept.get(record.sequence_id, 0))
        for record, place in zip(rejected, rejected_places, strict=True)
    ]
    counts = ReadCounts(num_read, left_out=dict(left_out), num_dated=num_dated)
    sequences = []
    for (sequence_id, _), events in kept.items():
        asked = tuple(questions.get(sequence_id, ()))
        sequence, sequence_counts = _sort_events(sequence_id, events, types, asked)
        sequences.append(sequence)
        counts += sequence_counts
    return ParsedFile(sequences, rejected, counts, tuple(split for _, split in kept))


def _rejected_record(path: str, raw: RawEvent, reason: InvalidValue) -> Rejected:
    detail = f"line {raw.line}: {reason.detail}" if raw.line else reason.detail
    return Rejected(
        path=path,
        row=raw.row,
        cause=reason.cause,
        detail=detail[:1000],
        record=_shorten(raw.record),
        sequence_id=_printable(raw.sequence),
        time=None if raw.problem else _finite(raw.time),
    )


def _sort_events(
    sequence_id: str,
    events: list[_CheckedEvent],
    types: TypeCodes,
    questions: tuple[tuple[str, str], ...],
) -> tuple[EventSequence, ReadCounts]:
    """Build a sequence of checked events in order of time."""
    times = np.array([event.time for event in events], dtype=np.float64)
    num_reordered = int((times < np.maximum.accumulate(times)).sum())
    order = np.argsort(times, kind="stable")
    ordered = [events[index] for index in order]
    codes = np.array([event.code for event in ordered], dtype=np.int16)
    is_rare = codes == RARE
    if is_rare.any():
        codes[is_rare] = types.codes[OTHER]
    sequence = EventSequence(
        sequence_id=sequence_id,
        times=times[order],
        types=codes,
        texts=tuple(event.text for event in ordered),
        images=tuple(event.image for event in ordered),
        questions=questions,
    )
    num_disagreeing = _count_disagreeing(times[order], [event.interval for event in ordered])
    return sequence, ReadCounts(0, num_reordered, num_disagreeing, int(is_rare.sum()))


def _count_disagreeing(times: NDArray[np.float64], declared: list[object]) -> int:
    """Number of events after the first whose declared interval is not the recomputed one."""
    intervals = intervals_from_times(times)[1:].tolist()
    return sum(
        interval is not None and not _agree(interval, recomputed)
        for interval, recomputed in zip(declared[1:], intervals, strict=True)
    )


def _agree(declared: object, recomputed: float) -> bool:
    if isinstance(declared, bool) or not isinstance(declared, int | float):
        return False
    try:
        return math.isclose(declared, recomputed, rel_tol=INTERVAL_RTOL, abs_tol=INTERVAL_ATOL)
    except OverflowError:  # an integer beyond float
        return False


def _encoding_advice(reader: SourceReader, path: str) -> str:
    """Instruction for a file that has another encoding than its reader expects."""
    if suffix_of(path) in CSV_SUFFIXES:
        return f"set source.csv.encoding, now {reader.csv_encoding}, to the encoding of the file"
    return "convert the file to UTF-8"


def _check(raw: RawEvent, types: TypeCodes, encoding_advice: str) -> _CheckedEvent | InvalidValue:
    """Check a record.

    A new rule also needs a condition in ``check_columns.read_columns``, which must return None for
    a file with such a record; ``tests/unit/data/sources/test_check_columns.py`` compares the two.

    Args:
        raw: The record.
        types: Codes of the event types.
        encoding_advice: Instruction for texts with invalid bytes.
    """
    if raw.problem:
        return InvalidValue("malformed_record", raw.problem)
    time = raw.time
    if type(time) is not float or not -MAX_TIME <= time <= MAX_TIME:
        time = _checked_time(time)
        if isinstance(time, InvalidValue):
            return time
    code = types.code(raw.type)
    if isinstance(code, InvalidValue):
        return code
    if raw.split is not None and not split_from_value(raw.split):
        return InvalidValue(
            "unknown_split",
            f"split is {raw.split!r}; known are train, validation, dev and test",
        )
    if raw.text is None or raw.text != raw.text:
        return InvalidValue("missing_text", f"text is {raw.text!r}")
    if not isinstance(raw.text, str):
        kind = type(raw.text).__name__
        return InvalidValue("invalid_text", f"text is of the type {kind}: {raw.text!r}"[:200])
    if raw.image is not None and not isinstance(raw.image, str):
        return InvalidValue("invalid_image_path", f"image path is {raw.image!r}")
    for cause, name, value in (
        ("invalid_text", "text", raw.text),
        ("invalid_image_path", "image path", raw.image or ""),
        ("invalid_sequence_id", "sequence id", raw.sequence),
    ):
        if value.isascii():
            continue
        try:
            value.encode()
        except UnicodeEncodeError as error:
            character = _describe_surrogate(value[error.start])
            return InvalidValue(cause, f"{name} has {character}; {encoding_advice}")
    return _CheckedEvent(time, code, raw.text, raw.image or None, raw.interval)


def _describe_surrogate(character: str) -> str:
    """Describe a character that UTF-8 cannot encode; ``surrogateescape`` stands for a byte."""
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"the byte 0x{code - 0xDC00:02X}, which is invalid in the encoding of the file"
    return f"half of a surrogate pair, U+{code:04X}"


def _checked_time(value: object) -> float | InvalidValue:
    if isinstance(value, InvalidValue):
        return value
    if value is None or value == "":
        return InvalidValue("missing_time", f"time is {value!r}")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return InvalidValue("unreadable_time", f"time is {value!r}, not a number"[:200])
    try:
        time = float(value)
    except OverflowError:
        return InvalidValue("non_finite_time", "time is too large")
    if not math.isfinite(time):
        return InvalidValue("non_finite_time", f"time is {time}")
    if abs(time) > MAX_TIME:
        return InvalidValue("non_finite_time", f"time {time} is too large for a float32 interval")
    return time


def _finite(value: object) -> float | None:
    """The value as a finite float64; None if it is not a number or too large."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _printable(sequence_id: str) -> str:
    """A sequence id with characters that UTF-8 cannot encode replaced by escapes."""
    return sequence_id.encode("utf-8", "backslashreplace").decode()


def _shorten(record: object) -> str:
    text = record if isinstance(record, str) else json.dumps(record, ensure_ascii=True, default=str)
    return text.encode("utf-8", "backslashreplace").decode()[:1000]
