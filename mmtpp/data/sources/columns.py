"""Any table with a mapping of its columns: one row an event, or one row a sequence of lists."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from mmtpp.data.sources.reader import RawEvent, SourceReader, stem
from mmtpp.data.sources.tables import (
    SUFFIXES,
    CsvFormat,
    MalformedFileError,
    Record,
    Table,
    Unreadable,
    count_lines,
    read_table_file,
    suffix_of,
)
from mmtpp.data.sources.times import TimeFormat, read_times


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of the columns, and how their times are written; empty for a column there is not.

    Attributes:
        time: A number in the source's unit, or a date and time.
        date: The date, where ``time`` has the time of day alone.
        time_format: See ``times.TimeFormat.name``.
        time_zone: IANA name of the zone of dates that state none.
        year: Year of the first date of each file, where dates have none.
        sequence: The same for all rows of a sequence; without it a file is one sequence.
        type: A code or a name; without it every event is of type 0.
        text: Without it texts are empty, as they are where the column has none.
        image: Path relative to the source root.
        interval: A declared waiting time, only compared with the recomputed one.
        split: The part that a record is given for.
    """

    time: str
    date: str = ""
    time_format: str = ""
    time_zone: str = "UTC"
    year: int = 0
    sequence: str = ""
    type: str = ""
    text: str = ""
    image: str = ""
    interval: str = ""
    split: str = ""

    @property
    def names(self) -> list[str]:
        """The columns that are mapped."""
        named = (
            self.time,
            self.date,
            self.sequence,
            self.type,
            self.text,
            self.image,
            self.interval,
            self.split,
        )
        return [name for name in named if name]


