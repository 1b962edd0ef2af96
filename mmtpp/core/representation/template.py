"""Event templates: write a window of events as token ids, with a modality for every token.

    paper    <|start_of_event|> <|time_start|>BBBB<|time_end|> <|type_start|>B<|type_end|>
             <|text_start|>TEXT<|text_end|> <|vision_start|>IMAGE<|vision_end|> <|end_of_event|>\\n
             with the blanks and line breaks of the published layout, after "Event Sequence:\\n"
    compact  <|time_start|>BBBB<|type_start|>B<|text_start|>TEXT<|text_end|>
             [<|vision_start|>IMAGE<|vision_end|>]
             every field is opened by its marker, which also closes the previous field
    minimal  BBBB B TEXT<|text_end|> [<|vision_start|>IMAGE<|vision_end|>]
    dense    BBBB B TEXT [<|vision_start|>IMAGE<|vision_end|>]
    soft     B      one token per event; its vector also holds memory, text and image
             (``soft_tokens.py``)

B is a byte token; BBBB is the time code, with 4, 3 or 2 bytes. Types are byte tokens too, because
the published type tokens would not fit the spare rows of the embedding. In ``dense`` the first byte
of the next event ends a text, so the cost of ending a text is part of the next time byte.

With a calendar, the day of week and the time of day follow the time code as text tokens, such as
``Tue08:15`` (`` Tue 08:15`` in ``paper``). They follow from the time, so they are never labels.
Questions and answers have no calendar: the calendar of an event is written after its time is known.
In the same way the name of a type may follow its code, as text tokens that are never labels.

A similar event is <|similar_event|> alone (with its line break in ``paper``). With run-length
encoding a run of up to 255 similar events is <|similar_event|> COUNT SPAN: a byte token with the
number of events, and the time code of the sum of their intervals. The older events of
``compression.strategy = recent_full`` are <|similar_event|> too, and their vectors also hold their
content (``older_events.py``).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.events import NO_FRAME, Events
from mmtpp.core.representation.calendar_tokens import CALENDARS, CalendarTokens
from mmtpp.core.representation.similar_runs import (
    SimilarRuns,
    extra_runs_at_start,
    find_similar_runs,
)
from mmtpp.core.representation.style_layout import SOFT, STYLES, Layout
from mmtpp.core.representation.timecode import MAX_BYTES, TIME_BYTES, encode_intervals
from mmtpp.core.representation.token_columns import (
    FixedParts,
    TokenColumn,
    TokenPool,
    gather_tokens,
)
from mmtpp.core.representation.tokens import Modality, TokenIds, Tokens

IMAGE_MODES = ("per_event", "on_change", "none")
RUN_ENCODINGS = ("token", "run_length")


@dataclass(frozen=True, slots=True)
class TemplateSettings:
    """How events are written.

    Attributes:
        style: One of ``STYLES``, or ``SOFT``.
        images: ``per_event`` shows the image of every event (the paper); ``on_change`` shows an
            image that differs from the previous one; ``none`` shows no image.
        image_tokens: Number of image pads per image: (pixels / 28) squared for a square image.
        time_bytes: Number of bytes of the time code: 4 (the paper), 3 or 2.
        run_encoding: ``token`` writes each similar event as one token (the paper); ``run_length``
            writes the count and the span of each run.
        calendar: ``none``; ``hour`` or ``minute`` writes the day of week and the time of day of
            every event in full, up to this unit.
        time_zone: IANA name of the calendar's time zone.
        seconds_per_unit: Seconds in one unit of the times, for the calendar.
        type_words: Tokens that follow the code of each type, by code, see ``words_of_types``; empty
            for none.

    Raises:
        ValueError: A name or number is unknown.
    """

    style: str
    images: str
    image_tokens: int
    time_bytes: int = MAX_BYTES
    run_encoding: str = "token"
    calendar: str = "none"
    time_zone: str = "UTC"
    seconds_per_unit: float = 1.0
    type_words: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        for field, value, known in (
            ("style", self.style, (*STYLES, SOFT)),
            ("image mode", self.images, IMAGE_MODES),
            ("number of time bytes", self.time_bytes, TIME_BYTES),
            ("run encoding", self.run_encoding, RUN_ENCODINGS),
            ("calendar", self.calendar, CALENDARS),
        ):
            if value not in known:
                names = ", ".join(map(str, known))
                raise ValueError(f"unknown {field} {value!r}; one of {names}")


@dataclass(frozen=True, slots=True)
class RestartCosts:
    """Extra tokens of a window that starts in the middle of a sequence, for E possible starts.

    Attributes:
        run: (E,) tokens that write the remaining part of a run of similar events.
        image: (E,) tokens that show an image again, because an earlier event showed it.
        image_at: (E,) for each start, the event that shows the image again; E if there is none.
    """

    run: NDArray[np.int64]
    image: NDArray[np.int64]
    image_at: NDArray[np.int64]


class Template:
    """Writes events as tokens; immutable.

    Args:
        ids: Token ids of the vocabulary.
        settings: Style and options.
        has_questions: Whether questions follow the events. The published layout is then a chat
            (stage 2).

    Source: MM-TPP, structured event template, with the exact layout of the authors' stage-1
        script. Golden token files: tests/unit/core/representation/test_golden.py.
    """

    def __init__(
        self, ids: TokenIds, settings: TemplateSettings, *, has_questions: bool = False
    ) -> None:
        self.ids = ids
        self.settings = settings
        self._byte_ids = np.array(ids.byte_ids, dtype=np.int32)
        self._type_ids = np.array(ids.type_ids, dtype=np.int32)
        self._type_words = np.array(settings.type_words, dtype=np.int32)
        self.layout = layout = Layout.from_style(ids, settings.style, has_questions=has_questions)
        self.prefix = layout.prefix
        self._calendar = self._build_calendar()
        pads = (ids.image_pad,) * settings.image_tokens
        self.image_ids = (*layout.image_open, *pads, ids.vision_end)
        similar_end = () if self._run_length else layout.similar_close
        self._parts = FixedParts(
            {
                "time_open": layout.time_open,
                "type_open": layout.type_open,
                "text_open": layout.text_open,
                "text_close": layout.text_close,
                "image": self.image_ids,
                "close": layout.close,
                "similar": (ids.similar_event, *similar_end),
                "similar_close": layout.similar_close,
            },
            masked_id=ids.image_pad,
        )

    def _build_calendar(self) -> CalendarTokens | None:
        settings = self.settings
        if settings.calendar == "none":
            return None
        return CalendarTokens(
            self.ids,
            unit=settings.calendar,
            time_zone=settings.time_zone,
            seconds_per_unit=settings.seconds_per_unit,
            blank=self.layout.calendar_blank,
        )

    @property
    def is_soft(self) -> bool:
        """Whether every event is one soft token."""
        return self.settings.style == SOFT

    @property
    def image_cost(self) -> int:
        """Number of tokens of one image; 0 in soft tokens."""
        return 0 if self.is_soft else self._parts["image"].length

    @property
    def calendar_cost(self) -> int:
        """Number of tokens of the calendar of one event; 0 without a calendar."""
        return self._calendar.num_tokens if self._calendar else 0

    @property
    def words_cost(self) -> int:
        """Number of tokens of the name of a type; 0 where names are not written."""
        return self._type_words.shape[1] if len(self._type_words) else 0

    @property
    def similar_cost(self) -> int:
        """Number of tokens of a similar event, or of a run with run-length encoding."""
        markers = 1 + len(self.layout.similar_close)
        return markers + (1 + self.settings.time_bytes if self._run_length else 0)

    @property
    def _run_length(self) -> bool:
        return self.settings.run_encoding == "run_length"

    def shows_image(self, events: Events) -> NDArray[np.bool_]:
        """(E,) True where the event's image is written, in a window that starts at event 0."""
        has_image = ~events.similar & (events.frames != NO_FRAME)
        if self.settings.images == "none":
            return np.zeros(len(events), dtype=np.bool_)
        if self.settings.images == "per_event" or self.is_soft:
            return has_image
        candidates = np.flatnonzero(has_image)
        frames = events.frames[candidates]
        changed = np.ones(len(candidates), dtype=np.bool_)
        changed[1:] = frames[1:] != frames[:-1]
        shown = np.zeros(len(events), dtype=np.bool_)
        shown[candidates[changed]] = True
        return shown

    def costs(self, events: Events) -> NDArray[np.int64]:
        """(E,) number of tokens per event in a window that starts at event 0, without the prefix.

        The tokens of a run count for its first event.
        """
        full = self._without_image(events) + self.image_cost * self.shows_image(events)
        if self.is_soft:
            return full
        similar = events.similar
        if self._run_length:
            similar = np.zeros(len(events), dtype=np.bool_)
            similar[find_similar_runs(events).first] = True
        cost = np.where(events.similar, self.similar_cost * similar, full)
        return cost.astype(np.int64)

    def costs_alone(self, events: Events) -> NDArray[np.int64]:
        """(E,) number of tokens of a window with this event alone, in full, with the prefix."""
        has_image = (events.frames != NO_FRAME) & (self.settings.images != "none")
        return len(self.prefix) + self._without_image(events) + self.image_cost * has_image

    def max_cost_alone(self, text_tokens: int) -> int:
        """Maximum number of tokens of a window that holds a single event.

        Args:
            text_tokens: Number of tokens of its text.
        """
        image = self.image_cost * (self.settings.images != "none")
        event = 1 if self.is_soft else self._cost_without_text + text_tokens
        return len(self.prefix) + event + image

    def _without_image(self, events: Events) -> NDArray[np.int64]:
        """(E,) number of tokens of an event in full, without its image."""
        if self.is_soft:
            return np.ones(len(events), dtype=np.int64)
        return self._cost_without_text + np.diff(events.text_offsets)

    @property
    def _cost_without_text(self) -> int:
        parts = ("time_open", "type_open", "text_open", "text_close", "close")
        fixed = sum(self._parts[part].length for part in parts) + self.settings.time_bytes + 1
        return fixed + self.calendar_cost + self.words_cost

    def restart_costs(self, events: Events) -> RestartCosts:
        """The tokens of a window beyond the sum of ``costs``, for every possible start."""
        num_events = len(events)
        image = np.zeros(num_events, dtype=np.int64)
        image_at = np.full(num_events, num_events, dtype=np.int64)
        if self.settings.images == "on_change":
            candidates = np.flatnonzero(~events.similar & (events.frames != NO_FRAME))
            following = np.searchsorted(candidates, np.arange(num_events))
            reached = following < len(candidates)
            image_at[reached] = candidates[following[reached]]
            hidden = ~self.shows_image(events)[candidates]
            image[reached] = self.image_cost * hidden[following[reached]]
        run = np.zeros(num_events, dtype=np.int64)
        if self._run_length and not self.is_soft:
            run = self.similar_cost * extra_runs_at_start(events)[:-1]
        return RestartCosts(run, image, image_at)

    def write(self, events: Events) -> Tokens:
        """Write a window of events.

        Args:
            events: E events of the window; its first full event shows its image.

        Returns:
            ``len(prefix) + sum(costs)`` tokens. The prefix is masked.

        Raises:
            ValueError: The vocabulary has no token for a type, a type has no name that the template
                writes, an interval has no code, or the template has a calendar and the events have
                no times.
        """
        full, shown = ~events.similar, self.shows_image(events)
        # similar events write no type; 0 is a placeholder
        type_ids = self.encode_types(np.where(full, events.types, 0))
        num_events = len(events)
        index = np.arange(num_events)
        owner = index.astype(np.int32)
        if self.is_soft:
            modality = np.full(num_events, Modality.TYPE, dtype=np.uint8)
            return Tokens(type_ids, modality, owner, events.frames[shown])
        pool = self._parts.pool()
        num_bytes = self.settings.time_bytes
        times = pool.add(self.time_ids(events.intervals).ravel(), Modality.TIME)
        type_tokens = pool.add(type_ids, Modality.TYPE)
        texts = pool.add(events.text_ids, Modality.TEXT)
        parts = self._parts
        columns = [
            parts["time_open"].where(full),
            TokenColumn(num_bytes * full, times + num_bytes * index),
            *self._calendar_columns(events, pool),
            parts["type_open"].where(full),
            TokenColumn(full, type_tokens + index),
            *self._word_columns(events, pool),
            parts["text_open"].where(full),
            TokenColumn(np.diff(events.text_offsets) * full, texts + events.text_offsets[:-1]),
            parts["text_close"].where(full),
            parts["image"].where(shown),
            parts["close"].where(full),
        ]
        if self._run_length:
            runs = find_similar_runs(events)
            owner[runs.first] = runs.last
            columns += self._run_columns(runs, num_events, pool)
        else:
            columns.append(parts["similar"].where(events.similar))
        written = [column for column in columns if column.lengths.any()]
        return gather_tokens(
            written, pool, prefix=self.prefix, owner=owner, frames=events.frames[shown]
        )

    def _calendar_columns(self, events: Events, pool: TokenPool) -> list[TokenColumn]:
        """The column of the calendar; none without a calendar."""
        if self._calendar is None:
            return []
        if events.times is None:
            raise ValueError("a template with a calendar needs the times of the events")
        ids = self._calendar(events.times)
        start = pool.add(ids.ravel(), Modality.MASKED)
        num_tokens = self.calendar_cost
        return [TokenColumn(num_tokens * ~events.similar, start + num_tokens * np.arange(len(ids)))]

    def _word_columns(self, events: Events, pool: TokenPool) -> list[TokenColumn]:
        """The column of the names of types; none where names are not written."""
        if not self.words_cost:
            return []
        types, full = events.types, ~events.similar
        if (types[full] >= len(self._type_words)).any():
            code = types[full].max()
            raise ValueError(f"type {code}: only {len(self._type_words)} types have a name")
        start = pool.add(self._type_words.ravel(), Modality.MASKED)
        num_tokens = self.words_cost
        return [TokenColumn(num_tokens * full, start + num_tokens * types.astype(np.int64))]

    def _run_columns(
        self, runs: SimilarRuns, num_events: int, pool: TokenPool
    ) -> list[TokenColumn]:
        """The columns of runs; a run is written at its first event."""
        begins = np.zeros(num_events, dtype=np.bool_)
        begins[runs.first] = True
        index = np.cumsum(begins) - 1
        num_bytes = self.settings.time_bytes
        counts = pool.add(self._byte_ids[runs.count], Modality.CONTROL)
        spans = pool.add(self.time_ids(runs.span).ravel(), Modality.TIME)
        return [
            self._parts["similar"].where(begins),
            TokenColumn(begins, counts + index),
            TokenColumn(num_bytes * begins, spans + num_bytes * index),
            self._parts["similar_close"].where(begins),
        ]

    def time_ids(self, intervals: NDArray[np.floating]) -> NDArray[np.int32]:
        """(E, time_bytes) token ids of the intervals."""
        return self._byte_ids[encode_intervals(intervals, num_bytes=self.settings.time_bytes)]

    def encode_types(self, types: NDArray[np.integer]) -> NDArray[np.int32]:
        """(E,) token ids of types.

        Raises:
            ValueError: The vocabulary has no token for a type.
        """
        if (types >= len(self._type_ids)).any():
            raise ValueError(f"type {types.max()}: the vocabulary has {len(self._type_ids)} types")
        return self._type_ids[types]
