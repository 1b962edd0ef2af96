"""Parsing tokens into events: the inverse of a template, with which tests check what it writes."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.representation.template import Template
from mmtpp.core.representation.timecode import decode_intervals


@dataclass(frozen=True, slots=True)
class ParsedEvent:
    """An event that was written in full.

    Attributes:
        interval: Interval of the time code, in the source's time unit.
        type: Number of the type.
        text_ids: Token ids of the text.
        has_image: Whether the image was shown.
    """

    interval: float
    type: int
    text_ids: tuple[int, ...]
    has_image: bool


@dataclass(frozen=True, slots=True)
class ParsedRun:
    """A run of similar events.

    Attributes:
        count: Number of events.
        span: Sum of their intervals, from the time code; None if every similar event is a token of
            its own, which has no time.
    """

    count: int
    span: float | None


def parse_tokens(ids: NDArray[np.integer], template: Template) -> list[ParsedEvent | ParsedRun]:
    """Parse the tokens of a window.

    Args:
        ids: (T,) token ids of whole events, with the prefix if the style has one.
        template: Template that wrote the tokens.

    Returns:
        Events and runs in order.

    Raises:
        ValueError: A token does not fit the template's layout; the message names the token.
    """
    parser = _Parser([int(token) for token in ids], template)
    parser.skip(template.prefix)
    items: list[ParsedEvent | ParsedRun] = []
    while not parser.at_end():
        items.append(parser.run() if parser.is_at(template.ids.similar_event) else parser.event())
    return items


class _Parser:
    """Reads one token after another."""

    def __init__(self, tokens: list[int], template: Template) -> None:
        ids, settings = template.ids, template.settings
        self._tokens, self._position = tokens, 0
        self._ids, self._settings = ids, settings
        self._byte_of_id = {token: value for value, token in enumerate(ids.byte_ids)}
        self._type_of_id = {token: code for code, token in enumerate(ids.type_ids)}
        markers = (ids.text_end, ids.similar_event, ids.vision_start, ids.image_pad)
        self._ends_text = {*ids.byte_ids, *ids.type_ids, *markers}
        self._layout = template.layout
        self._calendar_cost = template.calendar_cost

    def at_end(self) -> bool:
        return self._position == len(self._tokens)

    def is_at(self, token: int) -> bool:
        return not self.at_end() and self._tokens[self._position] == token

    def skip(self, expected: tuple[int, ...]) -> None:
        for token in expected:
            if not self.is_at(token):
                raise self._error(f"token {token} expected")
            self._position += 1

    def run(self) -> ParsedRun:
        self.skip((self._ids.similar_event,))
        count, span = 1, None
        if self._settings.run_encoding == "run_length":
            count = self._one_of(self._byte_of_id, "a count")
            if not count:
                raise self._error("a count above 0 expected")
            span = self._time()
        self.skip(self._layout.similar_close)
        return ParsedRun(count, span)

    def event(self) -> ParsedEvent:
        layout = self._layout
        self.skip(layout.time_open)
        interval = self._time()
        self._position += self._calendar_cost
        self.skip(layout.type_open)
        code = self._one_of(self._type_of_id, "a type")
        self.skip(layout.text_open)
        text = self._text()
        self.skip(layout.text_close)
        has_image = self._image()
        self.skip(layout.close)
        return ParsedEvent(interval, code, text, has_image)

    def _time(self) -> float:
        code = [self._one_of(self._byte_of_id, "a byte") for _ in range(self._settings.time_bytes)]
        value = float(decode_intervals(np.array([code], dtype=np.uint8))[0])
        if not (math.isfinite(value) and value >= 0):
            raise self._error(f"an interval expected before, not {value}")
        return value

    def _text(self) -> tuple[int, ...]:
        start = self._position
        while not self.at_end() and self._tokens[self._position] not in self._ends_text:
            self._position += 1
        return tuple(self._tokens[start : self._position])

    def _image(self) -> bool:
        opening = self._layout.image_open
        if tuple(self._tokens[self._position : self._position + len(opening)]) != opening:
            return False
        pads = (self._ids.image_pad,) * self._settings.image_tokens
        self.skip((*opening, *pads, self._ids.vision_end))
        return True

    def _one_of(self, values: dict[int, int], description: str) -> int:
        value = None if self.at_end() else values.get(self._tokens[self._position])
        if value is None:
            raise self._error(f"{description} expected")
        self._position += 1
        return value

    def _error(self, problem: str) -> ValueError:
        actual = "the end" if self.at_end() else f"token {self._tokens[self._position]}"
        return ValueError(f"token {self._position}: {problem}, found {actual}")
