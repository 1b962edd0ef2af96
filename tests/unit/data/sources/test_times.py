"""Times as files write them. Expected values come from Python's datetime, or are hand-written."""

import math
from datetime import UTC, date, datetime, time, timedelta
from email.utils import format_datetime
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmtpp.core.errors import ConfigError
from mmtpp.core.times.time_format import TimeFormat
from mmtpp.data.sources.reader import InvalidValue
from mmtpp.data.sources.times import read_times

MOMENT = datetime(2024, 3, 30, 22, 7, 5, tzinfo=UTC)
SECONDS = MOMENT.timestamp()


def _read(*values: object, **form: object) -> list[float | str]:
    """Each time, or the cause why it is invalid."""
    times = read_times(values, TimeFormat(**form)).values  # type: ignore[arg-type]
    return [time.cause if isinstance(time, InvalidValue) else time for time in times]


@pytest.mark.parametrize(
    "text",
    [
        "2024-03-30T22:07:05Z",
        "2024-03-30 22:07:05",
        "2024-03-30 22:07:05 UTC",
        "2024-03-30 22:07:05 GMT",
        "2024-03-30T23:07:05+01:00",
        "2024-03-30 17:07:05 -0500",
        "2024-03-30 23:07:05 Europe/Berlin",
        "2024/03/30 22:07:05",
        "2024.03.30 22:07:05",
        "2024_03_30 22:07:05",
        "20240330T220705Z",
        "30.03.2024 22:07:05",
        "30/Mar/2024:22:07:05 +0000",
        "[30/Mar/2024:22:07:05 +0000]",
        "30-Mar-2024 22:07:05",
        "03/30/2024 22:07:05",
        "30/03/2024 22:07:05",
        "03/30/2024 10:07:05 PM",
        "Mar 30, 2024 10:07:05 pm",
        "30 March 2024 22:07:05",
        format_datetime(MOMENT),
        MOMENT.ctime(),
        MOMENT.strftime("%a %b %d %H:%M:%S UTC %Y"),
    ],
)
def test_the_usual_forms_of_logs(text: str):
    assert _read(text) == [SECONDS]
    assert read_times([text], TimeFormat()).are_dates


@given(
    st.datetimes(datetime(1800, 1, 1), datetime(2199, 12, 31)),
    st.sampled_from(["Europe/Berlin", "America/New_York", "Asia/Kolkata", "UTC"]),
)
def test_local_times_are_those_of_zoneinfo_or_refused(naive: datetime, name: str):
    text = naive.isoformat(sep=" ")
    zone = ZoneInfo(name)
    offsets = {naive.replace(tzinfo=zone, fold=fold).utcoffset() for fold in (0, 1)}
    [seconds] = _read(text, time_zone=name)
    if len(offsets) > 1:  # clocks change: it occurs twice, or never
        assert seconds == "ambiguous_time"
    else:
        expected = naive.replace(tzinfo=zone).timestamp()
        assert seconds == pytest.approx(expected, abs=1e-6 + 4e-16 * abs(expected))


def test_an_hour_that_occurs_twice_or_never_is_refused():
    berlin = {"time_zone": "Europe/Berlin"}
    assert _read("2024-10-27 02:30:00", **berlin) == ["ambiguous_time"]
    assert _read("2024-03-31 02:30:00", **berlin) == ["ambiguous_time"]
    assert [datetime(2024, 10, 27, 0, 30, tzinfo=UTC).timestamp()] == _read(
        "2024-10-27 02:30:00 +02:00", **berlin
    )


def test_times_before_1970_and_negative_ones_are_times():
    assert [
        *_read("1969-12-31"),
        *_read("-0.5"),
        *_read("1900-03-01T10:00:00.000Z"),
    ] == [-86400.0, -0.5, -2203855200.0]


def test_fractions_are_kept_to_the_microsecond():
    seconds = _read("2024-03-30T22:07:05.123456789Z", "2024-03-30 22:07:05,25")
    assert seconds == [SECONDS + 0.123456789, SECONDS + 0.25]


def test_dates_of_python_numpy_and_pandas():
    naive = MOMENT.replace(tzinfo=None)
    assert _read(MOMENT, naive, pd.Timestamp(MOMENT), pd.Timestamp(naive)) == [SECONDS] * 4
    assert _read(date(1970, 1, 2)) == [86400.0]
    assert _read(timedelta(seconds=90)) == [90.0]
    assert _read(pd.NaT) == ["missing_time"]
    assert _read(datetime(1970, 1, 1, 1), time_zone="Africa/Cairo") == [3600.0 - 7200.0]


def test_other_dates_of_the_file_decide_between_day_and_month():
    assert [
        datetime(2024, 2, 1, tzinfo=UTC).timestamp(),
        datetime(2024, 2, 13, tzinfo=UTC).timestamp(),
    ] == _read("01/02/2024", "13/02/2024")
    assert datetime(2024, 1, 2, tzinfo=UTC).timestamp() == _read("01/02/2024", "02/13/2024")[0]
    assert _read("01/02/2024", "03/04/2024") == ["ambiguous_time"] * 2
    # a file with both orders shows neither
    assert _read("13/02/2024", "02/13/2024") == ["ambiguous_time"] * 2


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ([20240131, 20240201], "%Y%m%d"),
        (["20240131", "0"] + ["20240201"] * 3, "%Y%m%d"),  # a placeholder does not hide it
        ([20240131.0], "%Y%m%d"),
        ([20240131123000], "%Y%m%d%H%M%S"),
        (["202401311230"], "%Y%m%d%H%M"),
        (["2024013112"], "%Y%m%d%H"),
        ([1711836000000], "epoch_ms"),
        ([1711836000000000], "epoch_us"),
        ([1711836000000000000], "epoch_ns"),
    ],
)
def test_numbers_that_look_like_dates_are_refused_with_the_setting(values: list, name: str):
    times = read_times(values, TimeFormat()).values
    assert {time.cause for time in times if isinstance(time, InvalidValue)} == {"ambiguous_time"}
    assert not [time for time in times if isinstance(time, float)]
    assert f'source.columns.time_format = "{name}"' in times[0].detail  # type: ignore[union-attr]
    assert _read(*values, name="number") == [float(value) for value in values]


