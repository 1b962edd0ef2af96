"""Tables with a mapping of their columns: a row is an event, or a sequence with cells of lists."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from mmtpp.data.sources.decimals import plain_number
from mmtpp.data.sources.event_files import MalformedFileError, stem, suffix_of
from mmtpp.data.sources.folder_keys import add_folder_keys, folder_keys
from mmtpp.data.sources.nested_fields import (
    add_nested_fields,
    names_of_nested_fields,
    select_dotted,
)
from mmtpp.data.sources.reader import RawColumns, RawEvent, SourceReader, malformed_event
from mmtpp.data.sources.tables import (
    CSV_SUFFIXES,
    SUFFIXES,
    CsvFormat,
    Record,
    Table,
    Unreadable,
    count_lines,
    read_table_file,
    read_values,
)
from mmtpp.data.sources.times import TimeFormat, read_times
from mmtpp.storage.image_files import name_of_bytes


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of the columns, and how their times are written; an empty name means no such column.

    ``a.b`` is the column of that name, or else the field ``b`` of the objects in column ``a``.

    Attributes:
        time: Column of times: numbers in the source's unit, or dates.
        date: Column of dates, if ``time`` has only the time of day.
        time_format: Format of the times, see ``TimeFormat.name``.
        time_zone: IANA name of the zone of dates without a zone.
        year: Year of the first date of each file, for dates without a year.
        sequence: Column of sequence ids; without it, a file is one sequence.
        type: Column of type codes or names; without it, every event has the type 0.
        text: Column of texts; without it, and for missing values, texts are empty.
        image: Column of images: paths relative to the source root, whole URIs, or bytes of files.
        interval: Column of declared intervals, which are only compared with the recomputed ones.
        split: Column of split names.
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
        """Names of the mapped columns."""
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
    """Parser of tables with a fixed mapping of columns; picklable.

    Attributes:
        columns: Mapping of the columns.
        seconds_per_unit: Seconds in one unit of the converted dates.
        optional: Mapped columns that may be missing in a file.
        csv: Format of CSV files.
    """

    columns: Columns
    seconds_per_unit: float
    optional: tuple[str, ...] = ()
    csv: CsvFormat = field(default_factory=CsvFormat)

    def __call__(self, path: str, data: bytes) -> Iterator[RawEvent]:
        """Parse the raw events of one file.

        Raises:
            MalformedFileError: The file is unreadable, a mapped column is missing, or both the
                file and its folders have it.
        """
        names = self.columns.names
        keys = {name: value for name, value in folder_keys(path).items() if name in names}
        wanted = [name for name in names if name not in keys]
        table = read_table_file(path, data, wanted=wanted, csv_format=self.csv)
        yield from self.parse_table(path, add_folder_keys(path, table, keys))

    def parse_columns(self, path: str, data: bytes) -> RawColumns | None:
        """Parse a file whose records are all events, as columns; None for any other file.

        A fault, or a value that only a record by itself explains, leaves the file to ``__call__``.
        """
        names = self.columns.names
        if select_dotted(names):
            return None
        try:
            keys = {name: value for name, value in folder_keys(path).items() if name in names}
            values = read_values(path, data, wanted=names, csv_format=self.csv)
        except MalformedFileError:
            return None
        if values.keys() != set(names) - keys.keys() or self.columns.time in keys:
            return None
        num_events = len(values[self.columns.time])
        values |= {name: [value] * num_events for name, value in keys.items()}
        return self._raw_columns(path, values) if num_events else None

    def _raw_columns(self, path: str, values: dict[str, list]) -> RawColumns | None:
        """The mapped columns as those of events; None if a value is not valid.

        Args:
            path: Path of the file.
            values: Values of each mapped column.
        """
        columns = self.columns
        times = values[columns.time]
        if list in set(map(type, times)):
            return None
        if columns.date:
            times = list(map(_join_date, values[columns.date], times))
        read = read_times(times, self._time_format())
        sequences = stem(path)
        if columns.sequence:
            sequences = _distinct_ids(values[columns.sequence])
        if sequences is None or {float} != set(map(type, read.values)):
            return None

        def converted(name: str, convert: Callable[[object], object]) -> list | None:
            return list(map(convert, values[name])) if name in values else None

        return RawColumns(
            sequences=sequences,
            times=read.values,
            types=values.get(columns.type),
            texts=converted(columns.text, _text),
            images=converted(columns.image, _image),
            intervals=converted(columns.interval, _interval),
            splits=converted(columns.split, _text),
            are_dates=read.are_dates,
        )

    def parse_table(self, path: str, table: Table) -> Iterator[RawEvent]:
        """Parse the raw events of a table. All times of the table are read together.

        Args:
            path: Path of the file, for sequence ids and messages.
            table: Records of the file.

        Raises:
            MalformedFileError: A mapped column is missing.
        """
        if table.names is not None:
            self._check_columns(path, table.names, None)
        events = list(self._events(path, table.records))
        well_formed = [event for event in events if not event.problem]
        times = read_times([event.time for event in well_formed], self._time_format())
        for event, value in zip(well_formed, times.values, strict=True):
            event.time = value
            event.is_dated = times.are_dates
        yield from events

    def count(self, path: str, data: bytes) -> int | None:
        """Estimate the number of events in an unreadable file; None if it cannot be known."""
        suffix = suffix_of(path)
        if suffix in CSV_SUFFIXES:
            return max(0, count_lines(data) - 1)
        if suffix in (".jsonl", ".ndjson"):
            return count_lines(data)
        if suffix == ".json":
            field_name = self.columns.time.rpartition(".")[2]
            return data.count(f'"{field_name}"'.encode("utf-8", "replace")) or None
        return None

    def _time_format(self) -> TimeFormat:
        columns = self.columns
        return TimeFormat(
            columns.time_format, columns.time_zone, columns.year, self.seconds_per_unit
        )

    def _check_columns(self, path: str, names: Iterable[str], num_events: int | None) -> None:
        present = tuple(names)
        missing = set(self.columns.names) - set(self.optional) - set(present)
        if missing:
            settings = "source.columns"
            if suffix_of(path) in CSV_SUFFIXES:
                separator = repr(self.csv.separator) if self.csv.separator else "(detected)"
                settings += (
                    f", source.csv.separator = {separator} or source.csv.encoding = "
                    f"{self.csv.encoding}"
                )
            raise MalformedFileError(
                f"{path}: no column {', '.join(map(repr, sorted(missing)))}; "
                f"it has {', '.join(map(repr, present))}; correct {settings}",
                num_events=num_events,
            )

    def _events(self, path: str, records: Iterable[Record]) -> Iterator[RawEvent]:
        """The events of the records, with times as the file has them."""
        name = stem(path)
        seen: dict[str, None] = {}  # names of all columns, in order
        num_records = 0
        dotted = select_dotted(self.columns.names)
        for record in records:
            if record.values is not None and not record.problem:
                num_records += 1
                if dotted:
                    seen.update(dict.fromkeys(names_of_nested_fields(record.values, dotted)))
                    record = _with_nested_fields(record, dotted)
                seen.update(dict.fromkeys(record.values or ()))
            for event in self._events_of_record(name, record):
                event.line = record.line
                yield event
        if seen:
            self._check_columns(path, seen, num_records)

    def _events_of_record(self, name: str, record: Record) -> Iterable[RawEvent]:
        """The events of a record.

        Args:
            name: Path of the file without its suffix.
            record: The record.
        """
        row, values, problem = record.row, record.values, record.problem
        if values is None or problem:
            sequence = "" if self.columns.sequence else name
            problem = problem or "the record cannot be read"
            return [malformed_event(sequence, row, values, problem)]
        if isinstance(values.get(self.columns.time), list):
            return self._list_events(name, row, values)
        return [self._row_event(name, row, values)]

    def _row_event(self, sequence: str, row: int, record: dict) -> RawEvent:
        """The event of a row.

        Args:
            sequence: Sequence id, if no column has it.
            row: Index of the row, from 0.
            record: Values by column.
        """
        columns = self.columns
        if columns.sequence:
            sequence = _sequence_id(record.get(columns.sequence))
            if not sequence:
                problem = f"column {columns.sequence!r}, the sequence, is empty"
                return malformed_event(sequence, row, record, problem)
        time_value: object = record.get(columns.time)
        if columns.date:
            time_value = _join_date(record.get(columns.date), time_value)
        return RawEvent(
            sequence=sequence,
            row=row,
            time=time_value,
            type=record.get(columns.type) if columns.type else 0,
            text=_text(record.get(columns.text)) if columns.text else "",
            image=_image(record.get(columns.image)) if columns.image else None,
            record=record,
            interval=_interval(record.get(columns.interval)) if columns.interval else None,
            split=self._split(record),
        )

    def _list_events(self, name: str, row: int, record: dict) -> Iterator[RawEvent]:
        """The events of a row whose cells are lists.

        Args:
            name: Path of the file without its suffix.
            row: Index of the row, from 0.
            record: Lists by column.
        """
        columns = self.columns
        sequence = f"{name}#{row}"
        if columns.sequence:
            sequence = _sequence_id(record.get(columns.sequence)) or sequence
        size = len(record[columns.time])
        lists: dict[str, Any] = {}
        for field_name in ("date", "type", "text", "image", "interval"):
            column = getattr(columns, field_name)
            values = record.get(column) if column else None
            if values is not None and (not isinstance(values, list) or len(values) != size):
                actual = len(values) if isinstance(values, list) else type(values).__name__
                problem = f"column {column!r} has {actual} values, {columns.time!r} has {size}"
                for index in range(max(1, size)):  # every event is counted
                    event = {"event": index, "columns": list(record)}
                    yield malformed_event(sequence, row, event, problem)
                return
            lists[field_name] = values
        defaults, split = {"type": None if columns.type else 0}, self._split(record)
        for index, time_value in enumerate(record[columns.time]):
            event = {
                field_name: defaults.get(field_name) if values is None else values[index]
                for field_name, values in lists.items()
            }
            yield RawEvent(
                sequence=sequence,
                row=row,
                time=_join_date(event["date"], time_value) if columns.date else time_value,
                type=event["type"],
                text=_text(event["text"]),
                image=_image(event["image"]),
                record={"event": index, "time": time_value, **event},
                interval=_interval(event["interval"]),
                split=split,
            )

    def _split(self, record: dict) -> object:
        """Name of the record's split; None without a column of splits."""
        column = self.columns.split
        return _text(record.get(column)) if column else None


