"""Event templates: a window of events becomes token ids, with a modality for every token.

    paper    <|start_of_event|> <|time_start|>BBBB<|time_end|> <|type_start|>B<|type_end|>
             <|text_start|>TEXT<|text_end|> <|vision_start|>IMAGE<|vision_end|> <|end_of_event|>\\n
             with the blanks and line breaks of the published layout, after "Event Sequence:\\n"
    compact  the same without blanks, line breaks and prefix
    minimal  BBBB B TEXT<|text_end|> [<|vision_start|>IMAGE<|vision_end|>]

A similar event is <|similar_event|> alone (with its line break in ``paper``). B is a byte token.
Types are written as byte tokens between the type markers; the published type tokens would not fit
the spare rows of the embedding.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.timecode import NUM_BYTES

STYLES = ("paper", "compact", "minimal")
IMAGE_MODES = ("per_event", "on_change", "none")
NO_FRAME = -1


class Modality(IntEnum):
    """What a token carries; the loss is reported by it. ``MASKED`` tokens are never labels."""

    MASKED = 0
    TIME = 1
    TYPE = 2
    TEXT = 3
    CONTROL = 4


@dataclass(frozen=True, slots=True)
class TokenIds:
    """The token ids a template needs; ``model.vocabulary`` provides them.

    Attributes:
        byte_base: id of ``<|byte_0|>``; the other 255 follow.
        start_of_event, end_of_event, time_start, time_end, type_start, type_end, text_start,
            text_end, similar_event: the markers.
        vision_start, image_pad, vision_end: the backbone's own image tokens.
        blank, line_break, prefix: plain text " ", line feed and "Event Sequence:" + line feed,
            as token ids.
    """

    byte_base: int
    start_of_event: int
    end_of_event: int
    time_start: int
    time_end: int
    type_start: int
    type_end: int
    text_start: int
    text_end: int
    similar_event: int
    vision_start: int
    image_pad: int
    vision_end: int
    blank: tuple[int, ...]
    line_break: tuple[int, ...]
    prefix: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Events:
    """Tokenised events, the input of a template: a sequence or a slice of one.

    Attributes:
        time_bytes: (E, 4) uint8, see ``core.timecode``.
        types: (E,) int16.
        text_ids: (X,) int32, the texts of all events one after the other.
        text_offsets: (E + 1,) int64 into ``text_ids``.
        frames: (E,) int32 index of the event's image, or ``NO_FRAME``.
        similar: (E,) True where the event is written as one token.
    """

    time_bytes: NDArray[np.uint8]
    types: NDArray[np.int16]
    text_ids: NDArray[np.int32]
    text_offsets: NDArray[np.int64]
    frames: NDArray[np.int32]
    similar: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.types)

    def slice(self, start: int, end: int) -> "Events":
        """The events from ``start`` to before ``end``, without copying."""
        offsets = self.text_offsets[start : end + 1]
        return Events(
            self.time_bytes[start:end],
            self.types[start:end],
            self.text_ids[offsets[0] : offsets[-1]],
            offsets - offsets[0],
            self.frames[start:end],
            self.similar[start:end],
        )


@dataclass(frozen=True, slots=True)
class Tokens:
    """A window of events as tokens.

    Attributes:
        ids: (T,) int32.
        modality: (T,) uint8, a ``Modality``.
        event: (T,) int32 index of the event within the window, -1 for the prefix.
        frames: (I,) int32, the frame behind each run of ``image_tokens`` image pads, in order.
    """

    ids: NDArray[np.int32]
    modality: NDArray[np.uint8]
    event: NDArray[np.int32]
    frames: NDArray[np.int32]


_Piece = tuple[tuple[int, ...], tuple[Modality, ...]]


class Template:
    """Writes events as tokens; immutable.

    Args:
        ids: token ids of the vocabulary.
        style: ``paper``, ``compact`` or ``minimal``.
        images: ``per_event`` shows the image of every event (the paper); ``on_change`` only when
            it differs from the one last shown; ``none`` never.
        image_tokens: image pads an image takes: (pixels / 28) squared for a square image.

    Source: MM-TPP, structured event template; the exact layout is that of the authors' stage-1
        script. Golden token files: tests/unit/test_template.py.
    """

    def __init__(self, ids: TokenIds, *, style: str, images: str, image_tokens: int) -> None:
        if style not in STYLES:
            raise ValueError(f"unknown style {style!r}; one of {', '.join(STYLES)}")
        if images not in IMAGE_MODES:
            raise ValueError(f"unknown image mode {images!r}; one of {', '.join(IMAGE_MODES)}")
        self.images = images
        self.image_tokens = image_tokens
        self._byte_base = ids.byte_base
        control = Modality.CONTROL

        def piece(*tokens: int) -> _Piece:
            return tokens, (control,) * len(tokens)

        blank = ids.blank if style == "paper" else ()
        line_break = ids.line_break if style == "paper" else ()
        if style == "minimal":
            self._open, self._type_open, self._text_open = piece(), piece(), piece()
            self._text_close, self._close = piece(ids.text_end), piece()
        else:
            self._open = piece(ids.start_of_event, *blank, ids.time_start)
            self._type_open = piece(ids.time_end, *blank, ids.type_start)
            self._text_open = piece(ids.type_end, *blank, ids.text_start)
            self._text_close = piece(ids.text_end)
            self._close = piece(*blank, ids.end_of_event, *line_break)
        self._image = (
            (*blank, ids.vision_start, *(ids.image_pad,) * image_tokens, ids.vision_end),
            (*(control,) * (len(blank) + 1), *(Modality.MASKED,) * image_tokens, control),
        )
        self._similar = piece(ids.similar_event, *line_break)
        self.prefix = ids.prefix if style == "paper" else ()

    @property
    def image_cost(self) -> int:
        """Tokens that showing one image adds."""
        return len(self._image[0])

    def shown(self, events: Events) -> NDArray[np.bool_]:
        """(E,) True where the event's image is written out, the window starting at event 0."""
        full = ~events.similar & (events.frames != NO_FRAME)
        if self.images == "none":
            return np.zeros(len(events), dtype=np.bool_)
        if self.images == "per_event":
            return full
        candidates = np.flatnonzero(full)
        frames = events.frames[candidates]
        changed = np.ones(len(candidates), dtype=np.bool_)
        changed[1:] = frames[1:] != frames[:-1]
        shown = np.zeros(len(events), dtype=np.bool_)
        shown[candidates[changed]] = True
        return shown

    def costs(self, events: Events) -> NDArray[np.int64]:
        """(E,) tokens each event takes in a window that starts at event 0, without the prefix."""
        fixed = sum(
            len(part[0])
            for part in (
                self._open,
                self._type_open,
                self._text_open,
                self._text_close,
                self._close,
            )
        )
        full = fixed + NUM_BYTES + 1 + np.diff(events.text_offsets)
        full = full + self.image_cost * self.shown(events)
        return np.where(events.similar, len(self._similar[0]), full).astype(np.int64)

    def write(self, events: Events) -> Tokens:
        """Write a window of events; the inverse of nothing is lost but what ``similar`` drops.

        Args:
            events: the window, E events; its first kept event shows its image.

        Returns:
            The tokens, ``len(prefix) + sum(costs)`` of them. The prefix is masked.
        """
        full, shown = ~events.similar, self.shown(events)
        text_lengths = np.diff(events.text_offsets)
        whole = full.astype(np.int64)
        columns = [
            self._fixed(self._open, full),
            _Column(
                whole * NUM_BYTES,
                events.time_bytes[full].ravel().astype(np.int32) + self._byte_base,
                1,
            ),
            self._fixed(self._type_open, full),
            _Column(whole, events.types[full].astype(np.int32) + self._byte_base, 2),
            self._fixed(self._text_open, full),
            _Column(whole * text_lengths, _kept_text(events, full), 3),
            self._fixed(self._text_close, full),
            self._fixed(self._image, shown),
            self._fixed(self._close, full),
            self._fixed(self._similar, events.similar),
        ]
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
        event = np.repeat(np.arange(len(events), dtype=np.int32), lengths.sum(axis=1))
        event = np.concatenate([np.full(len(self.prefix), -1, dtype=np.int32), event])
        return Tokens(ids, modality, event, events.frames[shown])

    def _fixed(self, piece: _Piece, where: NDArray[np.bool_]) -> "_Column":
        tokens, modality = piece
        count = int(where.sum())
        return _Column(
            where.astype(np.int64) * len(tokens),
            np.tile(np.asarray(tokens, dtype=np.int32), count),
            np.tile(np.asarray(modality, dtype=np.uint8), count),
        )


@dataclass(frozen=True, slots=True)
class _Column:
    """One part of every event: how long it is in each, and all its tokens one after the other."""

    lengths: NDArray[np.int64]
    ids: NDArray[np.integer]
    modality: NDArray[np.uint8] | int


def _kept_text(events: Events, full: NDArray[np.bool_]) -> NDArray[np.int32]:
    lengths = np.diff(events.text_offsets)
    return events.text_ids[np.repeat(full, lengths)]


def _ragged_positions(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions ``starts[i] .. starts[i] + lengths[i] - 1`` for all i, concatenated."""
    total = int(lengths.sum())
    within = np.arange(total) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.repeat(starts, lengths) + within
