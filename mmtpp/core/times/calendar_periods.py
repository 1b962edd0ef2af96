"""Periods of the calendar: the days, weeks, months or years that cover a range of dates."""

from datetime import datetime, timedelta

from mmtpp.core.times.calendar import find_zone

PERIODS = ("day", "week", "month", "year")


def period_starts(
    first_s: float, last_s: float, period: str, *, time_zone: str = "UTC"
) -> list[float]:
    """Starts of the periods that cover a range of dates, and the end of the last one.

    Args:
        first_s: First date, in seconds since 1970-01-01T00:00:00 UTC.
        last_s: Last date, in the same seconds, at or after the first.
        period: ``day``, ``week`` (from Monday), ``month`` or ``year``.
        time_zone: IANA name of the zone whose midnights begin the periods.

    Returns:
        Seconds since 1970-01-01T00:00:00 UTC, increasing: one more than there are periods.

    Raises:
        ValueError: There is no such zone, or a date is outside the years 1 to 9999.
    """
    zone = find_zone(time_zone)
    try:
        moment = datetime.fromtimestamp(first_s, zone).replace(
            hour=0, minute=0, second=0, microsecond=0
        )
        moment -= timedelta(days=_days_before(moment, period))
        starts = [moment.timestamp()]
        while starts[-1] <= last_s:
            moment = _next(moment, period)
            starts.append(moment.timestamp())
    except (OverflowError, OSError, ValueError) as error:
        raise ValueError("a date is outside the years 1 to 9999") from error
    return starts


def _days_before(moment: datetime, period: str) -> int:
    """Number of days between the start of a period and a day within it."""
    match period:
        case "day":
            return 0
        case "week":
            return moment.weekday()
        case "month":
            return moment.day - 1
        case _:
            return moment.timetuple().tm_yday - 1


def _next(moment: datetime, period: str) -> datetime:
    """Start of the next period, on the clock of the zone."""
    match period:
        case "day":
            return moment + timedelta(days=1)
        case "week":
            return moment + timedelta(days=7)
        case "month":
            return moment.replace(
                year=moment.year + moment.month // 12, month=moment.month % 12 + 1
            )
        case _:
            return moment.replace(year=moment.year + 1)
