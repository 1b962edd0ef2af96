"""Convert dates as logs and tables write them to seconds since 1970."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache

from mmtpp.core.times.time_format import load_zone

SECONDS_A_DAY = 86_400.0
_DAY_1970 = date(1970, 1, 1).toordinal()
_MONTHS = {
    name: number + 1
    for number, names in enumerate(
        [
            "jan january",
            "feb february",
            "mar march",
            "apr april",
            "may",
            "jun june",
            "jul july",
            "aug august",
            "sep september sept",
            "oct october",
            "nov november",
            "dec december",
        ]
    )
    for name in names.split()
}
_CLOCK = (
    r"(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,](?P<fraction>\d{1,9}))?)?"
    r"(?:\s*(?P<half>[AaPp]\.?[Mm]\.?))?"
)
_ZONE = r"(?:\s*(?P<zone>Z|[+-]\d{2}:?\d{2}|[+-]\d{2}|UTC|GMT|[A-Za-z_]+/[A-Za-z0-9_/+-]+))?"
_DAY_NAME = r"(?:[A-Za-z]{3,9}\.?,?\s+)?"
_PATTERNS = {
    "year_first": rf"(?P<year>\d{{4}})(?P<mark>[-/._])(?P<month>\d{{1,2}})(?P=mark)"
    rf"(?P<day>\d{{1,2}})(?:(?:\s+|[T_])\s*{_CLOCK}{_ZONE})?",
    "day_first": rf"(?P<day>\d{{1,2}})\.(?P<month>\d{{1,2}})\.(?P<year>\d{{4}})"
    rf"(?:(?:,?\s+|T){_CLOCK}{_ZONE})?",
    "two_orders": rf"(?P<first>\d{{1,2}})(?P<mark>[-/])(?P<other>\d{{1,2}})(?P=mark)"
    rf"(?P<year>\d{{4}})(?:(?:,?\s+|T){_CLOCK}{_ZONE})?",
    "day_name": rf"\[?{_DAY_NAME}(?P<day>\d{{1,2}})[-/\s](?P<name>[A-Za-z]{{3,9}})\.?[-/\s]"
    rf"(?P<year>\d{{4}})(?:(?:,?\s+|:){_CLOCK}{_ZONE})?\]?",
    "name_day": rf"{_DAY_NAME}(?P<name>[A-Za-z]{{3,9}})\.?\s+(?P<day>\d{{1,2}}),?\s+"
    rf"(?P<year>\d{{4}})(?:,?\s+{_CLOCK}{_ZONE})?",
    "year_last": rf"{_DAY_NAME}(?P<name>[A-Za-z]{{3}})\s+(?P<day>\d{{1,2}})\s+{_CLOCK}{_ZONE}\s+"
    r"(?P<year>\d{4})",
}
_COMPILED = {name: re.compile(pattern, re.ASCII) for name, pattern in _PATTERNS.items()}
_NO_YEAR = re.compile(rf"{_DAY_NAME}[A-Za-z]{{3}}\s+\d{{1,2}}\s+{_CLOCK}{_ZONE}", re.ASCII)


@dataclass(frozen=True, slots=True)
class AmbiguousDate:
    """A date with several possible meanings.

    Attributes:
        reason: Explanation, with the setting that decides.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Moment:
    """A date and a time of day.

    Attributes:
        local: Seconds since 1970 in local time.
        zone: Name or offset of the zone, such as ``+01:00``; empty if the date has none.
        shown: The date as written, for messages.
    """

    local: float
    zone: str
    shown: str

    def seconds(self, time_zone: str) -> float | AmbiguousDate:
        """Seconds since 1970 UTC, or the reason why they are unknown.

        Args:
            time_zone: IANA name of the zone of dates without a zone.
        """
        name = self.zone or time_zone
        offset = _offset(name)
        if offset is not None:
            return self.local - offset
        zone = load_zone(name)
        if zone is None:
            return AmbiguousDate(f"time is {self.shown!r}: {name!r} is not a known time zone")
        whole = self.local // 1
        naive = datetime(1970, 1, 1) + timedelta(seconds=whole)
        first, second = (
            naive.replace(tzinfo=zone, fold=fold).utcoffset() or timedelta() for fold in (0, 1)
        )
        if first != second:
            problem = "occurs twice" if first > second else "does not occur"
            return AmbiguousDate(
                f"time is {self.shown!r}: this time {problem} in {name}, because clocks change; "
                "write the offset, or set source.columns.time_zone"
            )
        return self.local - first.total_seconds()


