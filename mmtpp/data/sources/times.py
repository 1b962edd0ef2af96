"""Read times as files write them: numbers in the source's unit, or dates and times of day.

A column is read as a whole. Whether 03/04/2024 is in March or April, and whether 20240131 is a
number or a date, can only be seen from the other values of the file. Times that stay ambiguous are
rejected, with the setting that decides.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import cast

from mmtpp.core.times.time_format import DURATION, EPOCHS, NUMBER, SETTING, TimeFormat
from mmtpp.data.sources import dates
from mmtpp.data.sources.date_like_numbers import date_problem
from mmtpp.data.sources.dates import AmbiguousDate, Moment
from mmtpp.data.sources.decimals import plain_number
from mmtpp.data.sources.reader import InvalidValue

_FORMS = (
    "ISO 8601, 2024-01-31 12:00:00 +01:00, 2024/01/31, 31.01.2024, 31/Jan/2024:12:00:00 +0100, "
    "Wed, 31 Jan 2024 12:00:00 GMT, Jan 31 12:00:00 2024"
)
_COMMA = re.compile(r"[+-]?\d+,\d+", re.ASCII)
_DURATION = re.compile(r"([+-]?)(?:(\d+):)?(\d{1,2}):(\d{2})(?:[.,](\d{1,9}))?", re.ASCII)
_ADJOINING = re.compile(r"%[A-Za-z]%[A-Za-z]")

DateReader = Callable[[str], Moment | AmbiguousDate | None]


@dataclass(frozen=True, slots=True)
class Times:
    """The times of a column.

    Attributes:
        values: Each time in the source's unit, or the reason why it is invalid.
        are_dates: Whether the times count from 1970-01-01T00:00:00 UTC.
    """

    values: list[float | InvalidValue]
    are_dates: bool


def read_times(values: Sequence[object], time_format: TimeFormat) -> Times:
    """Read the times of one file.

    Args:
        values: Times as the file has them (numbers, text, dates or anything else), in the order of
            the file.
        time_format: How the times are written.

    Returns:
        A time or the reason why it is invalid, for each value.
    """
    if time_format.name == DURATION:
        return Times([_read_duration(value, time_format) for value in values], False)
    if time_format.name in EPOCHS:
        scale = EPOCHS[time_format.name] / time_format.seconds_per_unit
        return Times([_scale(_as_number(value), scale) for value in values], True)
    if time_format.name not in ("", NUMBER):
        return Times(_read_with_strptime(values, time_format), True)
    unit = time_format.seconds_per_unit
    numbers = _all_numbers(values)
    if numbers is not None and (
        time_format.name == NUMBER or not date_problem(numbers, seconds_per_unit=unit)
    ):
        return Times(list(numbers), False)
    parsed = _read_decimal_commas([_as_number(value) for value in values])
    if time_format.name == NUMBER:
        times = [
            value if isinstance(value, float | InvalidValue) else _not_a_number(value)
            for value in parsed
        ]
        return Times(times, False)
    return _read_mixed(values, parsed, time_format)


def _read_mixed(
    values: Sequence[object], parsed: Sequence[object], time_format: TimeFormat
) -> Times:
    """Read numbers as numbers and text as dates, and reject the kind with fewer values.

    Args:
        values: Times as the file has them.
        parsed: The values after ``_as_number``.
        time_format: Format without a name.
    """
    numbers = [value for value in parsed if isinstance(value, float)]
    read_date = dates.build_date_reader([value for value in parsed if isinstance(value, str)])
    times: list[float | InvalidValue] = []
    is_date: list[bool] = []
    for value in parsed:
        if isinstance(value, timedelta):
            value = value.total_seconds() / time_format.seconds_per_unit
        time = (
            value
            if isinstance(value, float | InvalidValue)
            else _read_date(value, read_date, time_format)
        )
        times.append(time)
        is_date.append(isinstance(time, float) and not isinstance(value, float))
    num_dates = sum(is_date)
    problem = ""
    if numbers and not num_dates:
        problem = date_problem(numbers, seconds_per_unit=time_format.seconds_per_unit)
    if problem:
        ambiguous = InvalidValue("ambiguous_time", problem)
        return Times([ambiguous if isinstance(time, float) else time for time in times], False)
    are_dates = num_dates > len(numbers)
    if num_dates and numbers:
        fewer, more = ("number", "dates") if are_dates else ("date", "numbers")
        times = [
            InvalidValue(
                "ambiguous_time", f"time is {_shown(value)}, a {fewer} among {more}; {SETTING}"
            )
            if isinstance(time, float) and date_here != are_dates
            else time
            for value, time, date_here in zip(values, times, is_date, strict=True)
        ]
    return Times(times, are_dates)


def _read_date(
    value: object, read_date: DateReader, time_format: TimeFormat
) -> float | InvalidValue:
    """Time of a date since 1970, in the unit of the source."""
    moment: Moment | AmbiguousDate | None
    if isinstance(value, datetime | date):
        moment = dates.moment_of(value)
    elif isinstance(value, str):
        moment = read_date(value)
    else:
        moment = None
    if moment is None:
        return InvalidValue(
            "unreadable_time",
            f"time is {_shown(value)}; numbers are read, and dates such as {_FORMS}; "
            f"for another form set {SETTING}",
        )
    if isinstance(moment, AmbiguousDate):
        return InvalidValue("ambiguous_time", f"time is {_shown(value)}: {moment.reason}")
    return _in_unit(moment, time_format)


def _in_unit(moment: Moment, time_format: TimeFormat) -> float | InvalidValue:
    seconds = moment.seconds(time_format.time_zone)
    if isinstance(seconds, AmbiguousDate):
        return InvalidValue("ambiguous_time", seconds.reason)
    return seconds / time_format.seconds_per_unit


def _all_numbers(values: Sequence[object]) -> list[float] | None:
    """The values as numbers; None if one of them is not a number."""
    kinds = set(map(type, values))
    if kinds == {str} and not any("_" in cast("str", value) for value in values):
        try:
            numbers = list(map(float, cast("list[str]", values)))
        except ValueError:
            return None
    elif kinds and kinds <= {int, float}:
        try:
            numbers = list(map(float, cast("list[float]", values)))
        except OverflowError:
            return None
    else:
        return None
    return None if any(map(math.isnan, numbers)) else numbers


def _as_number(value: object) -> object:
    """A number as a float, a missing value as ``InvalidValue``, any other value unchanged."""
    value = plain_number(value)
    if isinstance(value, bool):
        return InvalidValue("unreadable_time", f"time is {value}")
    if isinstance(value, float):
        return InvalidValue("missing_time", "time is NaN") if math.isnan(value) else value
    if isinstance(value, int | Decimal):
        try:
            return float(value)
        except (OverflowError, ValueError):
            return InvalidValue("non_finite_time", "time is too large")
    if isinstance(value, str):
        text = value.strip()
        if not text or text.lower() == "nan":
            return InvalidValue("missing_time", f"time is {value!r}")
        if "_" not in text:
            try:
                return float(text)
            except ValueError:
                pass
        return text
    if value is None or value != value:  # NaT
        return InvalidValue("missing_time", f"time is {value!r}")
    return value


def _not_a_number(value: object) -> InvalidValue:
    return InvalidValue(
        "unreadable_time", f"time is {_shown(value)}, not a number; {SETTING} = number"
    )


def _scale(value: object, scale: float) -> float | InvalidValue:
    if isinstance(value, float):
        return value * scale
    return value if isinstance(value, InvalidValue) else _not_a_number(value)


def _read_decimal_commas(values: list[object]) -> list[object]:
    """Read numbers with a decimal comma; reject them where it may separate thousands."""
    numbers = [value for value in values if isinstance(value, str) and _COMMA.fullmatch(value)]
    if not numbers:
        return values
    if all(_may_be_thousands(value) for value in numbers):
        problem = InvalidValue(
            "ambiguous_time",
            f"time is {numbers[0]!r}: the comma may separate decimals or thousands; write numbers "
            "with a point, or without separators of thousands",
        )
        return [
            problem if isinstance(value, str) and _COMMA.fullmatch(value) else value
            for value in values
        ]
    return [
        float(value.replace(",", "."))
        if isinstance(value, str) and _COMMA.fullmatch(value)
        else value
        for value in values
    ]


def _may_be_thousands(value: str) -> bool:
    """Whether the comma may separate thousands, as in 1,234."""
    whole, _, decimals = value.lstrip("+-").partition(",")
    return len(decimals) == 3 and len(whole) <= 3 and not whole.startswith("0")


def _read_duration(value: object, time_format: TimeFormat) -> float | InvalidValue:
    """Time of H:MM:SS or MM:SS with decimals, in the unit of the source."""
    if isinstance(value, timedelta):
        return value.total_seconds() / time_format.seconds_per_unit
    if isinstance(value, time):
        value = value.isoformat()
    text = _as_number(value)
    if isinstance(text, InvalidValue):
        return text
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if match is None or int(match[4]) > 59 or (match[2] and int(match[3]) > 59):
        return InvalidValue("unreadable_time", f"time is {_shown(value)}, not H:MM:SS; {SETTING}")
    seconds = 3600 * int(match[2] or 0) + 60 * int(match[3]) + int(match[4])
    total = seconds + float(f"0.{match[5] or 0}")
    return (-total if match[1] == "-" else total) / time_format.seconds_per_unit


def _read_with_strptime(
    values: Sequence[object], time_format: TimeFormat
) -> list[float | InvalidValue]:
    """Read dates in a format of ``strptime``.

    A date without a year gets the year in which it is closest to the date before it.
    """
    times: list[float | InvalidValue] = []
    before, year, has_year = None, time_format.year, time_format.has_year
    for value in values:
        if isinstance(value, datetime | date):
            times.append(_read_date(value, _no_date, time_format))
            continue
        number = _as_number(value)
        if isinstance(number, InvalidValue):
            times.append(number)
            continue
        text = value.strip() if isinstance(value, str) else _integer_text(value)
        if has_year:
            times.append(_strptime(text, time_format.name, time_format))
            continue
        years = [year] if before is None else [year, year - 1, year + 1]
        candidates = [
            _strptime(f"{candidate_year} {text}", f"%Y {time_format.name}", time_format)
            for candidate_year in years
        ]
        valid = [candidate for candidate in candidates if isinstance(candidate, float)]
        best = (
            min(valid, key=lambda candidate: abs(candidate - (before or candidate)))
            if valid
            else candidates[0]
        )
        if isinstance(best, float):
            year, before = years[candidates.index(best)], best
        times.append(best)
    return times


def _no_date(_: str) -> None:
    return None


def _integer_text(value: object) -> str:
    """A value as text; a whole number without decimals."""
    value = plain_number(value)
    is_whole = isinstance(value, float) and value.is_integer()
    return f"{value:.0f}" if is_whole else str(value)


def _strptime(text: str, name: str, time_format: TimeFormat) -> float | InvalidValue:
    parsed = _parse_date(text, name)
    if parsed is None:
        return InvalidValue(
            "unreadable_time", f"time is {text!r}; {SETTING} = {time_format.name!r}"
        )
    return _in_unit(dates.moment_of(parsed), time_format)


@lru_cache(maxsize=1 << 16)
def _parse_date(text: str, name: str) -> datetime | None:
    try:
        parsed = datetime.strptime(text, name)
        # without separators, strptime may divide 81109 into other fields than intended
        if _ADJOINING.search(name) and parsed.strftime(name).rstrip("0") != text.rstrip("0"):
            return None
    except (ValueError, OverflowError):
        return None
    return parsed


def _shown(value: object) -> str:
    return repr(value)[:80]
