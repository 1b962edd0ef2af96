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
from mmtpp.core.run_length import Runs, find_runs, runs_to_restart
from mmtpp.core.timecode import MAX_BYTES, TIME_BYTES, encode_intervals
from mmtpp.core.tokens import Modality, TokenIds, Tokens

STYLES = ("paper", "compact", "minimal", "dense")
IMAGE_MODES = ("per_event", "on_change", "none")
RUN_ENCODINGS = ("token", "run_length")


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
        turn: between a question and its answer.
        answer_close: after an answer.
    """

    prefix: tuple[int, ...] = ()
    time_open: tuple[int, ...] = ()
    type_open: tuple[int, ...] = ()
    text_open: tuple[int, ...] = ()
    text_close: tuple[int, ...] = ()
    image_open: tuple[int, ...] = ()
    close: tuple[int, ...] = ()
    similar_close: tuple[int, ...] = ()
    turn: tuple[int, ...] = ()
    answer_close: tuple[int, ...] = ()

    @classmethod
    def of(cls, ids: TokenIds, style: str, *, asked: bool = False) -> "Layout":
        """The layout of one of ``STYLES``; ``asked`` of a history that questions follow."""
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
            prefix=ids.chat_prefix if asked else ids.prefix,
            time_open=(ids.start_of_event, *ids.blank, ids.time_start),
            type_open=(ids.time_end, *ids.blank, ids.type_start),
            text_open=(ids.type_end, *ids.blank, ids.text_start),
            text_close=(ids.text_end,),
            image_open=(*ids.blank, ids.vision_start),
            close=(*ids.blank, ids.end_of_event, *ids.line_break),
            similar_close=ids.line_break,
            turn=ids.chat_turn,
            answer_close=(ids.end_of_text,),
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
        asked: questions follow the events; the published layout then is a chat (stage 2).

    Source: MM-TPP, structured event template; the exact layout is that of the authors' stage-1
        script. Golden token files: tests/unit/core/test_template.py.
    """

    def __init__(self, ids: TokenIds, settings: TemplateSettings, *, asked: bool = False) -> None:
        self.ids = ids
        self.settings = settings
        self._byte_ids = np.array(ids.byte_ids, dtype=np.int32)
        self._type_ids = np.array(ids.type_ids, dtype=np.int32)
        self.layout = layout = Layout.of(ids, settings.style, asked=asked)
        self.prefix = layout.prefix
        pads = settings.image_tokens
        image = (*layout.image_open, *(ids.image_pad,) * pads, ids.vision_end)
        self.image_ids = image
        masked = range(len(layout.image_open), len(layout.image_open) + pads)
        similar_end = () if self._run_length else layout.similar_close
        pieces = {
            "time_open": layout.time_open,
            "type_open": layout.type_open,
            "text_open": layout.text_open,
            "text_close": layout.text_close,
            "image": image,
            "close": layout.close,
            "similar": (ids.similar_event, *similar_end),
            "similar_close": layout.similar_close,
        }
        ends = np.cumsum([len(piece) for piece in pieces.values()]).tolist()
        self._pieces = {
            name: _Piece(end - len(piece), len(piece))
            for (name, piece), end in zip(pieces.items(), ends, strict=True)
        }
        self._piece_ids = np.array([each for piece in pieces.values() for each in piece], np.int32)
        self._piece_modality = np.full(len(self._piece_ids), Modality.CONTROL, dtype=np.uint8)
        self._piece_modality[self._pieces["image"].start + np.array(masked, dtype=np.int64)] = (
            Modality.MASKED
        )

    @property
    def image_cost(self) -> int:
        """Tokens that showing one image adds."""
        return self._pieces["image"].length

    @property
    def similar_cost(self) -> int:
        """Tokens of a similar event, or of a run with run-length encoding."""
        marks = 1 + len(self.layout.similar_close)
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
        full = self._without_image(events) + self.image_cost * self.shown(events)
        similar = events.similar
        if self._run_length:
            similar = np.zeros(len(events), dtype=np.bool_)
            similar[find_runs(events).first] = True
        cost = np.where(events.similar, self.similar_cost * similar, full)
        return cost.astype(np.int64)

    def alone(self, events: Events) -> NDArray[np.int64]:
        """(E,) tokens of a window that holds one event in full, for each event; with the prefix."""
        has_image = (events.frames != NO_FRAME) & (self.settings.images != "none")
        return len(self.prefix) + self._without_image(events) + self.image_cost * has_image

    def _without_image(self, events: Events) -> NDArray[np.int64]:
        """(E,) tokens of each event in full, without its image."""
        parts = ("time_open", "type_open", "text_open", "text_close", "close")
        fixed = sum(self._pieces[part].length for part in parts) + self.settings.time_bytes + 1
        return fixed + np.diff(events.text_offsets)

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
        """Write a window of events; ``core.parsing`` reads it back.

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
        num_events = len(events)
        place = np.arange(num_events)
        owner = place.astype(np.int32)
        pool = _Pool(self._piece_ids, self._piece_modality)
        num_bytes = self.settings.time_bytes
        times = pool.add(self.time_ids(events.intervals).ravel(), Modality.TIME)
        # of similar events nothing is written, so what stands here for their type does not matter
        kinds = pool.add(self._type_ids[np.where(full, events.types, 0)], Modality.TYPE)
        texts = pool.add(events.text_ids, Modality.TEXT)
        pieces = self._pieces
        columns = [
            pieces["time_open"].where(full),
            _Column(num_bytes * full, times + num_bytes * place),
            pieces["type_open"].where(full),
            _Column(full, kinds + place),
            pieces["text_open"].where(full),
            _Column(np.diff(events.text_offsets) * full, texts + events.text_offsets[:-1]),
            pieces["text_close"].where(full),
            pieces["image"].where(shown),
            pieces["close"].where(full),
        ]
        if self._run_length:
            runs = find_runs(events)
            owner[runs.first] = runs.last
            columns += self._runs(runs, num_events, pool)
        else:
            columns.append(pieces["similar"].where(events.similar))
        written = [column for column in columns if column.lengths.any()]
        return self._join(written, pool, owner, events.frames[shown])

    def time_ids(self, intervals: NDArray[np.floating]) -> NDArray[np.int32]:
        """(E, time_bytes) token ids of the intervals."""
        return self._byte_ids[encode_intervals(intervals, num_bytes=self.settings.time_bytes)]

    def _runs(self, runs: Runs, num_events: int, pool: "_Pool") -> list["_Column"]:
        """The columns of runs, which stand at their first events."""
        begins = np.zeros(num_events, dtype=np.bool_)
        begins[runs.first] = True
        index = np.cumsum(begins) - 1
        num_bytes = self.settings.time_bytes
        counts = pool.add(self._byte_ids[runs.count], Modality.CONTROL)
        spans = pool.add(self.time_ids(runs.span).ravel(), Modality.TIME)
        return [
            self._pieces["similar"].where(begins),
            _Column(begins, counts + index),
            _Column(num_bytes * begins, spans + num_bytes * index),
            self._pieces["similar_close"].where(begins),
        ]

    def _join(
        self,
        columns: list["_Column"],
        pool: "_Pool",
        owner: NDArray[np.int32],
        frames: NDArray[np.int32],
    ) -> Tokens:
        """Gather the parts of every event from the pool, one event after the other."""
        lengths = np.empty((len(owner), len(columns)), dtype=np.int64)
        sources = np.empty_like(lengths)
        for index, column in enumerate(columns):
            lengths[:, index], sources[:, index] = column.lengths, column.sources
        flat = lengths.ravel()
        ends = np.cumsum(flat)
        num_prefix, num_written = len(self.prefix), int(ends[-1]) if len(ends) else 0
        source = np.repeat(sources.ravel() - ends + flat, flat)
        source += np.arange(num_written)
        ids = np.empty(num_prefix + num_written, dtype=np.int32)
        modality = np.empty(len(ids), dtype=np.uint8)
        event = np.empty(len(ids), dtype=np.int32)
        ids[:num_prefix] = self.prefix
        modality[:num_prefix] = Modality.MASKED
        event[:num_prefix] = -1
        np.take(np.concatenate(pool.ids), source, out=ids[num_prefix:])
        np.take(pool.modality(), source, out=modality[num_prefix:])
        event[num_prefix:] = np.repeat(owner, lengths.sum(axis=1))
        return Tokens(ids, modality, event, frames)


@dataclass(frozen=True, slots=True)
class _Column:
    """One part of every event.

    Attributes:
        lengths: (E,) its tokens in each event.
        sources: (E,) where they stand in the pool, or one place for all.
    """

    lengths: NDArray[np.integer] | NDArray[np.bool_]
    sources: NDArray[np.int64] | int


@dataclass(frozen=True, slots=True)
class _Piece:
    """Fixed tokens and where they stand in the pool."""

    start: int
    length: int

    def where(self, written: NDArray[np.bool_]) -> _Column:
        """The piece in the events where it is written."""
        return _Column(self.length * written, self.start)


class _Pool:
    """All tokens that a window is made of, each part once, with their modalities."""

    def __init__(self, ids: NDArray[np.int32], modality: NDArray[np.uint8]) -> None:
        self.ids = [ids]
        self._modality = modality
        self._added: list[Modality] = []
        self._size = len(ids)

    def add(self, ids: NDArray[np.int32], modality: Modality) -> int:
        """Add tokens and say where they begin."""
        start = self._size
        self.ids.append(ids)
        self._added.append(modality)
        self._size += len(ids)
        return start

    def modality(self) -> NDArray[np.uint8]:
        """Of all tokens."""
        sizes = [len(ids) for ids in self.ids[1:]]
        added = np.repeat(np.array(self._added, dtype=np.uint8), sizes)
        return np.concatenate([self._modality, added])
