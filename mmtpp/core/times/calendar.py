"""The calendar as numbers: the time of day, week and year of dates, in any time zone."""

from datetime import UTC, datetime
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
from numpy.typing import NDArray

DAY_S, WEEK_S, YEAR_S = 86400.0, 7 * 86400.0, 365.2425 * 86400.0
_HARMONICS = {DAY_S: (1, 2, 3, 4, 6), WEEK_S: (1, 2, 3), YEAR_S: (1, 2)}
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
WEEK_MINUTES = 7 * 1440
_FIRST_DAY = 3  # 1970-01-01 was a Thursday
_OFFSET_STEP_S = 900  # most time zones change their offset at whole quarters of an hour
# the years that datetime knows, 1 to 9999, without a week at both ends
_FIRST_DATE_S, _LAST_DATE_S = -62_135_000_000.0, 253_401_000_000.0

FloatArray = NDArray[np.floating]


def spanned_periods(span_s: float) -> tuple[float, ...]:
    """Periods of the calendar that fit at least twice into a span of time.

    Args:
        span_s: Time between the first and the last event, in seconds.
    """
    return tuple(period for period in _HARMONICS if span_s >= 2 * period)


def calendar_names(periods: tuple[float, ...]) -> list[str]:
    """Names of the columns of ``calendar_columns``."""
    words = {DAY_S: "day", WEEK_S: "week", YEAR_S: "year"}
    return [
        f"{wave} {words[period]}/{harmonic}"
        for period in periods
        for harmonic in _HARMONICS[period]
        for wave in ("sin", "cos")
    ]


def calendar_columns(times_s: FloatArray, periods: tuple[float, ...]) -> list[NDArray[np.float32]]:
    """Sines and cosines of the phase in each period, and of its multiples.

    Args:
        times_s: (E,) times in seconds, local time if the time of day matters.
        periods: Periods in seconds, of ``spanned_periods``.

    Returns:
        Columns of E float32 numbers, in the order of ``calendar_names``.
    """
    columns: list[NDArray[np.float32]] = []
    for period in periods:
        phase = (np.mod(times_s, period) * (2 * np.pi / period)).astype(np.float32)
        for harmonic in _HARMONICS[period]:
            columns += [np.sin(harmonic * phase), np.cos(harmonic * phase)]
    return columns


def local_times(times_s: FloatArray, time_zone: str) -> FloatArray:
    """Local times of dates, daylight saving included.

    Args:
        times_s: (E,) seconds since 1970-01-01T00:00:00 UTC.
        time_zone: IANA name of the zone, such as ``Europe/Berlin``.

    Returns:
        (E,) seconds since 1970-01-01T00:00:00 on the clock of the zone. Before the year 1 and after
        the year 9999 the zone's offset is that of the nearest of these years.

    Raises:
        ValueError: There is no such zone.
    """
    if time_zone == "UTC":
        return times_s
    zone = find_zone(time_zone)
    known_s = np.clip(times_s, _FIRST_DATE_S, _LAST_DATE_S)
    steps, place = np.unique(np.floor(known_s / _OFFSET_STEP_S), return_inverse=True)
    starts = (steps * _OFFSET_STEP_S).tolist()
    offsets = np.array([_offset_s(start, zone) for start in starts])
    ends = np.array([_offset_s(start + _OFFSET_STEP_S, zone) for start in starts])
    local_s = times_s + offsets[place]
    for index in np.flatnonzero((offsets != ends)[place]).tolist():  # the zone changes in between
        local_s[index] = times_s[index] + _offset_s(float(np.floor(known_s[index])), zone)
    return local_s


def minutes_of_week(times_s: FloatArray, time_zone: str) -> NDArray[np.int64]:
    """Day of week and time of day of dates.

    Args:
        times_s: (E,) seconds since 1970-01-01T00:00:00 UTC, finite.
        time_zone: IANA name of the zone, such as ``Europe/Berlin``.

    Returns:
        (E,) whole minutes since Monday 00:00 on the clock of the zone, 0 to 10,079.

    Raises:
        ValueError: There is no such zone.
    """
    # a time in another unit than seconds may be a rounding error below its minute
    local_s = np.round(local_times(times_s, time_zone), 3)
    minutes = np.floor(local_s / 60) + _FIRST_DAY * 1440
    return np.mod(minutes, WEEK_MINUTES).astype(np.int64)


def find_zone(name: str) -> ZoneInfo:
    """Find a time zone by its IANA name.

    Raises:
        ValueError: There is no such zone.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"no time zone is named {name!r}") from error


@lru_cache(maxsize=2**16)
def _offset_s(time_s: float, zone: ZoneInfo) -> float:
    """Offset of a zone from UTC at a time, in seconds."""
    offset = datetime.fromtimestamp(time_s, UTC).astimezone(zone).utcoffset()
    assert offset is not None
    return offset.total_seconds()
