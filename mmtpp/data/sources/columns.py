"""Any table with a mapping of its columns: one row an event, or one row a sequence of lists."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime
from decimal import Decimal

from mmtpp.data.sources.reader import MalformedFileError, RawEvent, SourceReader, stem
from mmtpp.data.sources.tables import SUFFIXES, read_records


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of the columns; empty for one there is not.

    Attributes:
        time: a number in the source's unit, or a date and time (UTC unless it says otherwise).
        sequence: what the rows of one sequence share; without it a file is one sequence.
        type: a code or a name; without it every event is of type 0.
        text: without it texts are empty, as they are where it has none.
        image: path relative to the source root.
        interval: a declared waiting time, only compared with the recomputed one.
        split: the part that a record is given for.
    """

    time: str
    sequence: str = ""
    type: str = ""
    text: str = ""
    image: str = ""
    interval: str = ""
    split: str = ""


@dataclass(frozen=True, slots=True)
class ColumnsParser:
    """Parses tables with a fixed mapping; picklable.

    Attributes:
        columns: the mapping.
        seconds_per_unit: for times given as dates.
        optional: mapped columns that a file need not have.
    """

    columns: Columns
    seconds_per_unit: float
    optional: tuple[str, ...] = ()

    def __call__(self, path: str, data: bytes) -> Iterator[RawEvent]:
        """Raw events of one file.

        Raises:
            MalformedFileError: unreadable, or no record has a mapped column.
        """
        yield from self.of_records(path, read_records(path, data))

    def of_records(
        self, path: str, records: Iterator[tuple[int, dict | None, str]]
    ) -> Iterator[RawEvent]:
        """Raw events of records already read."""
        name, missing = stem(path), set(self._mapped())
        seen: dict[str, None] = {}
        for row, record, problem in records:
            if record is None or problem:
                yield RawEvent(name, row, None, None, None, None, record, problem)
                continue
            seen.update(dict.fromkeys(record))
            missing.difference_update(record)
            if isinstance(record.get(self.columns.time), list):
                yield from self._of_lists(name, row, record)
            else:
                yield self._of_row(name, row, record)
        if missing and seen:
            raise MalformedFileError(
                f"{path}: no column {', '.join(map(repr, sorted(missing)))}; "
                f"it has {', '.join(map(repr, seen))}"
                "\n  setting: source.columns"
            )

    def _mapped(self) -> list[str]:
        columns = (getattr(self.columns, each.name) for each in fields(self.columns))
        return [column for column in columns if column and column not in self.optional]

    def _of_row(self, name: str, row: int, record: dict) -> RawEvent:
        columns = self.columns
        if columns.sequence:
            name = _name(record.get(columns.sequence))
            if not name:
                problem = f"column {columns.sequence!r}, the sequence, is empty"
                return RawEvent(name, row, None, None, None, None, record, problem)
        return RawEvent(
            sequence=name,
            row=row,
            time=self._time(record.get(columns.time)),
            type=record.get(columns.type) if columns.type else 0,
            text=_text(record.get(columns.text)) if columns.text else "",
            image=record.get(columns.image) if columns.image else None,
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
        named = {}
        for what in ("type", "text", "image", "interval"):
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
        for index, time in enumerate(record[columns.time]):
            event = {
                what: defaults.get(what) if values is None else values[index]
                for what, values in named.items()
            }
            yield RawEvent(
                sequence=sequence,
                row=row,
                time=self._time(time),
                type=event["type"],
                text=_text(event["text"]),
                image=event["image"],
                record={"event": index, "time": time, **event},
                interval=_interval(event["interval"]),
                part=part,
            )

    def _part(self, record: dict) -> object:
        """What the record's part is called; None where no column says it."""
        column = self.columns.split
        return _text(record.get(column)) if column else None

    def _time(self, value: object) -> object:
        number = _number(value)
        if isinstance(number, str):
            try:
                number = datetime.fromisoformat(number.strip())
            except ValueError:
                return number
        if isinstance(number, date) and not isinstance(number, datetime):
            number = datetime(number.year, number.month, number.day)
        if isinstance(number, datetime):
            aware = number if number.tzinfo else number.replace(tzinfo=UTC)
            seconds = aware.timestamp()
            return seconds / self.seconds_per_unit if seconds >= 0 else f"{number}, before 1970"
        return number


def _number(value: object) -> object:
    """A number in letters, as CSV has it, as a number; anything else as it is."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _interval(value: object) -> object:
    """A declared interval; None where none is declared."""
    number = _number(value)
    return None if number == "" or number != number else number


def _name(value: object) -> str:
    """A sequence id as text; empty where there is none."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # what numbers with gaps between become
    return "" if value is None or value != value else str(value)


def _text(value: object) -> object:
    """A missing text is an empty one, a number is text too."""
    if value is None or value != value:  # NaN is how some writers say missing
        return ""
    return str(value) if isinstance(value, int | float) else value


def columns_reader(columns: Columns, *, seconds_per_unit: float) -> SourceReader:
    """A reader of tables with this mapping."""
    return SourceReader(SUFFIXES, ColumnsParser(columns, seconds_per_unit))
