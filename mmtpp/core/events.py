"""The data model: a sequence as read, a rejected record, and a tokenised sequence."""

import re
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

MAX_TYPES = 256  # a type is written as one byte token
NO_FRAME = -1
_LINE = re.compile(r"(line \d+): ")


@dataclass(frozen=True, slots=True)
class EventSequence:
    """One sequence, ordered by time.

    Attributes:
        sequence_id: Name of the sequence, unique in its data set.
        times: (E,) float64 times in the source's unit, not decreasing; ties are in file order.
        types: (E,) int16 types, 0 to 255.
        texts: E strings, possibly empty.
        images: E image paths relative to the source root; None for an event without image.
        questions: Pairs of a question about the sequence and its answer.
    """

    sequence_id: str
    times: NDArray[np.float64]
    types: NDArray[np.int16]
    texts: tuple[str, ...]
    images: tuple[str | None, ...]
    questions: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        num_events = len(self.times)
        if not num_events == len(self.types) == len(self.texts) == len(self.images):
            raise ValueError(f"{self.sequence_id}: columns of unequal length")

    def __len__(self) -> int:
        return len(self.times)

    def slice(self, start: int, end: int) -> "EventSequence":
        """The sequence with some of its events; name and questions stay.

        Args:
            start: Position of the first event.
            end: Position after the last event.
        """
        return replace(
            self,
            times=self.times[start:end],
            types=self.types[start:end],
            texts=self.texts[start:end],
            images=self.images[start:end],
        )


@dataclass(frozen=True, slots=True)
class Rejected:
    """One record that was read but not kept.

    Attributes:
        path: File of the record, relative to the source root. For ``unreadable_image`` of a
            sequence from several files, the first and the last of them.
        row: Index in the file, from 0 (for ``unreadable_image`` the index in order of time); -1
            means the whole file.
        cause: Short fixed phrase, the key of ``rejected_by_cause``.
        detail: Exact fault; in files with lines it begins with ``line N:``, counted from 1.
        record: The record as read, truncated to 1,000 characters.
        sequence_id: Name of the record's sequence; empty if the record does not name it.
        time: Time of the record in the source's unit; None if it cannot be read.
        is_last: True if no kept event of the sequence follows in the file.
        events: Number of events that are lost; more than one for a whole file.
    """

    path: str
    row: int
    cause: str
    detail: str
    record: str
    sequence_id: str = ""
    time: float | None = None
    is_last: bool = False
    events: int = 1

    @property
    def position(self) -> str:
        """Position for messages, counted from 1: ``line 2``, ``row 1``; empty for a whole file."""
        if line := _LINE.match(self._detail_of_path()):
            return line[1]
        if self.row < 0:
            return ""
        return f"{'event' if self.cause == 'unreadable_image' else 'row'} {self.row + 1}"

    @property
    def fault(self) -> str:
        """The detail without path and position."""
        detail = self._detail_of_path()
        line = _LINE.match(detail)
        return detail[line.end() :] if line else detail

    def _detail_of_path(self) -> str:
        return self.detail.removeprefix(f"{self.path}: ")

    def message(self) -> str:
        """Path, position and fault."""
        return f"{', '.join(filter(None, (self.path, self.position)))}: {self.fault}"


@dataclass(frozen=True, slots=True)
class Events:
    """Tokenised events, the input of a template: a sequence or a slice of one.

    Attributes:
        intervals: (E,) float64 intervals in the source's time unit, not negative.
        types: (E,) int16 types.
        text_ids: (X,) int32, the token ids of all texts, concatenated.
        text_offsets: (E + 1,) int64, limits of the texts within ``text_ids``.
        frames: (E,) int32 index of the event's image, or ``NO_FRAME``.
        similar: (E,) True where the event is compressed.
        times: (E,) float64 times in the source's unit, which a template with a calendar writes;
            None where no template with a calendar writes the events.
    """

    intervals: NDArray[np.float64]
    types: NDArray[np.int16]
    text_ids: NDArray[np.int32]
    text_offsets: NDArray[np.int64]
    frames: NDArray[np.int32]
    similar: NDArray[np.bool_]
    times: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.types)

    def slice(self, start: int, end: int) -> "Events":
        """The events from ``start`` to before ``end``, without copying."""
        offsets = self.text_offsets[start : end + 1]
        return Events(
            self.intervals[start:end],
            self.types[start:end],
            self.text_ids[offsets[0] : offsets[-1]],
            offsets - offsets[0],
            self.frames[start:end],
            self.similar[start:end],
            None if self.times is None else self.times[start:end],
        )


def intervals_from_times(times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Time of each event since the previous event, in the unit of ``times``.

    The first event has no predecessor: its interval is 0 by convention and is never scored.

    Args:
        times: (E,) times, not decreasing.

    Returns:
        (E,) float64 intervals, never negative.
    """
    intervals = np.zeros(len(times), dtype=np.float64)
    np.subtract(times[1:], times[:-1], out=intervals[1:])
    return intervals