def _distinct_ids(values: list) -> list[str] | None:
    """Sequence ids as text; None if one is missing or they are of several kinds."""
    kinds = set(map(type, values))
    if kinds == {str}:
        return values if all(map(str.strip, set(values))) else None
    if len(kinds) != 1 or not kinds <= {int, float, Decimal}:
        return None
    ids = {value: _sequence_id(value) for value in set(values)}
    return [ids[value] for value in values] if all(ids.values()) else None


def _with_nested_fields(record: Record, names: list[str]) -> Record:
    """The record with the fields of its objects; with a problem if a part of a name is no object.

    Args:
        record: A well-formed record.
        names: Dotted names.
    """
    values = record.values or {}
    try:
        return record._replace(values=add_nested_fields(values, names))
    except ValueError as error:
        problem = f"{error}; correct source.columns"
        return record._replace(values={**dict.fromkeys(names), **values}, problem=problem)


def _join_date(day: object, clock: object) -> object:
    """Join a date and a time of day to one value; None if either is missing."""
    if isinstance(day, datetime):
        day = day.date()
    if isinstance(day, date) and isinstance(clock, time):
        return datetime.combine(day, clock)
    words = [_word(day), _word(clock)]
    return " ".join(words) if all(words) else None


def _word(value: object) -> str:
    """A value as text without surrounding blanks; empty if it is missing."""
    value = plain_number(value)
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def _image(value: object) -> object:
    """A path, None without an image; the bytes of a file as the name that stands for them.

    Hugging Face writes an image as an object with the fields ``bytes`` and ``path``.
    """
    if isinstance(value, dict) and value.keys() <= {"bytes", "path"}:
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return name_of_bytes(value) if value else None
    return value or None


