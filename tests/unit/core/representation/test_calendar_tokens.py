"""The calendar in templates: layouts by hand, time zones, dates of any year, and no leak."""

from dataclasses import replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmtpp.core.events import Events
from mmtpp.core.representation.branches import lay_out_branches
from mmtpp.core.representation.template import STYLES, Template, TemplateSettings
from mmtpp.core.representation.tokens import Modality
from mmtpp.core.times.calendar import WEEKDAYS, local_times, minutes_of_week
from mmtpp.model.tokens.vocabulary import Vocabulary, train_tokenizer
from tests.helpers.qwen_vocabulary import qwen_vocabulary
from tests.unit.generators import IDS, events

# 2024-01-02 was a Tuesday
TUESDAY = datetime(2024, 1, 2, 8, 15, tzinfo=UTC).timestamp()
# 1.5 is 0x3FC00000: bytes 63 192 0 0
EVENTS = Events(
    intervals=np.array([0.0, 1.5, 1.5]),
    types=np.array([4, 7, 7], dtype=np.int16),
    text_ids=np.array([101, 102, 103], dtype=np.int32),
    text_offsets=np.array([0, 2, 3, 3]),
    frames=np.array([0, 0, 1], dtype=np.int32),
    similar=np.array([False, False, True]),
    times=TUESDAY / 3600 + np.array([0.0, 1.5, 3.0]),
)


def _template(style: str, calendar: str, **more: object) -> Template:
    values = {"image_tokens": 4, "seconds_per_unit": 3600.0, **more}
    return Template(IDS, TemplateSettings(style, "none", calendar=calendar, **values))


def test_dense_layout_with_minutes_token_for_token():
    """Tue08:15 and Tue09:45; a similar event has no calendar."""
    template = _template("dense", "minute", time_bytes=2)
    tokens = template.write(EVENTS)
    first = [1000, 1000, 51, 60, 68, 70, 61, 65, 1004, 101, 102]
    second = [1063, 1192, 51, 60, 69, 70, 64, 65, 1007, 103]
    assert tokens.ids.tolist() == [*first, *second, 9]
    time, calendar = [Modality.TIME] * 2, [Modality.MASKED] * 6
    type_and_text = [Modality.TYPE, Modality.TEXT]
    assert tokens.modality.tolist() == [
        *(*time, *calendar, *type_and_text, Modality.TEXT),
        *(*time, *calendar, *type_and_text, Modality.CONTROL),
    ]
    assert tokens.event.tolist() == [0] * 11 + [1] * 10 + [2]
    assert template.costs(EVENTS).tolist() == [11, 10, 1]


def test_paper_layout_with_hours_token_for_token():
    """`` Tue 13`` in the time zone of Kolkata, 5:30 before UTC."""
    template = _template("paper", "hour", time_zone="Asia/Kolkata")
    tokens = template.write(EVENTS.slice(0, 1))
    time = [1, 20, 3, 1000, 1000, 1000, 1000, 20, 51, 20, 61, 63, 4]
    type_and_text = [20, 5, 1004, 6, 20, 7, 101, 102, 8, 20, 2, 21]
    assert tokens.ids.tolist() == [30, 31, 32, *time, *type_and_text]


def test_runs_have_no_calendar():
    template = _template("minimal", "hour", time_bytes=2, run_encoding="run_length")
    run = replace(EVENTS, similar=np.array([False, True, True]))
    # the run: two events, 3.0 in all
    expected = [1000, 1000, 51, 60, 68, 1004, 101, 102, 8, 9, 1002, 1064, 1064]
    assert template.write(run).ids.tolist() == expected


def test_events_without_times_are_refused():
    with pytest.raises(ValueError, match="needs the times"):
        _template("dense", "hour").write(replace(EVENTS, times=None))


def _texts(vocabulary: Vocabulary, times_s: np.ndarray, **settings: object) -> list[str]:
    """The calendar of events, as text."""
    values = {"style": "dense", "images": "none", "image_tokens": 4, **settings}
    template = Template(vocabulary.token_ids(), TemplateSettings(**values))
    size = len(times_s)
    given_events = Events(
        intervals=np.zeros(size),
        types=np.zeros(size, np.int16),
        text_ids=np.zeros(0, np.int32),
        text_offsets=np.zeros(size + 1, np.int64),
        frames=np.full(size, -1, np.int32),
        similar=np.zeros(size, np.bool_),
        times=times_s,
    )
    tokens = template.write(given_events)
    return [
        vocabulary.decode_text(
            tokens.ids[(tokens.event == event) & (tokens.modality == Modality.MASKED)].tolist()
        )
        for event in range(size)
    ]


def _seconds(*moments: str) -> np.ndarray:
    return np.array([datetime.fromisoformat(moment + "+00:00").timestamp() for moment in moments])


def test_the_clock_goes_forward_and_back():
    """Europe/Berlin, 2024: from 2 to 3 o'clock on 31 March, from 3 to 2 on 27 October."""
    times = _seconds("2024-03-31T00:59", "2024-03-31T01:00", "2024-10-27T00:59", "2024-10-27T01:00")
    texts = _texts(qwen_vocabulary(), times, calendar="minute", time_zone="Europe/Berlin")
    assert texts == ["Sun01:59", "Sun03:00", "Sun02:59", "Sun02:00"]


