"""Types that all sources share: raw records, the content of a file, and the reader itself."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from mmtpp.core.events import EventSequence, Rejected
from mmtpp.core.representation.timecode import MAX_INTERVAL
from mmtpp.data.sources.event_files import unpacked_path

# Declared intervals are often rounded. Only a larger difference to the recomputed interval counts.
INTERVAL_RTOL, INTERVAL_ATOL = 1e-3, 1e-3
MAX_TIME = MAX_INTERVAL / 2  # the interval between any two times then has a code


@dataclass(frozen=True, slots=True)
class InvalidValue:
    """A value of a file that is not valid as a time, type, text or path.

    Attributes:
        cause: Key of the rejected record, for example ``missing_time``.
        detail: Reason, with the setting that helps.
    """

    cause: str
    detail: str


@dataclass(slots=True)
class RawEvent:
    """One record of a file, before it is checked. Values may have any type that the file has.

    Attributes:
        sequence: Id of the sequence.
        row: Index of the record in the file, from 0.
        time: Time in the source's unit, or ``InvalidValue``.
        type: Code or name of the type.
        text: Text of the event.
        image: Path of the image relative to the source root; None without an image.
        record: The record as read, for the table of rejected records.
        problem: Reason why the record is malformed; None for a well-formed record.
        interval: Declared time since the previous event; None if not declared. It is only
            compared with the recomputed interval.
        is_dated: Whether the time was a date.
        split: Name of the split; None if the record names none. Records of one id with different
            splits become different sequences.
        line: First line of the record, from 1; None in files without lines.
    """

    sequence: str
    row: int
    time: object
    type: object
    text: object
    image: object
    record: object
    problem: str | None = None
    interval: object = None
    is_dated: bool = False
    split: object = None
    line: int | None = None


def malformed_event(sequence: str, row: int, record: object, problem: str) -> RawEvent:
    """Build an event that is rejected as ``malformed_record``.

    Args:
        sequence: Id of the sequence; empty if unknown.
        row: Index of the record in the file, from 0.
        record: The record as read.
        problem: Reason why the record is malformed.
    """
    return RawEvent(
        sequence, row, time=None, type=None, text=None, image=None, record=record, problem=problem
    )


@dataclass(frozen=True, slots=True)
class RawQuestion:
    """A question about a sequence, and its answer."""

    sequence: str
    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A record that is not an event of this kind of source, such as a gift among comments."""

    kind: str


RawItem = RawEvent | RawQuestion | LeftOut


@dataclass(frozen=True, slots=True)
class RawColumns:
    """The E records of a file as columns, before they are checked. Each list has E values.

    Attributes:
        sequences: Id of the sequence of each event; one text if all are of one sequence.
        times: Times in the source's unit.
        types: Codes or names of the types; None if all are 0.
        texts: Texts; None if all are empty.
        images: Paths of images relative to the source root, None or empty for an event without
            one; None if no event has one.
        intervals: Declared intervals, None for an event without one; None if none is declared.
        splits: Names of splits; None if the records name none.
        are_dates: Whether the times were dates.
    """

    sequences: list | str
    times: list
    types: list | None = None
    texts: list | None = None
    images: list | None = None
    intervals: list | None = None
    splits: list | None = None
    are_dates: bool = False


@dataclass(frozen=True, slots=True)
class ReadCounts:
    """Counts of the records of one or more files.

    Attributes:
        num_read: Number of events read, kept or rejected.
        num_reordered: Number of events that stand after a later event in their file.
        num_disagreeing: Number of kept events whose declared interval differs from the
            recomputed interval.
        num_folded: Number of kept events of a rare type, which now have the type ``other``.
        left_out: Number of records that are not events, by kind.
        num_dated: Number of kept events whose times were dates.
        num_replaced: Number of characters that the vocabulary cannot write, in texts and questions.
        num_joined: Number of sequences whose events lie in several files.
    """

    num_read: int = 0
    num_reordered: int = 0
    num_disagreeing: int = 0
    num_folded: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    num_dated: int = 0
    num_replaced: int = 0
    num_joined: int = 0

    def __add__(self, other: "ReadCounts") -> "ReadCounts":
        left_out = Counter(self.left_out) + Counter(other.left_out)
        return ReadCounts(
            self.num_read + other.num_read,
            self.num_reordered + other.num_reordered,
            self.num_disagreeing + other.num_disagreeing,
            self.num_folded + other.num_folded,
            dict(left_out),
            self.num_dated + other.num_dated,
            self.num_replaced + other.num_replaced,
            self.num_joined + other.num_joined,
        )


@dataclass(frozen=True, slots=True)
class ParsedFile:
    """The content of one file.

    Attributes:
        sequences: Sequences of kept events in order of time, in order of appearance.
        rejected: Records that were not kept.
        counts: Counts of the records.
        splits: Split of each sequence (train, validation or test) according to the records; empty
            text where they name none. Empty if no record can name a split.
    """

    sequences: list[EventSequence]
    rejected: list[Rejected]
    counts: ReadCounts
    splits: tuple[str, ...] = ()

    def split_by_sequence(self) -> list[str]:
        """The split of each sequence; empty text where the records name none."""
        return list(self.splits) if self.splits else [""] * len(self.sequences)


@dataclass(frozen=True, slots=True)
class SourceReader:
    """Reader of one kind of source.

    Attributes:
        suffixes: Suffixes of the event files in lower case; the suffix of a packed
            file, such as ``.gz``, may follow.
        parse: Function from the path and content of a file to its raw events and questions.
        seconds_per_unit: Seconds in one unit of the times; None if the configuration sets it.
        type_names: Type names by code; empty if the source does not fix them.
        columns: Function from the path and content of a file to its columns, which are faster to
            check than events. The function returns None for a file that may have a malformed
            record or a question: ``parse`` then decides, and names the fault.
        split_key: Function from a sequence to a key. Sequences with the same key are in the same
            split. None uses the sequence id.
        count: Function from the path and content of an unreadable file to its number of events;
            the function returns None if the number cannot be known.
        names_sequences: Whether the records name their sequence, so that the events of a sequence
            may lie in several files.
        is_published_here: Whether ``prepare`` writes the files itself, from public records.
        csv_encoding: Encoding of CSV files, ``source.csv.encoding``; other text files are UTF-8.
    """

    suffixes: tuple[str, ...]
    parse: Callable[[str, bytes], Iterable[RawItem]]
    seconds_per_unit: float | None = None
    type_names: tuple[str, ...] = field(default=())
    columns: Callable[[str, bytes], RawColumns | None] | None = None
    split_key: Callable[[EventSequence], str] | None = None
    count: Callable[[str, bytes], int | None] | None = None
    names_sequences: bool = False
    is_published_here: bool = False
    csv_encoding: str = "utf-8"

    def reads(self, path: str) -> bool:
        """Whether a file with this name is an event file of the source."""
        return unpacked_path(path).lower().endswith(self.suffixes)
