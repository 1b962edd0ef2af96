"""Periods of the calendar, against dates by hand."""

from datetime import UTC, datetime

import pytest

from mmtpp.core.times.calendar_periods import period_starts


def _seconds(*dates: str) -> list[float]:
    return [datetime.fromisoformat(date).replace(tzinfo=UTC).timestamp() for date in dates]


@pytest.mark.parametrize(
    ("period", "starts"),
    [
        ("day", ["2023-12-30", "2023-12-31", "2024-01-01", "2024-01-02", "2024-01-03"]),
        ("week", ["2023-12-25", "2024-01-01", "2024-01-08"]),  # Mondays
        ("month", ["2023-12-01", "2024-01-01", "2024-02-01"]),
        ("year", ["2023-01-01", "2024-01-01", "2025-01-01"]),
    ],
)
def test_periods_cover_the_dates(period: str, starts: list[str]):
    first, last = _seconds("2023-12-30T13:00", "2024-01-02T00:00")
    assert period_starts(first, last, period) == _seconds(*starts)


def test_the_clock_of_the_zone_decides():
    # summer time begins on 31 March 2024 in Berlin: midnights are at 23:00 UTC, then at 22:00
    first, last = _seconds("2024-03-30T12:00", "2024-03-31T23:00")
    starts = period_starts(first, last, "day", time_zone="Europe/Berlin")
    expected = ["2024-03-29T23:00", "2024-03-30T23:00", "2024-03-31T22:00", "2024-04-01T22:00"]
    assert starts == _seconds(*expected)


def test_dates_outside_the_calendar_are_an_error():
    with pytest.raises(ValueError, match="outside the years"):
        period_starts(0.0, 1e13, "year")
    with pytest.raises(ValueError, match="no time zone"):
        period_starts(0.0, 1.0, "day", time_zone="Mars/Base")
