"""Durations and dates against values by hand and the standard library."""

import math
from datetime import UTC, datetime

import pytest

from mmtpp.core.times.durations import (
    TimeScale,
    axis_ticks,
    format_duration,
    format_number,
    format_running_time,
    typical_unit,
    unit_name,
)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (2.227e5, "2.58 days"),  # 222,700 / 86,400 = 2.5775
        (86400.0, "1 day"),
        (3600.0 * 5.5, "5.5 h"),
        (59.999, "1 min"),
        (59.9, "59.9 s"),
        (90.0, "1.5 min"),
        (0.00315, "3.15 ms"),
        (2e-6, "2 µs"),
        (0.0, "0 s"),
        (-7200.0, "-2 h"),
        (86400 * 365.25 * 31688, "31,688 years"),
        (math.inf, "∞"),
        (math.nan, ""),
    ],
)
def test_durations_are_in_the_unit_that_suits_them(seconds: float, words: str):
    assert format_duration(seconds) == words


def test_numbers_have_three_digits_and_no_exponent():
    shown = [
        format_number(value) for value in (222_700.4, 999.6, 1234.5, 12.0, 0.031249, -2.2941, 1e-7)
    ]
    assert shown == ["222,700", "1,000", "1,234", "12", "0.0312", "-2.29", "1e-07"]


def test_times_are_dates_where_the_source_has_dates():
    noon = datetime(2024, 2, 29, 12, 0, 5, tzinfo=UTC)
    for seconds_per_unit in (1.0, 60.0, 86400.0):
        times = TimeScale(seconds_per_unit, are_dates=True)
        assert times.moment(noon.timestamp() / seconds_per_unit) == "2024-02-29 12:00:05 UTC"
    seconds = TimeScale(1.0, are_dates=True)
    assert seconds.moment(0.0) == "1970-01-01 00:00:00 UTC"
    assert seconds.moment(-0.25) == "1969-12-31 23:59:59.750 UTC"
    assert seconds.moment(1e15) == "1e+15 s"  # beyond the year 9999
    minutes = TimeScale(60.0)
    assert minutes.moment(1234.5) == "1,234.5 min"
    assert minutes.wait(120.0) == "2 h"
    assert (minutes.unit, minutes.unit_in_full) == ("min", "minutes")
    assert unit_name(15.0) == "units of 15 s"


def test_ticks_are_round_and_few():
    assert [format_duration(place) for place in axis_ticks(3, 9e5)] == [
        "10 s",
        "1 min",
        "10 min",
        "1 h",
        "12 h",
        "1 day",
        "7 days",
    ]
    assert [format_duration(place) for place in axis_ticks(2, 50)] == ["2 s", "5 s", "10 s", "30 s"]
    assert axis_ticks(10.5, 11.5) == pytest.approx([11.0], rel=0.05)
    for high in (1e-3, 1.0, 1e5, 1e12):
        places = axis_ticks(1e-9, high, most=5)
        assert 1 <= len(places) <= 5
        assert all(1e-9 <= place <= high for place in places)


def test_a_column_has_the_unit_of_its_middle():
    assert typical_unit([10.0, 7200.0, math.inf, 9000.0, math.nan]).name == "h"
    assert typical_unit([]).name == "s"


@pytest.mark.parametrize(
    ("seconds", "words"), [(12.3, "12 s"), (192.0, "3 min 12 s"), (7300.0, "2 h 1 min")]
)
def test_running_times(seconds: float, words: str):
    assert format_running_time(seconds) == words