@dataclass(frozen=True, slots=True)
class ColumnsParser:
    """Parses tables with a fixed mapping; picklable.

    Attributes:
        columns: The mapping.
        seconds_per_unit: Seconds in the unit that dates are converted to.
        optional: Mapped columns that a file need not have.
        csv: How CSV files are written.
    """

    columns: Columns
    seconds_per_unit: float
    optional: tuple[str, ...] = ()
    csv: CsvFormat = field(default_factory=CsvFormat)

    def __call__(self, path: str, data: bytes) -> Iterator[RawEvent]:
        """Raw events of one file.

        Raises:
            MalformedFileError: Unreadable, or a mapped column is not there.
        """
        yield from self.of_table(
            path, read_table_file(path, data, wanted=self.columns.names, form=self.csv)
        )

    def of_table(self, path: str, table: Table) -> Iterator[RawEvent]:
        """Raw events of the records of a file, the times of which are read together.

        Raises:
            MalformedFileError: A mapped column is not there.
        """
        if table.names is not None:
            self._check_columns(path, table.names, None)
        events = list(self._found(path, table.records))
        good = [event for event in events if not event.problem]
        times = read_times([event.time for event in good], self._time_format())
        for event, value in zip(good, times.values, strict=True):
            event.time = value
            event.is_dated = times.are_dates
        yield from events

    def count(self, path: str, data: bytes) -> int | None:
        """Number of events a file seems to hold; None where that cannot be known."""
        suffix = suffix_of(path)
        if suffix in (".csv", ".tsv"):
            return max(0, count_lines(data) - 1)
        if suffix in (".jsonl", ".ndjson"):
            return count_lines(data)
        if suffix == ".json":
            return data.count(f'"{self.columns.time}"'.encode("utf-8", "replace")) or None
        return None

    def _time_format(self) -> TimeFormat:
        columns = self.columns
        return TimeFormat(
            columns.time_format, columns.time_zone, columns.year, self.seconds_per_unit
        )

    def _check_columns(self, path: str, names: Iterable[str], num_events: int | None) -> None:
        there = tuple(names)
        missing = set(self.columns.names) - set(self.optional) - set(there)
        if missing:
            raise MalformedFileError(
                f"{path}: no column {', '.join(map(repr, sorted(missing)))}; "
                f"it has {', '.join(map(repr, there))}"
                "\n  setting: source.columns, source.csv.separator",
                num_events=num_events,
            )

    def _found(self, path: str, records: Iterable[Record]) -> Iterator[RawEvent]:
        """The records of a file as events, times as they are written."""
        name = stem(path)
        seen: dict[str, None] = {}
        num_records = 0
        for row, record, problem in records:
            if record is None or problem:
                unknown = "" if self.columns.sequence else name
                yield RawEvent(unknown, row, None, None, None, None, record, problem)
                continue
            num_records += 1
            seen.update(dict.fromkeys(record))
            if isinstance(record.get(self.columns.time), list):
                yield from self._of_lists(name, row, record)
            else:
                yield self._of_row(name, row, record)
        if seen:
            self._check_columns(path, seen, num_records)

    def _of_row(self, name: str, row: int, record: dict) -> RawEvent:
        columns = self.columns
        if columns.sequence:
            name = _name(record.get(columns.sequence))
            if not name:
                problem = f"column {columns.sequence!r}, the sequence, is empty"
                return RawEvent(name, row, None, None, None, None, record, problem)
        when: object = record.get(columns.time)
        if columns.date:
            when = _joined(record.get(columns.date), when)
        return RawEvent(
            sequence=name,
            row=row,
            time=when,
            type=record.get(columns.type) if columns.type else 0,
            text=_text(record.get(columns.text)) if columns.text else "",
            image=(record.get(columns.image) or None) if columns.image else None,
            record=record,
            interval=_interval(record.get(columns.interval)) if columns.interval else None,
            part=self._part(record),
        )

    def _of_lists(self, name: str, row: int, record: dict) -> Iterator[RawEvent]:
        columns = self.columns
        sequence = f"{name}#{row}"
        if columns.sequence:
            sequence = _name(record.get(columns.sequence)) or sequence
        size = len(record[columns.time])
        named: dict[str, Any] = {}
        for what in ("date", "type", "text", "image", "interval"):
            column = getattr(columns, what)
            values = record.get(column) if column else None
            if values is not None and (not isinstance(values, list) or len(values) != size):
                found = len(values) if isinstance(values, list) else type(values).__name__
                problem = f"column {column!r} has {found} values, {columns.time!r} has {size}"
                for index in range(max(1, size)):  # each event is counted
                    event = {"event": index, "columns": list(record)}
                    yield RawEvent(sequence, row, None, None, None, None, event, problem)
                return
            named[what] = values
        defaults, part = {"type": None if columns.type else 0}, self._part(record)
        for index, when in enumerate(record[columns.time]):
            event = {
                what: defaults.get(what) if values is None else values[index]
                for what, values in named.items()
            }
            yield RawEvent(
                sequence=sequence,
                row=row,
                time=_joined(event["date"], when) if columns.date else when,
                type=event["type"],
                text=_text(event["text"]),
                image=event["image"],
                record={"event": index, "time": when, **event},
                interval=_interval(event["interval"]),
                part=part,
            )

    def _part(self, record: dict) -> object:
        """Name of the record's part; None where no column says it."""
        column = self.columns.split
        return _text(record.get(column)) if column else None


def _joined(day: object, clock: object) -> object:
    """A date and a time of day as one value; None where either is missing."""
    if isinstance(day, datetime):
        day = day.date()
    if isinstance(day, date) and isinstance(clock, time):
        return datetime.combine(day, clock)
    parts = [_word(day), _word(clock)]
    return " ".join(parts) if all(parts) else None


def _word(value: object) -> str:
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def _interval(value: object) -> object:
    """A declared interval; None where none is declared."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, str):
        if not value.strip():
            return None
        try:
            return float(value)
        except ValueError:
            return value
    return None if value != value else value


def _name(value: object) -> str:
    """A sequence id as text; empty where there is none."""
    if value is None or value != value or isinstance(value, Unreadable):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # integers with gaps between them become decimals in some formats
    text = str(value)
    return text if text.strip() else ""


def _text(value: object) -> object:
    """A missing text is an empty one, a number is text too."""
    if value is None or value != value:  # NaN is how some writers say missing
        return ""
    return str(value) if isinstance(value, int | float) else value


def columns_reader(
    columns: Columns, *, seconds_per_unit: float, csv: CsvFormat | None = None
) -> SourceReader:
    """A reader of tables with this mapping."""
    parser = ColumnsParser(columns, seconds_per_unit, csv=csv or CsvFormat())
    return SourceReader(SUFFIXES, parser, count=parser.count)
