"""The calendar as numbers: sines and cosines of the time of day, week and year."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
from numpy.typing import NDArray

DAY_S, WEEK_S, YEAR_S = 86400.0, 7 * 86400.0, 365.2425 * 86400.0
_HARMONICS = {DAY_S: (1, 2, 3, 4, 6), WEEK_S: (1, 2, 3), YEAR_S: (1, 2)}
_OFFSET_STEP_S = 900  # time zones change their offset at whole quarters of an hour

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
        (E,) seconds since 1970-01-01T00:00:00 on the clock of the zone.

    Raises:
        ValueError: There is no such zone.
    """
    if time_zone == "UTC":
        return times_s
    zone = find_zone(time_zone)
    steps, place = np.unique(np.floor(times_s / _OFFSET_STEP_S), return_inverse=True)
    offsets = [_offset_s(step * _OFFSET_STEP_S, zone) for step in steps.tolist()]
    return times_s + np.array(offsets)[place]


def find_zone(name: str) -> ZoneInfo:
    """Find a time zone by its IANA name.

    Raises:
        ValueError: There is no such zone.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"no time zone is named {name!r}") from error


def _offset_s(time_s: float, zone: ZoneInfo) -> float:
    """Offset of a zone from UTC at a time, in seconds."""
    offset = datetime.fromtimestamp(time_s, UTC).astimezone(zone).utcoffset()
    assert offset is not None
    return offset.total_seconds()
