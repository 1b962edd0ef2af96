"""Generators of events for property tests, and the token ids of an imaginary vocabulary."""

from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from mmtpp.core.events import NO_FRAME, Events
from mmtpp.core.representation.calendar_tokens import CALENDARS
from mmtpp.core.representation.template import (
    IMAGE_MODES,
    RUN_ENCODINGS,
    STYLES,
    TemplateSettings,
)
from mmtpp.core.representation.timecode import TIME_BYTES
from mmtpp.core.representation.tokens import TokenIds

IDS = TokenIds(
    byte_ids=tuple(range(1000, 1256)),
    type_ids=tuple(range(1000, 1256)),
    start_of_event=1,
    end_of_event=2,
    time_start=3,
    time_end=4,
    type_start=5,
    type_end=6,
    text_start=7,
    text_end=8,
    similar_event=9,
    time_prediction=13,
    type_prediction=14,
    vision_start=10,
    image_pad=11,
    vision_end=12,
    blank=(20,),
    line_break=(21,),
    prefix=(30, 31, 32),
    chat_prefix=(40, 41, 42, 43),
    chat_turn=(44, 45),
    end_of_text=46,
    weekdays=tuple((50 + day,) for day in range(7)),
    digits=tuple((60 + digit,) for digit in range(10)),
    colon=(70,),
)

intervals = st.lists(
    st.floats(min_value=0, max_value=1e9, allow_nan=False, width=32), min_size=1, max_size=40
).map(lambda values: np.array(values, dtype=np.float64))


@st.composite
def events(draw: st.DrawFn, min_size: int = 1, max_size: int = 30) -> Events:
    size = draw(st.integers(min_size, max_size))

    def column(strategy: st.SearchStrategy) -> list:
        return draw(st.lists(strategy, min_size=size, max_size=size))

    texts = column(st.lists(st.integers(100, 900), max_size=5))
    waits = column(st.floats(min_value=0, max_value=1e6, width=32))
    return Events(
        intervals=np.array(waits, dtype=np.float64),
        types=np.array(column(st.integers(0, 255)), dtype=np.int16),
        text_ids=np.array([token for text in texts for token in text], dtype=np.int32),
        text_offsets=np.cumsum([0, *map(len, texts)]).astype(np.int64),
        frames=np.array(column(st.integers(NO_FRAME, 3)), dtype=np.int32),
        similar=np.array([False, *column(st.booleans())[1:]], dtype=np.bool_),
        times=draw(st.floats(-1e9, 1e10)) + np.cumsum(waits),
    )


def plain_events(size: int, *, intervals: np.ndarray | None = None, **columns: object) -> Events:
    """Events of type 0 without text or image, changed in some columns."""
    events = Events(
        intervals=np.ones(size) if intervals is None else np.asarray(intervals, dtype=np.float64),
        types=np.zeros(size, np.int16),
        text_ids=np.zeros(0, np.int32),
        text_offsets=np.zeros(size + 1, np.int64),
        frames=np.full(size, NO_FRAME, np.int32),
        similar=np.zeros(size, np.bool_),
        times=np.arange(size, dtype=np.float64),
    )
    return replace(events, **columns)


TEMPLATES = st.builds(
    TemplateSettings,
    style=st.sampled_from(STYLES),
    images=st.sampled_from(IMAGE_MODES),
    image_tokens=st.just(4),
    time_bytes=st.sampled_from(TIME_BYTES),
    run_encoding=st.sampled_from(RUN_ENCODINGS),
    calendar=st.sampled_from(CALENDARS),
    time_zone=st.sampled_from(["UTC", "Asia/Kolkata"]),
)
"""Settings of templates of every style."""
