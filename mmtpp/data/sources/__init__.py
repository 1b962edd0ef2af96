"""Read raw event files of every format: a file in, its sequences and rejected records out."""

from mmtpp.core.errors import ConfigError
from mmtpp.data.sources.columns import Columns, build_columns_reader
from mmtpp.data.sources.danmaku import DANMAKU
from mmtpp.data.sources.danmaku_qa import DANMAKU_QA
from mmtpp.data.sources.easytpp import EASYTPP
from mmtpp.data.sources.flights import FLIGHTS
from mmtpp.data.sources.mmtpp_json import MMTPP
from mmtpp.data.sources.reader import SourceReader
from mmtpp.data.sources.tables import SUFFIXES, CsvFormat
from mmtpp.data.sources.taxi import TAXI
from mmtpp.data.sources.xes import XES, build_xes_reader

READERS: dict[str, SourceReader] = {
    "flights": FLIGHTS,
    "taxi": TAXI,
    "danmaku": DANMAKU,
    "danmaku_qa": DANMAKU_QA,
    "mmtpp": MMTPP,
    "easytpp": EASYTPP,
    "xes": XES,
}
"""Readers by kind; of those that read files of the user, the likeliest is first. The readers
of the kinds ``columns`` and ``xes`` depend on settings."""


def kinds_that_read(suffix: str) -> list[str]:
    """The kinds of sources whose files of the user have a suffix, such as ``.csv``."""
    kinds = ["columns"] if suffix in SUFFIXES else []
    return kinds + [
        kind
        for kind, reader in READERS.items()
        if suffix in reader.suffixes and not reader.is_published_here
    ]


def build_reader(
    kind: str,
    *,
    columns: Columns | None = None,
    seconds_per_unit: float = 1.0,
    csv: CsvFormat | None = None,
) -> SourceReader:
    """Build the reader of a kind of source.

    Args:
        kind: Kind of the source: a key of ``READERS``, or ``columns``.
        columns: Mapping of the columns, for ``columns`` and ``xes``.
        seconds_per_unit: Seconds in one unit of the converted dates, for ``columns`` and ``xes``.
        csv: Format of CSV files, for ``columns``.

    Raises:
        ConfigError: The kind is ``columns``, and no column of times is named.
    """
    if kind == "xes":
        return build_xes_reader(columns, seconds_per_unit=seconds_per_unit)
    if kind != "columns":
        return READERS[kind]
    if columns is None or not columns.time:
        raise ConfigError("source.kind = columns needs source.columns.time, the column of times")
    return build_columns_reader(columns, seconds_per_unit=seconds_per_unit, csv=csv)