def test_seconds_since_1970_in_a_file_that_should_have_minutes_are_refused():
    assert _read(1711836000, seconds_per_unit=60.0) == ["ambiguous_time"]
    assert _read(1711836000) == [1711836000.0]
    # milliseconds are a unit
    assert _read(1711836000000, seconds_per_unit=1e-3) == [1711836000000.0]


def test_times_of_day_written_as_numbers_are_refused():
    clock = [
        f"{second // 3600:02d}{second // 60 % 60:02d}{second % 60:02d}"
        for second in range(0, 86400, 1000)
    ]
    assert set(_read(*clock)) == {"ambiguous_time"}
    # without their zeros, as numbers lose them
    assert set(_read(*map(int, clock))) == {"ambiguous_time"}
    assert set(_read(*(text.lstrip("0") or "0" for text in clock))) == {"ambiguous_time"}
    counters = [str(100_000 + 7 * step) for step in range(100)]
    assert _read(*counters) == [float(value) for value in counters]


def test_formats():
    assert _read("20240131", name="%Y%m%d") == [86400.0 * 19753]
    assert _read(20240131.0, name="%Y%m%d") == [86400.0 * 19753]
    assert _read("2024-03-30-22.07.05.000000", "30.3.", name="%Y-%m-%d-%H.%M.%S.%f") == [
        SECONDS,
        "unreadable_time",
    ]
    # an integer that lost its zero must not become another date
    assert _read("81109 203615", name="%y%m%d %H%M%S") == ["unreadable_time"]
    assert [datetime(2008, 11, 9, 20, 36, 15, tzinfo=UTC).timestamp()] == _read(
        "081109 203615", name="%y%m%d %H%M%S"
    )
    assert _read("00:01:23,5", "1:02:03", "-1:00", "1:75", name="duration") == [
        83.5,
        3723.0,
        -60.0,
        "unreadable_time",
    ]
    assert _read(1500, name="epoch_ms") == [1.5]
    assert _read("1500", name="epoch_ms", seconds_per_unit=60.0) == [1.5 / 60]
    assert _read("20240131", "2024-01-31", name="number") == [20240131.0, "unreadable_time"]
    assert _read(time(0, 1, 30), name="duration") == [90.0]


def test_dates_without_a_year_follow_the_first():
    lines = ["Dec 31 23:59:59", "Jan  1 00:00:01", "Dec 31 23:59:59", "Feb 29 12:00:00"]
    seconds = _read(*lines, name="%b %d %H:%M:%S", year=2023)
    expected = [
        datetime(2023, 12, 31, 23, 59, 59, tzinfo=UTC),
        datetime(2024, 1, 1, 0, 0, 1, tzinfo=UTC),
        datetime(2023, 12, 31, 23, 59, 59, tzinfo=UTC),
        datetime(2024, 2, 29, 12, tzinfo=UTC),
    ]
    assert seconds == [moment.timestamp() for moment in expected]
    assert _read("Mar 30 22:00:00") == ["ambiguous_time"]


@pytest.mark.parametrize(
    ("form", "problem"),
    [
        ({"name": "soon"}, "neither one of"),
        ({"name": "%H:%M"}, "source.columns.date"),
        ({"name": "%b %d"}, "source.columns.year"),
        ({"time_zone": "Mars/Olympus"}, "not an IANA time zone"),
        ({"time_zone": "../etc/passwd"}, "not an IANA time zone"),
    ],
)
def test_a_format_that_cannot_be_is_refused(form: dict, problem: str):
    with pytest.raises(ConfigError, match=problem):
        TimeFormat(**form)


def test_missing_and_unreadable_times_are_different_causes():
    values = [None, "", "  ", math.nan, "nan", "soon", True, [1], {}, "12:30", "1_000"]
    assert _read(*values) == ["missing_time"] * 5 + ["unreadable_time"] * 6
    assert "ISO 8601" in read_times(["soon"], TimeFormat()).values[0].detail  # type: ignore[union-attr]


def test_a_date_among_numbers_and_a_number_among_dates():
    assert _read(1, 2, "2024-01-31") == [1.0, 2.0, "ambiguous_time"]
    assert _read(7, "1970-01-02", "1970-01-03") == ["ambiguous_time", 86400.0, 2 * 86400.0]


def test_decimal_commas():
    assert _read("0,5", "1,25", "3") == [0.5, 1.25, 3.0]
    assert _read("1,234", "2,345") == ["ambiguous_time"] * 2
    assert _read("0,123", "1,234") == [0.123, 1.234]  # no thousands begin with 0


@given(st.lists(st.floats(-1e6, 1e6, allow_nan=False), min_size=1, max_size=30))
def test_numbers_are_read_to_the_last_bit(values: list[float]):
    assert values == _read(*values) == _read(*map(repr, values))
    assert _read(*np.array(values).tolist()) == values
