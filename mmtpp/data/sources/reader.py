"""The types that every source shares: raw records, what a file gave, and the reader."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from mmtpp.core.events import EventSequence, Rejected


@dataclass(slots=True)
class RawEvent:
    """One record as a source found it, not yet checked.

    Attributes:
        sequence: id of the sequence it belongs to.
        row: Position in the file, from 0.
        time: A number in the source's unit, or why it was not read, or whatever the file had.
        type: a code, a name, or whatever the file had.
        text: the text, whatever the file had.
        image: path relative to the source root, or None.
        record: the raw record, for the rejected table.
        problem: a reason found while parsing, or empty.
        interval: the waiting time the file declares, None when it does not; only compared.
        is_dated: The time was a date.
        part: Name of the part the record is given for, whatever the file had; None where it does
            not say. Records of one id and several parts are several sequences.
    """

    sequence: str
    row: int
    time: object
    type: object
    text: object
    image: object
    record: object
    problem: str = ""
    interval: object = None
    is_dated: bool = False
    part: object = None


@dataclass(frozen=True, slots=True)
class RawQuestion:
    """A question about a sequence, and its answer."""

    sequence: str
    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A record that is no event of this kind of source, such as a gift among comments."""

    kind: str


RawItem = RawEvent | RawQuestion | LeftOut


@dataclass(frozen=True, slots=True)
class RawColumns:
    """The records of a file that is one sequence, as columns, not yet checked; E values each."""

    sequence: str
    times: list
    types: list
    texts: list
    images: list
    intervals: list


@dataclass(frozen=True, slots=True)
class ReadCounts:
    """Counts of what was read, of one file or of many.

    Attributes:
        num_read: Events read, kept or rejected.
        num_reordered: Events that stood before an earlier one in their file.
        num_disagreeing: Kept events whose declared interval is not the one between their times.
        num_folded: Kept events of a rare type, which are of the type ``other`` now.
        left_out: Records that are no events of this kind of source, by kind.
        num_dated: Kept events whose times were dates.
    """

    num_read: int = 0
    num_reordered: int = 0
    num_disagreeing: int = 0
    num_folded: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    num_dated: int = 0

    def __add__(self, more: "ReadCounts") -> "ReadCounts":
        left_out = Counter(self.left_out) + Counter(more.left_out)
        return ReadCounts(
            self.num_read + more.num_read,
            self.num_reordered + more.num_reordered,
            self.num_disagreeing + more.num_disagreeing,
            self.num_folded + more.num_folded,
            dict(left_out),
            self.num_dated + more.num_dated,
        )


@dataclass(frozen=True, slots=True)
class ParsedFile:
    """The content of one file.

    Attributes:
        sequences: Kept events in order of time, a sequence each, in order of appearance.
        rejected: Records that were not kept.
        counts: Of events.
        parts: train, validation or test for each sequence, as the records say; empty where they do
            not.
    """

    sequences: list[EventSequence]
    rejected: list[Rejected]
    counts: ReadCounts
    parts: tuple[str, ...] = ()

    def part_of_each(self) -> list[str]:
        """The part of each sequence, empty where the records do not say."""
        return list(self.parts) if self.parts else [""] * len(self.sequences)


@dataclass(frozen=True, slots=True)
class SourceReader:
    """A kind of source.

    Attributes:
        suffixes: Endings of its event files, in small letters; ``.gz`` may follow each.
        parse: From the path and content of a file to its raw events and questions.
        seconds_per_unit: Of its times; None when the configuration says.
        type_names: Names by code, where the source fixes them.
        columns: From the path and content of a file to its columns; None where a record is not as
            expected, or the file has questions.
        split_by: Of a sequence, what keeps it on one side of the split; its id when None.
        count: From the path and content of a file that cannot be read to the number of events it
            seems to hold; None where that cannot be known.
    """

    suffixes: tuple[str, ...]
    parse: Callable[[str, bytes], Iterable[RawItem]]
    seconds_per_unit: float | None = None
    type_names: tuple[str, ...] = field(default=())
    columns: Callable[[str, bytes], RawColumns | None] | None = None
    split_by: Callable[[EventSequence], str] | None = None
    count: Callable[[str, bytes], int | None] | None = None

    def reads(self, path: str) -> bool:
        """Whether a file of this name is an event file of the source."""
        return path.lower().removesuffix(".gz").endswith(self.suffixes)


def stem(path: str) -> str:
    """The path without its suffix, ``.gz`` included: the id of a file's only sequence."""
    folder, slash, name = path.rpartition("/")
    if name.lower().endswith(".gz"):
        name = name[: -len(".gz")]
    return f"{folder}{slash}{name.rpartition('.')[0] or name}"
