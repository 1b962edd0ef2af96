"""New events of live sequences, as clients write them: checked, and converted or rejected."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmtpp.core.events import EventSequence
from mmtpp.core.times.time_format import TimeFormat
from mmtpp.data.sources.reader import InvalidValue
from mmtpp.data.sources.times import read_times
from mmtpp.data.sources.type_codes import TypeCodes
from mmtpp.model.folders.record import TrainedTasks

MAX_TEXT = 10_000
"""Default of the largest length of a text, in characters."""
MAX_NAME = 200
"""Largest length of the name of a sequence, and of an event's key."""
FIELDS = ("sequence", "time", "type", "text", "key")


@dataclass(frozen=True, slots=True)
class LiveEvent:
    """A new event.

    Attributes:
        sequence_id: Name of its sequence.
        time: Time in the model's unit.
        type_code: Code of its type.
        text: Its text, possibly empty.
        key: Key by which a repeated event is recognised, unique in the sequence; empty for none.
    """

    sequence_id: str
    time: float
    type_code: int
    text: str = ""
    key: str = ""

    def has_content_of(self, other: "LiveEvent") -> bool:
        """Whether two events differ at most in their keys."""
        return (self.time, self.type_code, self.text) == (other.time, other.type_code, other.text)


@dataclass(frozen=True, slots=True)
class RejectedEvent:
    """An event that was not accepted.

    Attributes:
        cause: Short fixed phrase, by which rejected events are counted.
        message: What is wrong, with the value, and what to do.
        num_events: Number of events of the sequence, where the sender assumed another one.
    """

    cause: str
    message: str
    num_events: int | None = None


class EventReader:
    """Reads new events.

    Args:
        trained_tasks: Types and time unit of the model.
        known_codes: Codes of the types that the model can read.
        max_text: Largest length of a text, in characters.
    """

    def __init__(
        self, trained_tasks: TrainedTasks, known_codes: frozenset[int], *, max_text: int
    ) -> None:
        self._types = TypeCodes(trained_tasks.type_names)
        self._time_format = TimeFormat(seconds_per_unit=trained_tasks.seconds_per_unit)
        self._known_codes, self._max_text = known_codes, max_text

    def read(self, raw: object) -> LiveEvent | RejectedEvent:
        """Read one event.

        Args:
            raw: JSON object with ``sequence``, ``time`` (a number in the model's unit or a date),
                ``type`` (a name or a code) and perhaps ``text`` and ``key``.
        """
        if not isinstance(raw, Mapping):
            return RejectedEvent("not_an_object", f"an event is a JSON object, not {_shown(raw)}")
        unknown = [name for name in raw if name not in FIELDS]
        if unknown:
            names = ", ".join(FIELDS)
            return RejectedEvent(
                "unknown_field", f"unknown field {_shown(unknown[0])}; the fields are {names}"
            )
        sequence_id, key, text = raw.get("sequence"), raw.get("key"), raw.get("text")
        if not isinstance(sequence_id, str) or not 0 < len(sequence_id) <= MAX_NAME:
            return RejectedEvent(
                "bad_sequence",
                f"sequence is {_shown(sequence_id)}; a name has 1 to {MAX_NAME} characters",
            )
        if key is not None and (not isinstance(key, str) or not 0 < len(key) <= MAX_NAME):
            return RejectedEvent(
                "bad_key", f"key is {_shown(key)}; a key is a text of 1 to {MAX_NAME} characters"
            )
        if text is not None and not isinstance(text, str):
            return RejectedEvent("bad_text", f"text is {_shown(text)}; a text is a string")
        if not all(map(_is_unicode, (sequence_id, key or "", text or ""))):
            return RejectedEvent(
                "bad_text", "a text, name or key has half of a surrogate pair: no valid Unicode"
            )
        if text is not None and len(text) > self._max_text:
            return RejectedEvent(
                "long_text", f"text has {len(text):,} characters; max_text = {self._max_text:,}"
            )
        time, code = self._time(raw.get("time")), self._code(raw.get("type"))
        if isinstance(time, RejectedEvent):
            return time
        if isinstance(code, RejectedEvent):
            return code
        return LiveEvent(sequence_id, time, code, text or "", key or "")

    def _time(self, value: Any) -> float | RejectedEvent:
        if isinstance(value, int | float) and not isinstance(value, bool):
            try:
                number: object = float(value)
            except OverflowError:
                number = np.inf
        else:
            [number] = read_times([value], self._time_format).values
        if isinstance(number, InvalidValue):
            return RejectedEvent(number.cause, number.detail)
        assert isinstance(number, float)
        if not np.isfinite(number):
            return RejectedEvent("unreadable_time", f"time is {_shown(value)}: not finite")
        return number

    def _code(self, value: Any) -> int | RejectedEvent:
        code = self._types.code(value)
        if isinstance(code, InvalidValue):
            return RejectedEvent(code.cause, code.detail)
        if code not in self._known_codes:
            return RejectedEvent(
                "unknown_type",
                f"type is {_shown(value)}, which did not occur in the model's training events",
            )
        return code


def to_sequence(sequence_id: str, events: Sequence[LiveEvent]) -> EventSequence:
    """Events of one sequence, in order, as columns."""
    return EventSequence(
        sequence_id,
        np.array([event.time for event in events], dtype=np.float64),
        np.array([event.type_code for event in events], dtype=np.int16),
        tuple(event.text for event in events),
        (None,) * len(events),
    )


def _is_unicode(text: str) -> bool:
    """Whether a text can be written: JSON's escapes may name halves of surrogate pairs."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(value: object) -> str:
    return repr(value)[:100]
