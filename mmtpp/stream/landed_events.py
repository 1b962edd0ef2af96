"""The columns of landed events, and the settings with which ``prepare`` reads them."""

import json
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from mmtpp.config.schema import SourceSection
from mmtpp.data.sources.type_codes import AUTO
from mmtpp.storage.paths import join

EVENTS = "events"  # folder of the landed events
EVENT_SCHEMA = pa.schema(
    [
        ("sequence", pa.string()),
        ("time", pa.float64()),  # in the source's unit; landed dates: in seconds since 1970
        ("type", pa.string()),  # name, or number where types have no names
        ("text", pa.string()),
        ("image", pa.string()),  # whole URI or bytes; null without an image
        ("split", pa.string()),  # empty where the records name none
    ]
)


def as_landed(events: pa.Table, *, times_are_dates: bool, seconds_per_unit: float) -> pa.Table:
    """Events as they are landed: times that are dates become seconds since 1970."""
    return _scale(events, seconds_per_unit) if times_are_dates else events


def from_landed(events: pa.Table, *, times_are_dates: bool, seconds_per_unit: float) -> pa.Table:
    """Landed events with times in the source's unit."""
    return _scale(events, 1 / seconds_per_unit) if times_are_dates else events


def _scale(events: pa.Table, factor: float) -> pa.Table:
    place = EVENT_SCHEMA.get_field_index("time")
    times = pc.multiply(events["time"], factor)  # pyright: ignore[reportAttributeAccessIssue]
    return events.set_column(place, EVENT_SCHEMA.field(place), times)


def prepare_settings(
    output_uri: str,
    source: SourceSection,
    *,
    input_uri: str,
    times_are_dates: bool,
) -> dict[str, object]:
    """The settings with which ``prepare`` reads the landed events, by path.

    Args:
        output_uri: Folder of the output.
        source: How the events of the stream are read.
        input_uri: Folder of the stream's files, where images are.
        times_are_dates: Whether the times count from 1970.
    """
    names = ("sequence", "time", "type", "text")
    values: dict[str, object] = {
        "source.kind": "columns",
        "source.uri": join(output_uri, EVENTS),
        **{f"source.columns.{name}": name for name in names},
        "source.columns.time_format": "epoch_s" if times_are_dates else "number",
        "source.partitioning": "sequence",
        "source.seconds_per_unit": source.seconds_per_unit,
    }
    if source.types:
        is_auto = source.types == AUTO
        values["source.types"] = AUTO if is_auto else _as_list(source.types)
        values["source.rare_types"] = source.rare_types
    if source.columns.image:
        values["source.columns.image"] = "image"
        values["source.image_roots"] = _as_list([*source.image_roots, input_uri])
    if source.columns.split:
        values["source.columns.split"] = "split"
        values["split.by"] = "given"
    return values


def _as_list(values: Sequence[str]) -> str:
    """A list as the argument of ``--set``."""
    return json.dumps(list(values), ensure_ascii=False)
