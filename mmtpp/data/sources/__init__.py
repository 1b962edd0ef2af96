"""Readers of raw event files: one file in, its sequences and its rejected records out."""

from mmtpp.core.errors import ConfigError
from mmtpp.data.sources.columns import Columns, columns_reader
from mmtpp.data.sources.danmaku import DANMAKU
from mmtpp.data.sources.danmaku_qa import DANMAKU_QA
from mmtpp.data.sources.easytpp import EASYTPP
from mmtpp.data.sources.flights import FLIGHTS
from mmtpp.data.sources.mmtpp_json import MMTPP
from mmtpp.data.sources.reader import SourceReader
from mmtpp.data.sources.tables import CsvFormat
from mmtpp.data.sources.taxi import TAXI

READERS: dict[str, SourceReader] = {
    "flights": FLIGHTS,
    "taxi": TAXI,
    "danmaku": DANMAKU,
    "danmaku_qa": DANMAKU_QA,
    "mmtpp": MMTPP,
    "easytpp": EASYTPP,
}


def make_reader(
    kind: str,
    *,
    columns: Columns | None = None,
    seconds_per_unit: float = 1.0,
    csv: CsvFormat | None = None,
) -> SourceReader:
    """The reader of a kind of source.

    Args:
        kind: A key of ``READERS``, or ``columns``.
        columns: The mapping, for ``columns``.
        seconds_per_unit: Seconds in the unit of the times, for dates in ``columns``.
        csv: How CSV files are written, for ``columns``.

    Raises:
        ConfigError: ``columns`` without a mapping.
    """
    if kind != "columns":
        return READERS[kind]
    if columns is None or not columns.time:
        raise ConfigError("source.kind = columns needs source.columns.time, the column of times")
    return columns_reader(columns, seconds_per_unit=seconds_per_unit, csv=csv)