def test_dates_of_any_year_have_a_calendar():
    """1969, 1900, 2300, beyond the nanoseconds of 64 bits, and years that datetime does not know.

    400 years are a whole number of weeks.
    """
    day = 86400.0
    years = 400 * 365.2425 * day
    times = _seconds("1969-12-31T23:30", "1900-01-01T12:00", "2300-07-04T00:00")
    times = np.append(times, [times[0] + 30 * years, times[0] - 30 * years, 1e300, -1e300])
    texts = _texts(qwen_vocabulary(), times, calendar="minute", time_zone="UTC")
    assert texts[:5] == ["Wed23:30", "Mon12:00", "Wed00:00", "Wed23:30", "Wed23:30"]
    minutes = minutes_of_week(times, "Europe/Berlin")
    assert ((minutes >= 0) & (minutes < 7 * 1440)).all()
    assert WEEKDAYS[minutes[1] // 1440] == "Mon"


@given(st.integers(-(10**7), 10**7), st.sampled_from([60.0, 3600.0, 86400.0, 0.001]))
def test_the_unit_of_times_does_not_change_the_minute(minute: int, seconds_per_unit: float):
    times = np.array([minute * 60.0]) / seconds_per_unit
    [actual] = minutes_of_week(times * seconds_per_unit, "UTC")
    assert actual == (minute + 3 * 1440) % (7 * 1440)


def test_offsets_are_the_same_for_one_time_and_for_many():
    times = np.arange(0.0, 4e7, 1e5) + 1.7e9
    apart = [local_times(times[index : index + 1], "America/New_York") for index in range(400)]
    assert local_times(times, "America/New_York").tolist() == np.concatenate(apart).tolist()


def test_every_time_takes_the_same_number_of_tokens_in_a_vocabulary_that_merges_some_days():
    """``Sun`` is a token of its own here, ``Mon`` is not, so the days are written by letters."""
    tokenizer = train_tokenizer(["Sun Sun Sun Sun 00 00 00"] * 50, size=262)
    vocabulary = Vocabulary(tokenizer)
    assert [len(ids) for ids in vocabulary.encode_texts(["Sun", "Mon"])] == [1, 3]
    ids = vocabulary.token_ids()
    assert {len(day) for day in ids.weekdays} == {3}
    assert [vocabulary.decode_text(day) for day in ids.weekdays] == [*WEEKDAYS]
    times = _seconds("2024-01-01T00:00", "2024-01-07T23:59")
    assert _texts(vocabulary, times, calendar="minute") == ["Mon00:00", "Sun23:59"]


def test_the_number_of_tokens_with_the_tokenizer_of_qwen():
    """One for the day, one for each digit and one for the colon."""
    ids = qwen_vocabulary().token_ids()
    sizes = {
        (style, calendar): Template(
            ids, TemplateSettings(style, "none", 4, calendar=calendar)
        ).calendar_cost
        for style in STYLES
        for calendar in ("none", "hour", "minute")
    }
    assert sizes["dense", "none"] == sizes["paper", "none"] == 0
    assert sizes["dense", "hour"] == sizes["minimal", "hour"] == sizes["compact", "hour"] == 3
    assert sizes["dense", "minute"] == 6
    assert (sizes["paper", "hour"], sizes["paper", "minute"]) == (5, 8)


def test_the_calendar_is_text_and_never_a_control_token():
    vocabulary = qwen_vocabulary()
    ids = vocabulary.token_ids()
    written = {token for piece in (*ids.weekdays, *ids.digits, ids.colon) for token in piece}
    assert max(written) < vocabulary.num_text_tokens
    assert not written & {*vocabulary.added_ids}


@given(
    st.sampled_from(STYLES),
    st.sampled_from(["hour", "minute"]),
    events(min_size=3),
    st.data(),
)
def test_nothing_but_the_answers_depends_on_the_event_that_is_asked_about(
    style: str, calendar: str, given_events: Events, data: st.DataObject
):
    template = _template(style, calendar)
    target = data.draw(st.integers(1, len(given_events) - 1))
    assert given_events.times is not None
    times, intervals = given_events.times.copy(), given_events.intervals.copy()
    times[target:] += 12_345.0
    intervals[target] += 12_345.0
    other = replace(given_events, times=times, intervals=intervals)
    actual, expected = (
        lay_out_branches(template, part, [target], tasks=["time", "type", "joint", "text"])
        for part in (other, given_events)
    )
    no_answer = ~expected.is_answer
    assert actual.is_answer.tolist() == expected.is_answer.tolist()
    assert actual.tokens.ids[no_answer].tolist() == expected.tokens.ids[no_answer].tolist()
    # and in a row without questions, nothing before the time code of the event
    actual, expected = (template.write(part) for part in (other, given_events))
    before = expected.event < target
    if not given_events.similar[target]:
        codes = (expected.event == target) & (expected.modality == Modality.TIME)
        before = np.arange(len(before)) < np.flatnonzero(codes)[0]
    assert actual.ids[before].tolist() == expected.ids[before].tolist()


@pytest.mark.parametrize(
    ("name", "year", "month", "day"),
    [
        ("America/St_Johns", 2011, 3, 13),  # changes a minute after midnight
        ("America/Moncton", 2006, 4, 2),
        ("Asia/Gaza", 2011, 4, 1),
        ("Africa/Monrovia", 1972, 1, 7),  # from 44 minutes and 30 seconds
        ("Europe/Berlin", 2024, 3, 31),
    ],
)
def test_local_times_are_right_at_every_second_around_a_change(
    name: str, year: int, month: int, day: int
):
    noon = datetime(year, month, day, 12, tzinfo=UTC).timestamp()
    times = noon + np.arange(-15 * 3600, 3 * 3600, 7.0) + 0.5
    clocks = [datetime.fromtimestamp(time, ZoneInfo(name)) for time in times.tolist()]
    expected = [clock.replace(tzinfo=UTC).timestamp() for clock in clocks]
    offsets = set(np.round(np.array(expected) - times))
    assert len(offsets) == 2, "the zone changes on this day"
    assert local_times(times, name).tolist() == expected