def _interval(value: object) -> object:
    """A declared interval as a number, where possible; None if it is missing."""
    value = plain_number(value)
    if isinstance(value, Decimal):  # with more digits than a float has
        return float(value)
    if isinstance(value, str):
        if not value.strip():
            return None
        try:
            return float(value)
        except ValueError:
            return value
    return None if value != value else value


def _sequence_id(value: object) -> str:
    """A sequence id as text; empty if it is missing.

    A date is written in ISO 8601, with a blank before the time of day.
    """
    value = plain_number(value)
    if value is None or value != value or isinstance(value, Unreadable):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # some formats turn a column of integers with gaps into decimals
    text = str(value)
    return text if text.strip() else ""


def _text(value: object) -> object:
    """A missing text as empty text, a number as text, any other value unchanged.

    Dates, lists and objects have several ways of writing them, so they are rejected later.
    """
    value = plain_number(value)
    if value is None or value != value:  # some writers use NaN for missing values
        return ""
    return str(value) if isinstance(value, int | float | Decimal) else value


def build_columns_reader(
    columns: Columns,
    *,
    seconds_per_unit: float,
    csv: CsvFormat | None = None,
    optional: tuple[str, ...] = (),
) -> SourceReader:
    """Build a reader of tables.

    Args:
        columns: Mapping of the columns.
        seconds_per_unit: Seconds in one unit of the converted dates.
        csv: Format of CSV files; None uses the defaults.
        optional: Mapped columns that all records of a file may lack.
    """
    csv_format = csv or CsvFormat()
    parser = ColumnsParser(columns, seconds_per_unit, optional, csv_format)
    return SourceReader(
        SUFFIXES,
        parser,
        columns=parser.parse_columns,
        count=parser.count,
        names_sequences=bool(columns.sequence),
        csv_encoding=csv_format.encoding,
    )
