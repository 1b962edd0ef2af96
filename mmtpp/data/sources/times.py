"""Times as files write them: numbers in the source's unit, or dates and times of day.

A column is read as a whole: whether 03/04/2024 is in March or April, and whether 20240131 is a
number or a date, can only be seen from the other values of its file. What stays ambiguous is not
read; the reason names the setting that decides.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache, partial
from typing import cast

from mmtpp.core.errors import ConfigError
from mmtpp.data.sources import dates
from mmtpp.data.sources.dates import SECONDS_A_DAY, Moment

NUMBER, DURATION = "number", "duration"
EPOCHS = {"epoch_s": 1.0, "epoch_ms": 1e-3, "epoch_us": 1e-6, "epoch_ns": 1e-9}
SETTING = "source.columns.time_format"
_FORMS = (
    "ISO 8601, 2024-01-31 12:00:00 +01:00, 2024/01/31, 31.01.2024, 31/Jan/2024:12:00:00 +0100, "
    "Wed, 31 Jan 2024 12:00:00 GMT, Jan 31 12:00:00 2024"
)
_COMPACT = {8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S", 17: "%Y%m%d%H%M%S%f"}
_COMMA = re.compile(r"[+-]?\d+,\d+", re.ASCII)
_DURATION = re.compile(r"([+-]?)(?:(\d+):)?(\d{1,2}):(\d{2})(?:[.,](\d{1,9}))?", re.ASCII)
_ADJOINING = re.compile(r"%[A-Za-z]%[A-Za-z]")
_MIN_TIMES_OF_DAY = 20  # different ones; other numbers would not all be times of day
_SMALLEST_DATE = 19_000_101
_SAMPLE = 100
_YEAR = 365.2425 * SECONDS_A_DAY
_EPOCH_RANGE = 20 * _YEAR, 130 * _YEAR  # 1990 to 2100, what clocks of files show
_FAR = 300 * _YEAR  # 2270, beyond what clocks of files show


@dataclass(frozen=True, slots=True)
class TimeFormat:
    """How the times of a table are written.

    Attributes:
        name: empty to recognise the form; ``number``; ``duration`` (H:MM:SS); ``epoch_s``,
            ``epoch_ms``, ``epoch_us``, ``epoch_ns`` since 1970; or a format of ``strptime``.
        time_zone: IANA name of the zone of dates that state none.
        year: Year of the first date, where dates have none; 0 to refuse such dates.
        seconds_per_unit: Seconds in the unit that dates are converted to, above 0.

    Raises:
        ConfigError: an unknown zone or name, or a format that cannot give a date.
    """

    name: str = ""
    time_zone: str = "UTC"
    year: int = 0
    seconds_per_unit: float = 1.0

    def __post_init__(self) -> None:
        if dates.zone(self.time_zone) is None:
            raise ConfigError(
                f"source.columns.time_zone = {self.time_zone!r}: not an IANA time zone, such as "
                "UTC or Europe/Berlin"
            )
        if self.name in ("", NUMBER, DURATION, *EPOCHS):
            return
        if not re.search(r"%[djx%cDGs]|%-?[de]", self.name):
            raise ConfigError(
                f"{SETTING} = {self.name!r}: neither one of {NUMBER}, {DURATION}, "
                f"{', '.join(EPOCHS)}, nor a format of strptime with a day",
                cause="times of day need a date: source.columns.date names its column",
            )
        if not re.search(r"%[YyGcx]", self.name) and not self.year:
            raise ConfigError(
                f"{SETTING} = {self.name!r} has no year: set source.columns.year to that of the "
                "first date in each file"
            )


@dataclass(frozen=True, slots=True)
class Unread:
    """A time that was not read.

    Attributes:
        cause: ``missing_time``, ``unreadable_time`` or ``ambiguous_time``.
        detail: The reason, with the setting that helps.
    """

    cause: str
    detail: str


@dataclass(frozen=True, slots=True)
class Times:
    """The times of a column.

    Attributes:
        values: Each time in the source's unit, or why it was not read.
        are_dates: They count from 1970-01-01T00:00:00 UTC.
    """

    values: list[float | Unread]
    are_dates: bool


def read_times(values: Sequence[object], form: TimeFormat) -> Times:
    """Read the times of one file.

    Args:
        values: Numbers, text, dates, or whatever the file has; in the order of the file.
        form: How they are written.

    Returns:
        A time or a reason for each value.
    """
    if form.name == DURATION:
        return Times([_duration(value, form) for value in values], False)
    if form.name in EPOCHS:
        scale = EPOCHS[form.name] / form.seconds_per_unit
        return Times([_scaled(_number(value), scale) for value in values], True)
    if form.name not in ("", NUMBER):
        return Times(_formatted(values, form), True)
    numbers = _all_numbers(values)
    if numbers is not None and (form.name == NUMBER or not _like_dates(numbers, form)):
        return Times(list(numbers), False)
    found = _with_decimal_commas([_number(value) for value in values])
    if form.name == NUMBER:
        read = [
            value if isinstance(value, float | Unread) else _not_a_number(value) for value in found
        ]
        return Times(read, False)
    return _recognised(values, found, form)


def _recognised(values: Sequence[object], found: Sequence[object], form: TimeFormat) -> Times:
    """Read numbers as numbers and text as dates; whichever are fewer in a file are refused."""
    numbers = [value for value in found if isinstance(value, float)]
    read = dates.reader_of([value for value in found if isinstance(value, str)])
    result: list[float | Unread] = []
    is_date: list[bool] = []
    for value in found:
        if isinstance(value, timedelta):
            value = value.total_seconds() / form.seconds_per_unit
        time = value if isinstance(value, float | Unread) else _of_date(value, read, form)
        result.append(time)
        is_date.append(isinstance(time, float) and not isinstance(value, float))
    num_dates = sum(is_date)
    problem = _like_dates(numbers, form) if numbers and not num_dates else ""
    if problem:
        refused = Unread("ambiguous_time", problem)
        return Times([refused if isinstance(time, float) else time for time in result], False)
    are_dates = num_dates > len(numbers)
    if num_dates and numbers:
        fewer, more = ("number", "dates") if are_dates else ("date", "numbers")
        result = [
            Unread("ambiguous_time", f"time is {_shown(value)}, a {fewer} among {more}; {SETTING}")
            if isinstance(time, float) and date_here != are_dates
            else time
            for value, time, date_here in zip(values, result, is_date, strict=True)
        ]
    return Times(result, are_dates)


def _of_date(
    value: object, read: Callable[[str], "Moment | str | None"], form: TimeFormat
) -> float | Unread:
    """Seconds of a date since 1970 in the unit of the source."""
    moment: Moment | str | None
    if isinstance(value, datetime | date):
        moment = dates.moment_of(value)
    elif isinstance(value, str):
        moment = read(value)
    else:
        moment = None
    if moment is None:
        return Unread(
            "unreadable_time",
            f"time is {_shown(value)}; read are numbers and dates such as {_FORMS}; "
            f"for another form set {SETTING}",
        )
    if isinstance(moment, str):
        return Unread("ambiguous_time", f"time is {_shown(value)}: {moment}")
    return _in_unit(moment, form)


def _in_unit(moment: Moment, form: TimeFormat) -> float | Unread:
    seconds = moment.seconds(form.time_zone)
    if isinstance(seconds, str):
        return Unread("ambiguous_time", seconds)
    return seconds / form.seconds_per_unit


def _all_numbers(values: Sequence[object]) -> list[float] | None:
    """The values as numbers where all are; None otherwise."""
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


def _number(value: object) -> object:
    """A number as a float, a missing value as ``Unread``, anything else unchanged."""
    if isinstance(value, bool):
        return Unread("unreadable_time", f"time is {value}")
    if isinstance(value, float):
        return Unread("missing_time", "time is NaN") if math.isnan(value) else value
    if isinstance(value, int | Decimal):
        try:
            return float(value)
        except (OverflowError, ValueError):
            return Unread("non_finite_time", "time is too large")
    if isinstance(value, str):
        text = value.strip()
        if not text or text.lower() == "nan":
            return Unread("missing_time", f"time is {value!r}")
        if "_" not in text:
            try:
                return float(text)
            except ValueError:
                pass
        return text
    if value is None or value != value:  # NaT
        return Unread("missing_time", f"time is {value!r}")
    return value


def _not_a_number(value: object) -> Unread:
    return Unread("unreadable_time", f"time is {_shown(value)}, not a number; {SETTING} = number")


def _scaled(value: object, scale: float) -> float | Unread:
    if isinstance(value, float):
        return value * scale
    return value if isinstance(value, Unread) else _not_a_number(value)


def _with_decimal_commas(found: list[object]) -> list[object]:
    """The values, numbers with a decimal comma read where that is what the comma must be."""
    commas = [value for value in found if isinstance(value, str) and _COMMA.fullmatch(value)]
    if not commas:
        return found
    if all(_may_group(value) for value in commas):
        problem = Unread(
            "ambiguous_time",
            f"time is {commas[0]!r}: the comma may separate decimals or thousands; write numbers "
            "with a point, or without separators of thousands",
        )
        return [problem if isinstance(v, str) and _COMMA.fullmatch(v) else v for v in found]
    return [
        float(value.replace(",", "."))
        if isinstance(value, str) and _COMMA.fullmatch(value)
        else value
        for value in found
    ]


def _may_group(value: str) -> bool:
    """Whether the comma may separate thousands, as in 1,234."""
    whole, _, rest = value.lstrip("+-").partition(",")
    return len(rest) == 3 and len(whole) <= 3 and not whole.startswith("0")


def look_like_dates(numbers: Sequence[float], *, seconds_per_unit: float) -> str:
    """What dates most of these numbers look like; empty where they look like none.

    Args:
        numbers: Times of a kind of source that has no dates.
        seconds_per_unit: Seconds in their unit.
    """
    sample = list(numbers[:_SAMPLE])
    form = TimeFormat(seconds_per_unit=seconds_per_unit)
    return _like_dates(sample, form) if sample and abs(sample[0]) > _SMALLEST_DATE else ""


def _like_dates(numbers: list[float], form: TimeFormat) -> str:
    """What dates most of the numbers look like, and the setting that decides; empty if none."""
    large = sum(abs(value) >= _SMALLEST_DATE for value in numbers)
    if 2 * large <= len(numbers):
        return _like_times_of_day(numbers)
    for name, looks in _SUSPICIONS.items():
        count = sum(map(looks, numbers))
        if 2 * count > len(numbers):
            example = next(value for value in numbers if looks(value))
            return _suspicion(count, len(numbers), f"{example:.0f}", name)
    far = [abs(value) * form.seconds_per_unit > _FAR for value in numbers]
    if 2 * sum(far) > len(numbers):
        for name, scale in EPOCHS.items():
            count = sum(_EPOCH_RANGE[0] < value * scale < _EPOCH_RANGE[1] for value in numbers)
            if 2 * count > len(numbers):
                return _suspicion(count, len(numbers), f"{numbers[0]:.0f}", name)
    return ""


def _like_times_of_day(numbers: list[float]) -> str:
    """Why the numbers look like HHMMSS; empty where they do not."""
    if max(numbers) >= 1e4 and len(set(numbers)) >= _MIN_TIMES_OF_DAY:
        count = sum(map(_is_time_of_day, numbers))
        if count == len(numbers):
            example = f"{max(numbers):06.0f}"
            return (
                f"times such as {example} look like times of day, HHMMSS: name the column of the "
                f'date, source.columns.date, and set {SETTING} = "DATE %H%M%S" with DATE its '
                f'format; or set {SETTING} = "{NUMBER}" if they are numbers'
            )
    return ""


def _suspicion(count: int, of: int, example: str, name: str) -> str:
    return (
        f"{count:,} of {of:,} times of this file look like dates written as numbers, such as "
        f'{example}: set {SETTING} = "{name}" if they are, "{NUMBER}" if they are numbers in '
        "the source's unit"
    )


def _is_compact(digits: int, name: str, value: float) -> bool:
    if not (value.is_integer() and 10 ** (digits - 1) <= value < 10**digits):
        return False
    text = f"{value:.0f}"
    if not "1900" <= text[:4] <= "2100":
        return False
    try:
        datetime.strptime(text, name).replace(tzinfo=UTC)
    except ValueError:
        return False
    return True


_SUSPICIONS: dict[str, Callable[[float], bool]] = {
    name: partial(_is_compact, digits, name) for digits, name in _COMPACT.items()
}


def _is_time_of_day(value: float) -> bool:
    return (
        value.is_integer() and 0 <= value < 240_000 and value % 100 < 60 and value // 100 % 100 < 60
    )


def _duration(value: object, form: TimeFormat) -> float | Unread:
    """Seconds of H:MM:SS or MM:SS with decimals, in the unit of the source."""
    if isinstance(value, timedelta):
        return value.total_seconds() / form.seconds_per_unit
    if isinstance(value, time):
        value = value.isoformat()
    found = _number(value)
    if isinstance(found, Unread):
        return found
    match = _DURATION.fullmatch(found) if isinstance(found, str) else None
    if match is None or int(match[4]) > 59 or (match[2] and int(match[3]) > 59):
        return Unread("unreadable_time", f"time is {_shown(value)}, not H:MM:SS; {SETTING}")
    seconds = 3600 * int(match[2] or 0) + 60 * int(match[3]) + int(match[4])
    total = seconds + float(f"0.{match[5] or 0}")
    return (-total if match[1] == "-" else total) / form.seconds_per_unit


def _formatted(values: Sequence[object], form: TimeFormat) -> list[float | Unread]:
    """Dates in a format of ``strptime``; those without a year follow the first one's."""
    has_year = re.search(r"%[YyGcx]", form.name) is not None
    result: list[float | Unread] = []
    before, year = None, form.year
    for value in values:
        if isinstance(value, datetime | date):
            result.append(_of_date(value, _no_text, form))
            continue
        missing = _number(value)
        if isinstance(missing, Unread):
            result.append(missing)
            continue
        text = value.strip() if isinstance(value, str) else _whole(value)
        if has_year:
            result.append(_strptime(text, form.name, form))
            continue
        near = [year] if before is None else [year, year - 1, year + 1]
        read = [_strptime(f"{each} {text}", f"%Y {form.name}", form) for each in near]
        found = [each for each in read if isinstance(each, float)]
        best = min(found, key=lambda each: abs(each - (before or each))) if found else read[0]
        if isinstance(best, float):
            year, before = near[read.index(best)], best
        result.append(best)
    return result


def _no_text(_: str) -> None:
    return None


def _whole(value: object) -> str:
    is_whole = isinstance(value, float) and value.is_integer()
    return f"{value:.0f}" if is_whole else str(value)


def _strptime(text: str, name: str, form: TimeFormat) -> float | Unread:
    found = _parsed(text, name)
    if found is None:
        return Unread("unreadable_time", f"time is {text!r}; {SETTING} = {form.name!r}")
    return _in_unit(dates.moment_of(found), form)


@lru_cache(maxsize=1 << 16)
def _parsed(text: str, name: str) -> datetime | None:
    try:
        found = datetime.strptime(text, name)
        # without separators strptime may cut 81109 into other fields than were meant
        if _ADJOINING.search(name) and found.strftime(name).rstrip("0") != text.rstrip("0"):
            return None
    except (ValueError, OverflowError):
        return None
    return found


def _shown(value: object) -> str:
    return repr(value)[:80]
