"""Check the events of a file column by column, where every record is an event.

The events are those of ``checking``, which checks record by record and also finds the faults.
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.events import EventSequence
from mmtpp.core.split import split_from_value
from mmtpp.data.sources.reader import (
    INTERVAL_ATOL,
    INTERVAL_RTOL,
    MAX_TIME,
    InvalidValue,
    ParsedFile,
    RawColumns,
    ReadCounts,
)
from mmtpp.data.sources.type_codes import OTHER, RARE, TypeCodes

_NUMBERS = frozenset({int, float})
_NOTHING = type(None)


def read_columns(columns: RawColumns, types: TypeCodes) -> ParsedFile | None:
    """The sequences of a file in which every record is an event; None if one may not be.

    Args:
        columns: The records of the file.
        types: Codes of the event types.
    """
    if not columns.times or not _have_expected_types(columns):
        return None
    num_events = len(columns.times)
    times = _floats(columns.times)
    codes = _type_codes(columns.types, types, num_events)
    declared = _numbers(columns.intervals, num_events)
    grouped = _group(columns, num_events)
    if times is None or codes is None or declared is None or grouped is None:
        return None
    if not np.isfinite(times).all() or np.abs(times).max() > MAX_TIME:
        return None
    keys, groups = grouped
    is_rare = codes == RARE
    if is_rare.any():
        codes[is_rare] = types.codes[OTHER]
    order, num_reordered = _order(times, groups)
    counts = ReadCounts(
        num_read=num_events,
        num_reordered=num_reordered,
        num_disagreeing=_count_disagreeing(declared[order], times[order], groups[order]),
        num_folded=int(is_rare.sum()),
        num_dated=num_events if columns.are_dates else 0,
    )
    edges = np.searchsorted(groups[order], np.arange(len(keys) + 1)).tolist()
    times, codes = times[order], codes[order]
    texts = _in_order(columns.texts, order, default="")
    images = [image or None for image in _in_order(columns.images, order, default=None)]
    sequences = [
        EventSequence(
            sequence_id=name,
            times=times[start:end],
            types=codes[start:end],
            texts=tuple(texts[start:end]),
            images=tuple(images[start:end]),
        )
        for (name, _), start, end in zip(keys, edges[:-1], edges[1:], strict=True)
    ]
    return ParsedFile(sequences, [], counts, tuple(split for _, split in keys))


def _have_expected_types(columns: RawColumns) -> bool:
    """Whether times are numbers, texts are texts and images are paths."""
    names = [columns.sequences] if isinstance(columns.sequences, str) else columns.sequences
    texts, images = columns.texts or [], columns.images or []
    return (
        _NUMBERS.issuperset(map(type, columns.times))
        and {str}.issuperset(map(type, texts))
        and {str, _NOTHING}.issuperset(map(type, images))
        and {str}.issuperset(map(type, names))
        and all(map(_is_unicode, (texts, filter(None, images), names)))
    )


def _is_unicode(texts: Iterable[str]) -> bool:
    """Whether no text has a character that UTF-8 cannot encode."""
    joined = "".join(texts)
    if joined.isascii():
        return True
    try:
        joined.encode()
    except UnicodeEncodeError:
        return False
    return True


def _type_codes(values: list | None, types: TypeCodes, num_events: int) -> NDArray[np.int16] | None:
    """(E,) codes of the types; None if one is invalid or they are of several kinds."""
    if values is None:
        values = [0] * num_events
    kinds = set(map(type, values))
    if kinds != {str} and kinds != {int}:
        return None
    codes = {value: types.code(value) for value in set(values)}
    if any(isinstance(code, InvalidValue) for code in codes.values()):
        return None
    return np.fromiter(map(codes.__getitem__, values), np.int16, num_events)


def _numbers(values: list | None, num_events: int) -> NDArray[np.float64] | None:
    """(E,) declared intervals, not a number where there is none; None if one is no number."""
    if values is None:
        return np.full(num_events, np.nan)
    kinds = set(map(type, values))
    if not kinds <= _NUMBERS | {_NOTHING}:
        return None
    num_missing = values.count(None) if _NOTHING in kinds else 0
    if num_missing:
        values = [math.nan if value is None else value for value in values]
    numbers = _floats(values)
    # a missing interval is not compared, NaN that was written as a number is
    if numbers is None or np.isnan(numbers).sum() > num_missing:
        return None
    return numbers


def _floats(values: list) -> NDArray[np.float64] | None:
    """(E,) numbers; None if one is too large."""
    try:
        return np.array(values, dtype=np.float64)
    except OverflowError:
        return None


def _group(
    columns: RawColumns, num_events: int
) -> tuple[list[tuple[str, str]], NDArray[np.int64]] | None:
    """The sequences in order of appearance, each as id and split, and (E,) their places.

    None if a value names no split.
    """
    names, splits = columns.sequences, columns.splits
    if isinstance(names, str):
        if splits is None:
            return [(names, "")], np.zeros(num_events, dtype=np.int64)
        names = [names] * num_events
    if splits is None:
        splits = [""] * num_events
    elif not {str}.issuperset(map(type, splits)):
        return None
    else:
        split_of = {value: split_from_value(value) for value in set(splits)}
        if not all(split_of.values()):
            return None
        splits = [split_of[value] for value in splits]
    places: dict[tuple[str, str], int] = {}
    groups = [places.setdefault(key, len(places)) for key in zip(names, splits, strict=True)]
    return list(places), np.array(groups, dtype=np.int64)


def _in_order(values: list | None, order: NDArray[np.int64], *, default: Any) -> list:
    """A column in another order; ``default`` for each event if there is no column."""
    if values is None:
        return [default] * len(order)
    if (np.diff(order) == 1).all():
        return values
    return [values[place] for place in order.tolist()]


def _order(times: NDArray[np.float64], groups: NDArray[np.int64]) -> tuple[NDArray[np.int64], int]:
    """Order of the events by sequence and time, and how many stand after a later event.

    Events at the same time keep the order of the file.

    Args:
        times: (E,) times in the order of the file.
        groups: (E,) place of the sequence of each event.
    """
    order = np.argsort(groups, kind="stable")
    is_within = np.diff(groups[order]) == 0
    if not ((np.diff(times[order]) < 0) & is_within).any():
        return order, 0
    # the ranks of a sequence lie above those of all sequences before it
    rank = np.unique(times, return_inverse=True)[1][order] + groups[order] * (len(times) + 1)
    num_reordered = int((rank < np.maximum.accumulate(rank)).sum())
    return np.lexsort((times, groups)), num_reordered


def _count_disagreeing(
    declared: NDArray[np.float64], times: NDArray[np.float64], groups: NDArray[np.int64]
) -> int:
    """Number of events, without the first of each sequence, that declare another interval.

    Args:
        declared: (E,) declared intervals, by sequence and time; not a number where there is none.
        times: (E,) times.
        groups: (E,) number of the sequence of each event.
    """
    declared, intervals = declared[1:], np.diff(times)
    with np.errstate(invalid="ignore"):  # infinity agrees with nothing
        largest = np.maximum(np.abs(declared), np.abs(intervals))
        tolerance = np.maximum(INTERVAL_RTOL * largest, INTERVAL_ATOL)
        agree = (np.abs(declared - intervals) <= tolerance) & np.isfinite(declared)
    return int((~np.isnan(declared) & ~agree & (np.diff(groups) == 0)).sum())
