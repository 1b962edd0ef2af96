"""Reading tokens back: the inverse of a template, for generated tokens and for tests."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.template import Template
from mmtpp.core.timecode import decode_intervals


@dataclass(frozen=True, slots=True)
class WrittenEvent:
    """An event that was written in full.

    Attributes:
        interval: what its time code decodes to, in the source's time unit.
        type: its code.
        text_ids: its text.
        has_image: whether its image was shown.
    """

    interval: float
    type: int
    text_ids: tuple[int, ...]
    has_image: bool


@dataclass(frozen=True, slots=True)
class WrittenRun:
    """Similar events.

    Attributes:
        count: how many.
        span: their summed intervals as the time code decodes them; None where each was written
            as a token of its own, which keeps no time.
    """

    count: int
    span: float | None


def read_tokens(ids: NDArray[np.integer], template: Template) -> list[WrittenEvent | WrittenRun]:
    """Read a written window back.

    Args:
        ids: (T,) of whole events, with the prefix where the style has one.
        template: what they were written with.

    Returns:
        Events and runs in order.

    Raises:
        ValueError: not in the template's layout; says at which token.
    """
    cursor = _Cursor([int(token) for token in ids], template)
    cursor.skip(template.prefix)
    items: list[WrittenEvent | WrittenRun] = []
    while not cursor.at_end():
        items.append(cursor.run() if cursor.is_at(template.ids.similar_event) else cursor.event())
    return items


class _Cursor:
    def __init__(self, tokens: list[int], template: Template) -> None:
        ids, settings = template.ids, template.settings
        self._tokens, self._place = tokens, 0
        self._ids, self._settings = ids, settings
        self._byte_of = {token: value for value, token in enumerate(ids.byte_ids)}
        self._type_of = {token: code for code, token in enumerate(ids.type_ids)}
        markers = (ids.text_end, ids.similar_event, ids.vision_start, ids.image_pad)
        self._ends_text = {*ids.byte_ids, *ids.type_ids, *markers}
        self._layout = template.layout

    def at_end(self) -> bool:
        return self._place == len(self._tokens)

    def is_at(self, token: int) -> bool:
        return not self.at_end() and self._tokens[self._place] == token

    def skip(self, expected: tuple[int, ...]) -> None:
        for token in expected:
            if not self.is_at(token):
                raise self._error(f"token {token} expected")
            self._place += 1

    def run(self) -> WrittenRun:
        self.skip((self._ids.similar_event,))
        count, span = 1, None
        if self._settings.run_encoding == "run_length":
            count = self._one_of(self._byte_of, "a count")
            if not count:
                raise self._error("a count above 0 expected")
            span = self._time()
        self.skip(self._layout.similar_close)
        return WrittenRun(count, span)

    def event(self) -> WrittenEvent:
        layout = self._layout
        self.skip(layout.time_open)
        interval = self._time()
        self.skip(layout.type_open)
        code = self._one_of(self._type_of, "a type")
        self.skip(layout.text_open)
        text = self._text()
        self.skip(layout.text_close)
        has_image = self._image()
        self.skip(layout.close)
        return WrittenEvent(interval, code, text, has_image)

    def _time(self) -> float:
        code = [self._one_of(self._byte_of, "a byte") for _ in range(self._settings.time_bytes)]
        value = float(decode_intervals(np.array([code], dtype=np.uint8))[0])
        if not (math.isfinite(value) and value >= 0):
            raise self._error(f"a waiting time expected before, not {value}")
        return value

    def _text(self) -> tuple[int, ...]:
        start = self._place
        while not self.at_end() and self._tokens[self._place] not in self._ends_text:
            self._place += 1
        return tuple(self._tokens[start : self._place])

    def _image(self) -> bool:
        opening = self._layout.image_open
        if tuple(self._tokens[self._place : self._place + len(opening)]) != opening:
            return False
        pads = (self._ids.image_pad,) * self._settings.image_tokens
        self.skip((*opening, *pads, self._ids.vision_end))
        return True

    def _one_of(self, values: dict[int, int], what: str) -> int:
        value = None if self.at_end() else values.get(self._tokens[self._place])
        if value is None:
            raise self._error(f"{what} expected")
        self._place += 1
        return value

    def _error(self, problem: str) -> ValueError:
        found = "the end" if self.at_end() else f"token {self._tokens[self._place]}"
        return ValueError(f"token {self._place}: {problem}, found {found}")
