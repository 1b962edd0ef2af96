"""Event templates: a window of events becomes token ids, with a modality for every token.

    paper    <|start_of_event|> <|time_start|>BBBB<|time_end|> <|type_start|>B<|type_end|>
             <|text_start|>TEXT<|text_end|> <|vision_start|>IMAGE<|vision_end|> <|end_of_event|>\\n
             with the blanks and line breaks of the published layout, after "Event Sequence:\\n"
    compact  <|time_start|>BBBB<|type_start|>B<|text_start|>TEXT<|text_end|>
             [<|vision_start|>IMAGE<|vision_end|>]
             every field is opened by its marker, which closes the one before
    minimal  BBBB B TEXT<|text_end|> [<|vision_start|>IMAGE<|vision_end|>]
    dense    BBBB B TEXT [<|vision_start|>IMAGE<|vision_end|>]

B is a byte token; BBBB is the time code, of 4, 3 or 2 bytes. Types are written as byte tokens too:
the published type tokens would not fit the spare rows of the embedding. In ``dense`` the byte that
opens the next event ends the text, so the decision that a text ends counts to the next time byte.

A similar event is <|similar_event|> alone (with its line break in ``paper``). With run-length
encoding a run of up to 255 of them is <|similar_event|> COUNT SPAN: a byte token with the number of
events and the time code of their summed intervals.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.events import NO_FRAME, Events
from mmtpp.core.runs import Runs, find_runs, runs_to_restart
from mmtpp.core.timecode import MAX_BYTES, TIME_BYTES, encode_intervals
from mmtpp.core.tokens import Modality, TokenIds, Tokens

STYLES = ("paper", "compact", "minimal", "dense")
IMAGE_MODES = ("per_event", "on_change", "none")
RUN_ENCODINGS = ("token", "run_length")

_Piece = tuple[tuple[int, ...], tuple[Modality, ...]]


@dataclass(frozen=True, slots=True)
class TemplateSettings:
    """How events are written.

    Attributes:
        style: one of ``STYLES``.
        images: ``per_event`` shows the image of every event (the paper); ``on_change`` only when
            it differs from the one last shown; ``none`` never.
        image_tokens: image pads an image takes: (pixels / 28) squared for a square image.
        time_bytes: of the time code: 4 (the paper), 3 or 2.
        run_encoding: ``token`` writes each similar event as one token (the paper); ``run_length``
            writes the count and the span of each run.

    Raises:
        ValueError: an unknown name or number.
    """

    style: str
    images: str
    image_tokens: int
    time_bytes: int = MAX_BYTES
    run_encoding: str = "token"

    def __post_init__(self) -> None:
        for what, value, known in (
            ("style", self.style, STYLES),
            ("image mode", self.images, IMAGE_MODES),
            ("number of time bytes", self.time_bytes, TIME_BYTES),
            ("run encoding", self.run_encoding, RUN_ENCODINGS),
        ):
            if value not in known:
                names = ", ".join(map(str, known))
                raise ValueError(f"unknown {what} {value!r}; one of {names}")


@dataclass(frozen=True, slots=True)
class Layout:
    """The fixed tokens of a style, in their order; some are empty.

    Attributes:
        prefix: before the first event.
        time_open, type_open, text_open, text_close: around the fields.
        image_open: before the image pads; ``vision_end`` follows them.
        close: at the end of an event.
        similar_close: at the end of a similar event or a run.
    """

    prefix: tuple[int, ...] = ()
    time_open: tuple[int, ...] = ()
    type_open: tuple[int, ...] = ()
    text_open: tuple[int, ...] = ()
    text_close: tuple[int, ...] = ()
    image_open: tuple[int, ...] = ()
    close: tuple[int, ...] = ()
    similar_close: tuple[int, ...] = ()

    @classmethod
    def of(cls, ids: TokenIds, style: str) -> "Layout":
        """The layout of one of ``STYLES``."""
        if style == "dense":
            return cls(image_open=(ids.vision_start,))
        if style == "minimal":
            return cls(text_close=(ids.text_end,), image_open=(ids.vision_start,))
        if style == "compact":
            return cls(
                time_open=(ids.time_start,),
                type_open=(ids.type_start,),
                text_open=(ids.text_start,),
                text_close=(ids.text_end,),
                image_open=(ids.vision_start,),
            )
        return cls(
            prefix=ids.prefix,
            time_open=(ids.start_of_event, *ids.blank, ids.time_start),
            type_open=(ids.time_end, *ids.blank, ids.type_start),
            text_open=(ids.type_end, *ids.blank, ids.text_start),
            text_close=(ids.text_end,),
            image_open=(*ids.blank, ids.vision_start),
            close=(*ids.blank, ids.end_of_event, *ids.line_break),
            similar_close=ids.line_break,
        )


@dataclass(frozen=True, slots=True)
class Restart:
    """Extra tokens of windows that start in the middle, for each of E starts.

    Attributes:
        run: (E,) of the part of a run that is left.
        image: (E,) of showing an image again that an earlier event showed.
        image_at: (E,) the event that needs it; E where there is none.
    """

    run: NDArray[np.int64]
    image: NDArray[np.int64]
    image_at: NDArray[np.int64]


class Template:
    """Writes events as tokens; immutable.

    Args:
        ids: token ids of the vocabulary.
        settings: how events are written.

    Source: MM-TPP, structured event template; the exact layout is that of the authors' stage-1
        script. Golden token files: tests/unit/test_template.py.
    """

    def __init__(self, ids: TokenIds, settings: TemplateSettings) -> None:
        self.ids = ids
        self.settings = settings
        self._byte_ids = np.array(ids.byte_ids, dtype=np.int32)
        self._type_ids = np.array(ids.type_ids, dtype=np.int32)
        self.layout = layout = Layout.of(ids, settings.style)
        self.prefix = layout.prefix
        self._open = _piece(layout.time_open)
        self._type_open = _piece(layout.type_open)
        self._text_open = _piece(layout.text_open)
        self._text_close = _piece(layout.text_close)
        self._close = _piece(layout.close)
        pads = settings.image_tokens
        self._image: _Piece = (
            (*layout.image_open, *(ids.image_pad,) * pads, ids.vision_end),
            (
                *(Modality.CONTROL,) * len(layout.image_open),
                *(Modality.MASKED,) * pads,
                Modality.CONTROL,
            ),
        )
        self._similar = _piece((ids.similar_event,))
        self._similar_close = _piece(layout.similar_close)

    @property
    def image_cost(self) -> int:
        """Tokens that showing one image adds."""
        return len(self._image[0])

    @property
    def similar_cost(self) -> int:
        """Tokens of a similar event, or of a run with run-length encoding."""
        marks = len(self._similar[0]) + len(self._similar_close[0])
        return marks + (1 + self.settings.time_bytes if self._run_length else 0)

    @property
    def _run_length(self) -> bool:
        return self.settings.run_encoding == "run_length"

    def shown(self, events: Events) -> NDArray[np.bool_]:
        """(E,) True where the event's image is written out, the window starting at event 0."""
        full = ~events.similar & (events.frames != NO_FRAME)
        if self.settings.images == "none":
            return np.zeros(len(events), dtype=np.bool_)
        if self.settings.images == "per_event":
            return full
        candidates = np.flatnonzero(full)
        frames = events.frames[candidates]
        changed = np.ones(len(candidates), dtype=np.bool_)
        changed[1:] = frames[1:] != frames[:-1]
        shown = np.zeros(len(events), dtype=np.bool_)
        shown[candidates[changed]] = True
        return shown

    def costs(self, events: Events) -> NDArray[np.int64]:
        """(E,) tokens each event takes in a window that starts at event 0, without the prefix; a
        run is charged to its first event."""
        parts = (self._open, self._type_open, self._text_open, self._text_close, self._close)
        fixed = sum(len(part[0]) for part in parts) + self.settings.time_bytes + 1
        full = fixed + np.diff(events.text_offsets) + self.image_cost * self.shown(events)
        similar = events.similar
        if self._run_length:
            similar = np.zeros(len(events), dtype=np.bool_)
            similar[find_runs(events).first] = True
        cost = np.where(events.similar, self.similar_cost * similar, full)
        return cost.astype(np.int64)

    def restart(self, events: Events) -> "Restart":
        """What a window takes more than ``costs`` says, for every event it may start at."""
        num_events = len(events)
        image = np.zeros(num_events, dtype=np.int64)
        image_at = np.full(num_events, num_events, dtype=np.int64)
        if self.settings.images == "on_change":
            candidates = np.flatnonzero(~events.similar & (events.frames != NO_FRAME))
            following = np.searchsorted(candidates, np.arange(num_events))
            reached = following < len(candidates)
            image_at[reached] = candidates[following[reached]]
            hidden = ~self.shown(events)[candidates]
            image[reached] = self.image_cost * hidden[following[reached]]
        run = np.zeros(num_events, dtype=np.int64)
        if self._run_length:
            run = self.similar_cost * runs_to_restart(events)[:-1]
        return Restart(run, image, image_at)

    def write(self, events: Events) -> Tokens:
        """Write a window of events; ``core.reading`` reads it back.

        Args:
            events: the window, E events; its first kept event shows its image.

        Returns:
            The tokens, ``len(prefix) + sum(costs)`` of them. The prefix is masked.

        Raises:
            ValueError: a type that the vocabulary has no token for, or an interval no code can
                write.
        """
        full, shown = ~events.similar, self.shown(events)
        types = events.types[full]
        if (types >= len(self._type_ids)).any():
            raise ValueError(f"type {types.max()}: the vocabulary has {len(self._type_ids)} types")
        owner = np.arange(len(events), dtype=np.int32)
        columns = [
            _fixed(self._open, full),
            self._times(events.intervals[full], full),
            _fixed(self._type_open, full),
            _Column(full.astype(np.int64), self._type_ids[types], Modality.TYPE),
            _fixed(self._text_open, full),
            _Column(np.diff(events.text_offsets) * full, _kept_text(events), Modality.TEXT),
            _fixed(self._text_close, full),
            _fixed(self._image, shown),
            _fixed(self._close, full),
        ]
        if self._run_length:
            runs = find_runs(events)
            owner[runs.first] = runs.last
            columns += self._runs(runs, len(events))
        else:
            columns += [_fixed(self._similar, events.similar)]
            columns += [_fixed(self._similar_close, events.similar)]
        return self._join(columns, owner, events.frames[shown])

    def time_ids(self, intervals: NDArray[np.floating]) -> NDArray[np.int32]:
        """(E, time_bytes) token ids of the intervals."""
        return self._byte_ids[encode_intervals(intervals, num_bytes=self.settings.time_bytes)]

    def _times(self, intervals: NDArray[np.float64], where: NDArray[np.bool_]) -> "_Column":
        lengths = where * np.int64(self.settings.time_bytes)
        return _Column(lengths, self.time_ids(intervals).ravel(), Modality.TIME)

    def _runs(self, runs: Runs, num_events: int) -> list["_Column"]:
        begins = np.zeros(num_events, dtype=np.bool_)
        begins[runs.first] = True
        return [
            _fixed(self._similar, begins),
            _Column(begins.astype(np.int64), self._byte_ids[runs.count], Modality.CONTROL),
            self._times(runs.span, begins),
            _fixed(self._similar_close, begins),
        ]

    def _join(
        self, columns: list["_Column"], owner: NDArray[np.int32], frames: NDArray[np.int32]
    ) -> Tokens:
        lengths = np.stack([column.lengths for column in columns], axis=1)  # (E, columns)
        starts = np.cumsum(lengths) - lengths.ravel()
        starts = starts.reshape(lengths.shape) + len(self.prefix)
        num_tokens = len(self.prefix) + int(lengths.sum())
        ids = np.empty(num_tokens, dtype=np.int32)
        modality = np.full(num_tokens, Modality.MASKED, dtype=np.uint8)
        ids[: len(self.prefix)] = self.prefix
        for index, column in enumerate(columns):
            positions = _ragged_positions(starts[:, index], column.lengths)
            ids[positions] = column.ids
            modality[positions] = column.modality
        event = np.repeat(owner, lengths.sum(axis=1))
        event = np.concatenate([np.full(len(self.prefix), -1, dtype=np.int32), event])
        return Tokens(ids, modality, event, frames)


@dataclass(frozen=True, slots=True)
class _Column:
    """One part of every event: how long it is in each, and all its tokens one after the other."""

    lengths: NDArray[np.int64]
    ids: NDArray[np.integer]
    modality: NDArray[np.uint8] | int


def _piece(tokens: tuple[int, ...]) -> _Piece:
    return tokens, (Modality.CONTROL,) * len(tokens)


def _fixed(piece: _Piece, where: NDArray[np.bool_]) -> _Column:
    tokens, modality = piece
    count = int(where.sum())
    return _Column(
        where * np.int64(len(tokens)),
        np.tile(np.asarray(tokens, dtype=np.int32), count),
        np.tile(np.asarray(modality, dtype=np.uint8), count),
    )


def _kept_text(events: Events) -> NDArray[np.int32]:
    return events.text_ids[np.repeat(~events.similar, np.diff(events.text_offsets))]


def _ragged_positions(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions ``starts[i] .. starts[i] + lengths[i] - 1`` for all i, concatenated."""
    total = int(lengths.sum())
    within = np.arange(total) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.repeat(starts, lengths) + within