def moment_of(value: datetime | date) -> Moment:
    """Convert a date of Python or pandas, with the nanoseconds of pandas."""
    days = float(value.toordinal() - _DAY_1970) * SECONDS_A_DAY
    if not isinstance(value, datetime):
        return Moment(days, "", str(value))
    fraction = value.microsecond / 1e6 + getattr(value, "nanosecond", 0) / 1e9
    clock = value.hour * 3600 + value.minute * 60 + value.second + fraction
    offset = value.utcoffset()
    if offset is None:
        return Moment(days + clock, "", str(value))
    return Moment(days + clock - offset.total_seconds(), "UTC", str(value))


def build_date_reader(values: Sequence[str]) -> Callable[[str], Moment | AmbiguousDate | None]:
    """Build a reader for the dates of one file.

    Args:
        values: All texts among the times of the file.

    Returns:
        A function from a text to its moment; the function returns None for a text that is not a
        date of a known form.
    """
    firsts, seconds = [], []
    for value in values:
        match = _COMPILED["two_orders"].fullmatch(value)
        if match:
            firsts.append(int(match["first"]))
            seconds.append(int(match["other"]))
    day_first, day_second = max(firsts, default=0) > 12, max(seconds, default=0) > 12
    order = ""
    if day_first != day_second:
        order = "day" if day_first else "month"

    def read(value: str) -> Moment | AmbiguousDate | None:
        if len(value) == len("2024-01-31 12:00:00") and value[4] == "-":  # the most common form
            return _read_iso(value) or _read(value, order)
        return _read(value, order)

    return read


@lru_cache(maxsize=1 << 16)
def _read(value: str, order: str) -> Moment | AmbiguousDate | None:
    for name, pattern in _COMPILED.items():
        match = pattern.fullmatch(value)
        if match is None:
            continue
        parts = match.groupdict()
        if name == "two_orders":
            if not order:
                return AmbiguousDate(
                    "the file does not show whether day or month comes first; set "
                    "source.columns.time_format to the whole format, for example "
                    '"%d/%m/%Y %H:%M:%S" or "%m/%d/%Y %H:%M:%S"'
                )
            day, month = ("first", "other") if order == "day" else ("other", "first")
            parts |= {"day": parts[day], "month": parts[month]}
        return _moment(parts, value)
    if _NO_YEAR.fullmatch(value):
        return AmbiguousDate(
            'the date has no year; set source.columns.time_format = "%b %d %H:%M:%S" and '
            "source.columns.year"
        )
    return _read_iso(value)


def _moment(parts: dict[str, str | None], shown: str) -> Moment | None:
    """The moment of the named groups of a pattern; None if they are not a date."""
    name = parts.get("name")
    month = _MONTHS.get(name.lower(), 0) if name else int(parts["month"] or 0)
    try:
        days = date(int(parts["year"] or 0), month, int(parts["day"] or 0)).toordinal() - _DAY_1970
    except ValueError:
        return None
    hour, minute = int(parts["hour"] or 0), int(parts["minute"] or 0)
    second = int(parts["second"] or 0)
    half = parts["half"]
    if half:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if half[0] in "pP" else 0)
    if hour > 23 or minute > 59 or second > 60:  # 60 is a leap second
        return None
    clock = 3600 * hour + 60 * minute + second + float(f"0.{parts['fraction'] or 0}")
    return Moment(days * SECONDS_A_DAY + clock, parts["zone"] or "", shown)


def _read_iso(value: str) -> Moment | None:
    """Read any form of ISO 8601, such as 20240131T120000Z or 2024-W05-3."""
    try:
        return moment_of(datetime.fromisoformat(value))
    except ValueError:
        return None


@lru_cache(maxsize=1024)
def _offset(name: str) -> float | None:
    """Offset from UTC in seconds for UTC itself or a numeric offset; None for a named zone."""
    if name in ("Z", "UTC", "GMT"):
        return 0.0
    match = re.fullmatch(r"([+-])(\d{2}):?(\d{2})?", name, re.ASCII)
    if match is None:
        return None
    seconds = 3600.0 * int(match[2]) + 60.0 * int(match[3] or 0)
    return -seconds if match[1] == "-" else seconds
