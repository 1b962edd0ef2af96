"""The windows of one stored sequence, with texts and questions that fit the context."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmtpp.core.errors import DataError
from mmtpp.core.events import Events
from mmtpp.core.representation.compression import compress
from mmtpp.core.representation.cutting import cut_sequence, with_targets_from
from mmtpp.core.representation.template import Template
from mmtpp.core.representation.text_truncation import cut_with_truncation, truncate_texts
from mmtpp.core.representation.window import EventTooLongError, TimeRange, Window
from mmtpp.data.samples.event_span import usable_events
from mmtpp.data.samples.fitted_windows import FittedWindow, fit_questions
from mmtpp.data.samples.long_texts import LongTexts, find_long_texts
from mmtpp.data.samples.plan import WINDOW_SCHEMA
from mmtpp.data.samples.sample_settings import SampleSettings
from mmtpp.data.store.stored_sequence import StoredSequence

PLAN_SCHEMA = pa.schema(
    [
        ("problem", pa.string()),
        # texts of a sequence that do not fit, LongTexts.as_json; in a row that is no window
        ("long_texts", pa.string()),
        *WINDOW_SCHEMA,
        ("num_events", pa.int32()),
        ("num_similar", pa.int32()),
    ]
)


@dataclass(frozen=True, slots=True)
class _UsableEvents:
    """The events of a sequence that a split may use.

    Attributes:
        sequence: The stored sequence.
        events: Its events from ``first`` on, with their similar marks.
        times: (E,) times of ``events`` in the source's unit.
        first: Position of ``events[0]`` in the sequence.
        first_target: Index in ``events`` of the first event of the split; earlier events are past.
        first_new: Index in ``events`` of the first new event; 0 where all events may be targets.
    """

    sequence: StoredSequence
    events: Events
    times: NDArray[np.float64]
    first: int
    first_target: int
    first_new: int


def sequence_windows(
    sequence: StoredSequence, settings: SampleSettings, template: Template
) -> dict[str, list]:
    """Windows of a sequence as columns of ``PLAN_SCHEMA``.

    Raises:
        DataError: An event is larger than the context, and may not be cut or has no text.
    """
    usable = _usable(sequence, settings)
    try:
        windows, long_texts = _cut_and_truncate(usable, settings, template)
    except EventTooLongError as error:
        raise DataError(
            f"sequence {sequence.sequence_id!r}: event {usable.first + error.event + 1} takes "
            f"{error.tokens} tokens, more than {error.budget}",
            where=f"{settings.store.data_uri}, {sequence.address.file}",
            cause="a single event does not fit the context"
            + ("" if settings.long_events == "fail" else ", even without its text"),
            setting=f"window.max_tokens = {settings.max_tokens}{_share_of_older(settings)}, "
            f"template.max_text_tokens = {settings.max_text_tokens}, "
            f"window.long_events = {settings.long_events}",
        ) from error
    columns = _columns(usable, windows)
    if long_texts:
        note = {"long_texts": long_texts.as_json(), "sequence_id": sequence.sequence_id, "start": 0}
        columns = {name: [*values, note.get(name)] for name, values in columns.items()}
    return columns


def _share_of_older(settings: SampleSettings) -> str:
    """Names the setting that takes a part of the context, if it does."""
    if not settings.older_tokens:
        return ""
    return f", of which older events take {settings.older_tokens} (compression.older_fraction)"


def _usable(sequence: StoredSequence, settings: SampleSettings) -> _UsableEvents:
    span = usable_events(sequence, settings.split, settings.time_range)
    compression = settings.compression.for_sequence(sequence.sequence_id)
    times = sequence.times[span.first : span.end]
    new = settings.new_targets
    return _UsableEvents(
        sequence,
        events=compress(sequence.events.slice(span.first, span.end), compression),
        times=times,
        first=span.first,
        first_target=span.first_target - span.first,
        first_new=0 if new is None else TimeRange(new.start).event_range(times)[0],
    )


def _columns(usable: _UsableEvents, fitted: list[FittedWindow]) -> dict[str, list]:
    """Windows as columns of ``PLAN_SCHEMA``."""
    sequence, first = usable.sequence, usable.first
    windows = [window.window for window in fitted]
    marks = [_marks(usable.events, window) for window in windows]
    count = len(windows)
    return {
        "problem": [""] * count,
        "long_texts": [None] * count,
        "sequence_id": [sequence.sequence_id] * count,
        "file": [sequence.address.file] * count,
        "group": [sequence.address.group] * count,
        "row": [sequence.address.row] * count,
        "start": [first + window.start for window in windows],
        "end": [first + window.end for window in windows],
        "first_scored": [first + window.first_scored for window in windows],
        "num_tokens": [window.num_tokens for window in windows],
        "similar": [np.packbits(similar).tobytes() for similar in marks],
        "first_question": [window.questions[0] for window in fitted],
        "end_question": [window.questions[1] for window in fitted],
        "longest_text": [window.longest_text for window in fitted],
        "num_events": [len(similar) for similar in marks],
        "num_similar": [int(similar.sum()) for similar in marks],
    }


def _marks(events: Events, window: Window) -> NDArray[np.bool_]:
    """Which events of a window are one token each."""
    marks = events.similar[window.start : window.end]
    if window.num_older:
        marks = marks.copy()
        marks[: window.num_older] = True
    return marks


def _cut(
    events: Events, usable: _UsableEvents, settings: SampleSettings, template: Template
) -> list[Window]:
    """Windows of the usable events, whose texts may be truncated in ``events``."""
    windows = cut_sequence(
        events,
        usable.times,
        supervision=settings.supervision,
        template=template,
        first_target=usable.first_target,
        max_tokens=settings.full_tokens,
        overlap_fraction=settings.overlap_fraction,
        older_tokens=settings.older_tokens,
    )
    if not usable.first_new:
        return windows
    return with_targets_from(
        usable.first_new, windows, events, supervision=settings.supervision, template=template
    )


def _cut_and_truncate(
    usable: _UsableEvents, settings: SampleSettings, template: Template
) -> tuple[list[FittedWindow], LongTexts]:
    """Cut the usable events into windows, truncating texts if needed.

    Also return what was truncated or left out.

    Raises:
        EventTooLongError: An event does not fit, and may not be cut or has no text.
    """
    sequence, max_tokens = usable.sequence, settings.full_tokens
    events = truncate_texts(usable.events, settings.max_text_tokens or None)

    def cut(events: Events) -> list[Window]:
        return _cut(events, usable, settings, template)

    if settings.long_events == "fail":
        windows, longest = cut(events), None
    else:
        windows, longest = cut_with_truncation(events, cut, max_tokens=max_tokens)
    fitted = [FittedWindow(window, longest) for window in windows]
    with_questions, left_out = fit_questions(
        events,
        sequence.questions,
        template,
        max_tokens=max_tokens,
        older_tokens=settings.older_tokens,
    )
    was_cut = any(window.longest_text is not None for window in with_questions)
    if settings.long_events == "fail" and (left_out or was_cut):
        raise DataError(
            f"sequence {sequence.sequence_id!r}: a question in words does not fit the context with "
            "its answer and the last event",
            where=f"{settings.store.data_uri}, {sequence.address.file}",
            setting=f"window.max_tokens = {settings.max_tokens}{_share_of_older(settings)}, "
            "window.long_events = fail",
        )
    fitted += with_questions
    long_texts = find_long_texts(
        usable.events,
        fitted,
        sequence_id=sequence.sequence_id,
        first=usable.first,
        max_text_tokens=settings.max_text_tokens,
    )
    names = [f"sequence {sequence.sequence_id!r}, question {index + 1}" for index in left_out]
    long_questions = LongTexts(left_out=len(left_out), examples=tuple(names))
    return fitted, LongTexts.sum([long_texts, long_questions])
