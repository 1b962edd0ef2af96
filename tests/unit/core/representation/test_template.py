"""Templates: layouts written by hand, and properties against an independent loop."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given

from mmtpp.core.events import Events
from mmtpp.core.representation.similar_runs import find_similar_runs
from mmtpp.core.representation.template import (
    Template,
    TemplateSettings,
)
from mmtpp.core.representation.timecode import decode_intervals, encode_intervals
from mmtpp.core.representation.tokens import Modality
from tests.unit.generators import IDS, TEMPLATES, events, plain_events
from tests.unit.token_parser import ParsedEvent, ParsedRun, parse_tokens

# 1.5 is 0x3FC00000: bytes 63 192 0 0; 3.25 is 0x40500000: 64 80 0 0
EVENTS = Events(
    intervals=np.array([0.0, 1.5, 1.5]),
    types=np.array([4, 7, 7], dtype=np.int16),
    text_ids=np.array([101, 102, 103], dtype=np.int32),
    text_offsets=np.array([0, 2, 3, 3]),
    frames=np.array([0, 0, 1], dtype=np.int32),
    similar=np.array([False, False, True]),
)


def _template(style: str, images: str, **more: object) -> Template:
    values = {"image_tokens": 4, **more}
    return Template(IDS, TemplateSettings(style=style, images=images, **values))


def test_paper_layout_token_for_token():
    template = _template("paper", "per_event")
    tokens = template.write(EVENTS)
    first = [1, 20, 3, 1000, 1000, 1000, 1000, 4, 20, 5, 1004, 6, 20, 7, 101, 102, 8]
    second = [1, 20, 3, 1063, 1192, 1000, 1000, 4, 20, 5, 1007, 6, 20, 7, 103, 8]
    image = [20, 10, 11, 11, 11, 11, 12]
    end = [20, 2, 21]
    assert tokens.ids.tolist() == [30, 31, 32, *first, *image, *end, *second, *image, *end, 9, 21]
    assert tokens.frames.tolist() == [0, 0]


def test_compact_layout_opens_fields_and_shows_an_image_once():
    template = _template("compact", "on_change")
    tokens = template.write(EVENTS)
    first = [3, 1000, 1000, 1000, 1000, 5, 1004, 7, 101, 102, 8]
    second = [3, 1063, 1192, 1000, 1000, 5, 1007, 7, 103, 8]
    assert tokens.ids.tolist() == [*first, 10, 11, 11, 11, 11, 12, *second, 9]
    assert tokens.frames.tolist() == [0]


def test_minimal_layout_and_its_modalities():
    template = _template("minimal", "on_change", image_tokens=1)
    tokens = template.write(EVENTS)
    first = [1000, 1000, 1000, 1000, 1004, 101, 102, 8, 10, 11, 12]
    second = [1063, 1192, 1000, 1000, 1007, 103, 8]
    assert tokens.ids.tolist() == [*first, *second, 9]
    expected = [1, 1, 1, 1, 2, 3, 3, 4, 4, 0, 4, 1, 1, 1, 1, 2, 3, 4, 4]
    assert tokens.modality.tolist() == expected
    assert tokens.event.tolist() == [0] * 11 + [1] * 7 + [2]


def test_two_byte_times_and_a_run_in_minimal_and_dense():
    three = replace(
        EVENTS,
        intervals=np.array([0.0, 1.5, 1.75]),
        similar=np.array([False, True, True]),
    )
    template = _template("minimal", "none", time_bytes=2, run_encoding="run_length")
    # the run: two events, 3.25 in all
    expected = [1000, 1000, 1004, 101, 102, 8, 9, 1002, 1064, 1080]
    tokens = template.write(three)
    assert tokens.ids.tolist() == expected
    assert tokens.modality.tolist() == [1, 1, 2, 3, 3, 4, 4, 4, 1, 1]
    assert tokens.event.tolist() == [0] * 6 + [2] * 4
    dense = _template("dense", "none", time_bytes=2)
    assert dense.write(three).ids.tolist() == [1000, 1000, 1004, 101, 102, 9, 9]


@given(TEMPLATES, events())
def test_costs_and_tokens_agree_with_a_plain_loop(chosen: TemplateSettings, given_events: Events):
    template = Template(IDS, chosen)
    tokens = template.write(given_events)
    expected, frames = _plain(given_events, chosen)
    assert tokens.ids.tolist() == expected
    assert tokens.frames.tolist() == frames
    assert len(tokens.ids) == len(template.prefix) + template.costs(given_events).sum()
    assert (tokens.ids == IDS.image_pad).sum() == 4 * len(frames)
    assert (np.diff(tokens.event) >= 0).all()
    is_calendar = np.isin(tokens.ids, range(50, 71))
    masked = is_calendar | (tokens.ids == IDS.image_pad) | (tokens.event == -1)
    is_blank = tokens.ids == 20  # a control token, or a part of the calendar in ``paper``
    assert ((tokens.modality == Modality.MASKED) == masked)[~is_blank].all()


def _plain(window: Events, chosen: TemplateSettings) -> tuple[list[int], list[int]]:
    """The same layout, one token after another."""
    paper, compact = chosen.style == "paper", chosen.style == "compact"
    out = [30, 31, 32] if paper else []
    blank = [20] if paper else []
    frames: list[int] = []

    def time(interval: float) -> list[int]:
        code = encode_intervals(np.array([interval]), num_bytes=chosen.time_bytes)
        return [1000 + byte for byte in code[0].tolist()]

    i = 0
    while i < len(window):
        if window.similar[i]:
            count = 1
            if chosen.run_encoding == "run_length":
                while count < 255 and i + count < len(window) and window.similar[i + count]:
                    count += 1
                span = math.fsum(window.intervals[i : i + count].tolist())
                out += [9, 1000 + count, *time(span)]
            else:
                out += [9]
            out += [21] if paper else []
            i += count
            continue
        text = window.text_ids[window.text_offsets[i] : window.text_offsets[i + 1]].tolist()
        kind = [1000 + int(window.types[i])]
        assert window.times is not None
        day = _calendar(window.times[i], chosen)
        if paper:
            out += [1, 20, 3, *time(window.intervals[i]), *day, 4, 20, 5, *kind, 6, 20, 7, *text, 8]
        elif compact:
            out += [3, *time(window.intervals[i]), *day, 5, *kind, 7, *text, 8]
        else:
            out += [*time(window.intervals[i]), *day, *kind, *text]
            out += [8] if chosen.style == "minimal" else []
        frame = int(window.frames[i])
        changed = not frames or frames[-1] != frame
        wanted = chosen.images == "per_event" or (chosen.images == "on_change" and changed)
        if frame != -1 and wanted:
            out += [*blank, 10, 11, 11, 11, 11, 12]
            frames.append(frame)
        out += [20, 2, 21] if paper else []
        i += 1
    return out, frames


def _calendar(time: float, chosen: TemplateSettings) -> list[int]:
    """The calendar of a time, with the clock of Python."""
    if chosen.calendar == "none":
        return []
    zone = ZoneInfo(chosen.time_zone)
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=round(float(time), 3) * 1000)
    moment = moment.astimezone(zone)
    hour, minute = ([60 + int(digit) for digit in moment.strftime(part)] for part in ("%H", "%M"))
    blank = [20] if chosen.style == "paper" else []
    day = [*blank, 50 + moment.weekday(), *blank, *hour]
    return day if chosen.calendar == "hour" else [*day, 70, *minute]


@given(TEMPLATES, events())
def test_parsing_inverts_writing(chosen: TemplateSettings, given_events: Events):
    """Intervals have the precision of the code; other values, counts and spans are exact."""
    template = Template(IDS, chosen)
    items = parse_tokens(template.write(given_events).ids, template)
    counts = [1 if isinstance(item, ParsedEvent) else item.count for item in items]
    assert sum(counts) == len(given_events)
    shown, place = template.shows_image(given_events), 0
    offsets = given_events.text_offsets
    for item in items:
        if isinstance(item, ParsedRun):
            run = slice(place, place + item.count)
            assert given_events.similar[run].all()
            if chosen.run_encoding == "run_length":
                span = math.fsum(given_events.intervals[run].tolist())
                assert item.span == _coded(span, chosen.time_bytes)
            place += item.count
            continue
        assert not given_events.similar[place]
        assert item.interval == _coded(given_events.intervals[place], chosen.time_bytes)
        assert item.type == given_events.types[place]
        text = given_events.text_ids[offsets[place] : offsets[place + 1]]
        assert item.text_ids == tuple(text.tolist())
        assert item.has_image == shown[place]
        place += 1


def _coded(value: float, num_bytes: int) -> float:
    code = encode_intervals(np.array([value]), num_bytes=num_bytes)
    return float(decode_intervals(code)[0])


def test_a_long_run_is_written_as_several_with_exact_count_and_span():
    size = 1000
    long = replace(
        plain_events(size, intervals=np.full(size, 0.5)),
        similar=np.arange(size) > 0,
    )
    template = _template("minimal", "none", time_bytes=4, run_encoding="run_length")
    first, *runs = parse_tokens(template.write(long).ids, template)
    assert isinstance(first, ParsedEvent)
    assert [(run.count, run.span) for run in runs] == [(255, 127.5)] * 3 + [(234, 117.0)]  # pyright: ignore[reportAttributeAccessIssue]


@given(events(max_size=60))
def test_runs_cover_the_similar_events_once(given_events: Events):
    runs = find_similar_runs(given_events)
    covered = [i for a, b in zip(runs.first, runs.last, strict=True) for i in range(a, b + 1)]
    assert covered == np.flatnonzero(given_events.similar).tolist()
    # no two runs touch, unless the first is full
    touching = runs.first[1:] == runs.last[:-1] + 1
    assert (runs.count[:-1][touching] == 255).all()


@pytest.mark.parametrize(
    ("ids", "problem"),
    [
        ([1000, 1000], "token 2: a type expected, found the end"),
        ([1000, 1000, 1004, 101], "token 4: token 8 expected"),
        ([101], "token 0: a byte expected"),
        ([9], "a count expected"),
        ([9, 1000, 1000, 1000], "a count above 0 expected"),
        ([1255, 1000, 1004, 8], "an interval expected before, not -1.7"),
        ([1000, 1000, 1004, 8, 10, 11, 12], "token 6: token 11 expected, found token 12"),
    ],
)
def test_an_error_of_the_parser_names_the_token(ids: list[int], problem: str):
    template = _template("minimal", "per_event", time_bytes=2, run_encoding="run_length")
    with pytest.raises(ValueError, match=problem):
        parse_tokens(np.array(ids), template)


def test_a_type_without_token_is_refused():
    template = Template(
        replace(IDS, type_ids=tuple(range(2000, 2009))),
        TemplateSettings(style="paper", images="none", image_tokens=4),
    )
    assert 2004 in template.write(EVENTS.slice(0, 1)).ids
    with pytest.raises(ValueError, match="type 9: the vocabulary has 9 types"):
        template.write(plain_events(1, types=np.array([9], np.int16)))


@pytest.mark.parametrize(
    "bad",
    [
        {"style": "neat"},
        {"images": "sometimes"},
        {"time_bytes": 1},
        {"run_encoding": "zip"},
        {"calendar": "moon"},
    ],
)
def test_unknown_names_are_refused(bad: dict):
    with pytest.raises(ValueError, match="unknown"):
        TemplateSettings(**{"style": "paper", "images": "none", "image_tokens": 4, **bad})
