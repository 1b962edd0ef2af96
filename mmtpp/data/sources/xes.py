"""XES event logs of process mining (IEEE 1849): a trace is a sequence, an attribute is a column.

    <log><trace><string key="concept:name" value="case 7"/>
      <event><string key="concept:name" value="register"/>
             <date key="time:timestamp" value="2024-01-31T08:00:00+01:00"/></event></trace></log>

The attributes of an event are columns under their keys. Those of its trace are columns with
``case:`` before their keys, as other tools name them. Attributes inside attributes, and the
defaults of ``global``, are not read. The file is parsed trace by trace, without a tree of the
whole log, and only mapped attributes are kept. Files with a document type, and so with entities,
are refused.
"""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import iterparse

from mmtpp.data.sources.columns import Columns, ColumnsParser
from mmtpp.data.sources.event_files import MalformedFileError, stem
from mmtpp.data.sources.reader import RawEvent, SourceReader
from mmtpp.data.sources.tables import Record, Table

TRACE_PREFIX = "case:"
DEFAULT_COLUMNS = Columns(
    time="time:timestamp", sequence=f"{TRACE_PREFIX}concept:name", type="concept:name"
)
_VALUES = ("string", "date", "int", "float", "boolean", "id")  # elements with one value
_EVENT = re.compile(rb"<(?:\w+:)?event[\s>/]")


@dataclass(frozen=True, slots=True)
class XesParser:
    """Parser of XES event logs; picklable.

    Attributes:
        table: Parser of the events as rows of a table.
    """

    table: ColumnsParser

    def __call__(self, path: str, data: bytes) -> Iterator[RawEvent]:
        """Parse the raw events of one log.

        Raises:
            MalformedFileError: The file is not well-formed XML, has a document type, is no event
                log, or no event has a mapped attribute.
        """
        yield from self.table.parse_table(path, Table(self._mapped_records(path, data)))

    def _mapped_records(self, path: str, data: bytes) -> Iterator[Record]:
        """The events with their mapped attributes.

        The first event has all its attributes, so that the error for a missing one can list them.
        """
        wanted = frozenset(self.table.columns.names)
        by_name = self.table.columns.sequence == DEFAULT_COLUMNS.sequence
        for record in _read_log(path, data, names_are_unique=by_name):
            if record.row and record.values:
                values = {key: value for key, value in record.values.items() if key in wanted}
                yield record._replace(values=values)
            else:
                yield record


def _read_log(path: str, data: bytes, *, names_are_unique: bool) -> Iterator[Record]:
    """The events of a log as records.

    Args:
        path: Path of the file, for names of traces and messages.
        data: Content of the file.
        names_are_unique: Whether a second trace with the name of an earlier one is malformed.
    """
    traces, row = _Traces(path, names_are_unique), 0
    open_elements: list[Element] = []
    try:
        for action, element in iterparse(io.BytesIO(data), ("start", "end"), forbid_dtd=True):
            if action == "start":
                open_elements.append(element)
                if _tag(open_elements[0]) != "log":
                    raise MalformedFileError(f"{path}: no event log: its root is <{_tag(element)}>")
                continue
            open_elements.pop()
            if len(open_elements) != 1:
                continue
            if _tag(element) == "trace":
                for values, problem in traces.events(element):
                    yield Record(row, values, problem)
                    row += 1
            elif _tag(element) == "event":
                yield Record(row, _attributes(element)[0], "the event is outside of the traces")
                row += 1
            open_elements[0].clear()  # the elements that have been read need no more memory
    except DefusedXmlException as error:
        raise MalformedFileError(
            f"{path}: it has a document type, which event logs do not need and entities could abuse"
        ) from error
    except (ParseError, LookupError) as error:
        raise MalformedFileError(f"{path}: not readable as XML: {error}") from error


class _Traces:
    """Names and events of the traces of one log.

    Args:
        path: Path of the file, whose name is part of the names of unnamed traces.
        names_are_unique: Whether a second trace with the name of an earlier one is malformed.
    """

    def __init__(self, path: str, names_are_unique: bool) -> None:
        self._stem = stem(path)
        self._names_are_unique = names_are_unique
        self._index = -1
        self._names: set[str] = set()

    def events(self, trace: Element) -> Iterator[tuple[dict[str, str], str | None]]:
        """Values of each event of the next trace by column, and the problem of a malformed event.

        Args:
            trace: Element of the trace.
        """
        self._index += 1
        attributes, problem = _attributes(trace)
        columns = {f"{TRACE_PREFIX}{key}": value for key, value in attributes.items()}
        name = columns.setdefault(f"{TRACE_PREFIX}concept:name", f"{self._stem}#{self._index}")
        if self._names_are_unique and name in self._names:
            problem = f"an earlier trace has the same concept:name {name!r}"
        self._names.add(name)
        for event in trace:
            if _tag(event) == "event":
                values, event_problem = _attributes(event)
                yield values | columns, problem or event_problem


def _attributes(element: Element) -> tuple[dict[str, str], str | None]:
    """Values of an element's own attributes by key, and a problem if a key occurs twice."""
    values: dict[str, str] = {}
    problem = None
    for child in element:
        key, value = child.get("key"), child.get("value")
        if key is None or value is None or _tag(child) not in _VALUES:
            continue
        if key in values:
            problem = f"<{_tag(element)}> has two attributes {key!r}"
        values[key] = value
    return values, problem


def _tag(element: Element) -> str:
    """The tag of an element without its namespace."""
    return element.tag.rpartition("}")[2]


def count_events(path: str, data: bytes) -> int | None:
    """Estimate the number of events in a damaged log; None if it cannot be known."""
    del path
    return len(_EVENT.findall(data)) or None


def build_xes_reader(columns: Columns | None, *, seconds_per_unit: float) -> SourceReader:
    """Build a reader of event logs.

    Args:
        columns: Mapping of attributes; its fields that are set replace those of
            ``DEFAULT_COLUMNS``.
        seconds_per_unit: Seconds in one unit of the converted dates.
    """
    chosen = {
        field.name: value
        for field in fields(Columns)
        if columns is not None and (value := getattr(columns, field.name))
    }
    parser = XesParser(ColumnsParser(replace(DEFAULT_COLUMNS, **chosen), seconds_per_unit))
    return SourceReader((".xes",), parser, count=count_events, names_sequences=True)


XES = build_xes_reader(None, seconds_per_unit=1.0)
