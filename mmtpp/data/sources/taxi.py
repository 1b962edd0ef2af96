"""TAXI-PRO from public records: New York taxi trips and zones to events with texts and maps.

A trip of the Taxi and Limousine Commission (TLC) is two events, a pick-up and a drop-off. The type
is the part of Manhattan and the direction, six types in total. The image is a map of the zone,
drawn from the polygons of the zone and its neighbours. The text describes the event. TAXI-PRO
itself is not published: we follow its six types, map patches and 168 pixels; the texts and the
borders of Uptown, Midtown and Downtown (14th and 59th Street) are ours. Times are seconds since
midnight of the first day.

``publish`` writes the data set in the MM-TPP layout. Events outside Manhattan and impossible trips
are left out and listed with their causes in ``excluded.jsonl``, next to the folder of the events.
"""

import hashlib
import io
import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import shapefile
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mmtpp.core.errors import DataError, MissingFileError
from mmtpp.data.sources.mmtpp_json import parse, parse_columns
from mmtpp.data.sources.publishing import is_published, publish_files
from mmtpp.data.sources.reader import SourceReader
from mmtpp.storage.paths import read_bytes

PARTS = ("Uptown", "Midtown", "Downtown")
TYPES = tuple(f"{part} {way}" for way in ("Pickup", "Drop-off") for part in PARTS)
TAXI = SourceReader(
    (".json",),
    parse,
    seconds_per_unit=1.0,
    type_names=TYPES,
    columns=parse_columns,
    is_published_here=True,
)

MAP_PX = 168
_MIN_MAP_FEET = 4600.0  # 1.4 km
# Avenues run 29 degrees east of north. These are positions along the avenues, in feet of EPSG:2263:
# zones south of 14th Street have a centre below the first one, zones north of 59th Street above the
# second one.
_AVENUES = math.radians(29.0)
_STREET_14, _STREET_59 = 659_000.0, 671_700.0
_COLUMN_NAMES = {
    "pickup_time": ("tpep_pickup_datetime", "lpep_pickup_datetime"),
    "dropoff_time": ("tpep_dropoff_datetime", "lpep_dropoff_datetime"),
    "pickup_zone": ("PULocationID", "pickup_zone_id"),
    "dropoff_zone": ("DOLocationID", "dropoff_zone_id"),
    "miles": ("trip_distance",),
    "fare": ("fare_amount",),
    "passengers": ("passenger_count",),
}


@dataclass(frozen=True, slots=True)
class Zone:
    """A taxi zone.

    Attributes:
        name: Name of the zone.
        part: Part of Manhattan: Uptown, Midtown or Downtown; empty outside Manhattan.
        rings: Closed polygons of (N, 2) points in feet, EPSG:2263.
    """

    name: str
    part: str
    rings: tuple[NDArray[np.float64], ...]


@dataclass(frozen=True, slots=True)
class Published:
    """Outcome of ``publish``.

    Attributes:
        was_there: Whether the same data set already existed and nothing was written.
        num_events: Number of events written.
        excluded_by_cause: Number of events left out, by cause; None if nothing was written.
    """

    was_there: bool
    num_events: int = 0
    excluded_by_cause: dict[str, int] | None = None


def publish(uri: str, *, trips_uri: str, zones_uri: str, sequence: str) -> Published:
    """Build the data set, unless it already exists.

    Args:
        uri: Folder of the data set, local or remote.
        trips_uri: TLC trip records, a CSV or Parquet file with zone ids.
        zones_uri: Shapefile of the TLC zones, ending in ``.shp``, with its ``.dbf`` next to it.
        sequence: Kind of sequence: ``day``, all events of a date, or ``zone``, all events of a
            zone.

    Raises:
        DataError: A file is unreadable or lacks a column, or ``uri`` holds another data set.
        StorageError: A file or folder cannot be reached.
    """
    trips_data = _read_input(trips_uri, setting=f"source.taxi.trips = {trips_uri}")
    zones_setting = f"source.taxi.zones = {zones_uri}"
    shapes = _read_input(zones_uri, setting=zones_setting)
    records = _read_input(zones_uri.removesuffix(".shp") + ".dbf", setting=zones_setting)
    digest = hashlib.sha256(trips_data + shapes + records).hexdigest()[:16]
    name = f"taxi-{sequence}-{digest}"
    if is_published(uri, name, setting=f"source.taxi.sequence = {sequence}"):
        return Published(was_there=True)
    zones = read_zones(shapes, records, where=zones_uri)
    events, excluded = to_events(read_trips(trips_uri, trips_data), zones)
    by_sequence = events.groupby("date" if sequence == "day" else "zone")
    files = [(f"events/{key}.json", _as_json(group)) for key, group in by_sequence]
    shown = sorted(set(zip(events["zone"], events["is_pickup"], strict=True)))
    files += [
        (_image_path(zone, is_pickup), draw_zone(zones, zone, is_pickup=is_pickup))
        for zone, is_pickup in shown
    ]
    lines = "".join(json.dumps(record) + "\n" for record in excluded.to_dict("records"))
    publish_files(uri, name, [*files, ("excluded.jsonl", lines.encode())])
    causes = excluded["cause"].value_counts().to_dict()
    return Published(False, len(events), {str(key): int(count) for key, count in causes.items()})


def _read_input(uri: str, *, setting: str) -> bytes:
    """Read an input file.

    Args:
        uri: Location of the file.
        setting: Setting that names the file, for the error.

    Raises:
        StorageError: The file is missing or unreachable.
    """
    try:
        return read_bytes(uri)
    except MissingFileError as error:
        raise MissingFileError(
            error.problem,
            where=uri,
            cause="the path is misspelt, or the file was not downloaded",
            setting=setting,
        ) from error


def read_zones(shapes: bytes, records: bytes, *, where: str) -> dict[int, Zone]:
    """Read the zones, by their TLC id.

    Args:
        shapes: Content of the ``.shp`` file.
        records: Content of the ``.dbf`` file, with LocationID, zone and borough.
        where: Location of the files, for the error.

    Raises:
        DataError: The content is not a shapefile of taxi zones.
    """
    try:
        reader: Any = shapefile.Reader(shp=io.BytesIO(shapes), dbf=io.BytesIO(records))
        rings: dict[int, list[NDArray[np.float64]]] = {}
        names: dict[int, tuple[str, str]] = {}
        for item in reader.iterShapeRecords():
            points = np.array(item.shape.points, dtype=np.float64)
            zone = int(item.record["LocationID"])
            rings.setdefault(zone, []).extend(np.split(points, list(item.shape.parts)[1:]))
            names[zone] = (str(item.record["zone"]), str(item.record["borough"]))
    except (shapefile.ShapefileException, struct.error, LookupError, ValueError, OSError) as error:
        raise DataError(f"not a shapefile of taxi zones: {error}", where=where) from error
    return {
        zone: Zone(name, _part(rings[zone]) if borough == "Manhattan" else "", tuple(rings[zone]))
        for zone, (name, borough) in names.items()
    }


def _part(rings: list[NDArray[np.float64]]) -> str:
    low, high = _box(rings)
    x, y = (low + high) / 2
    along = x * math.sin(_AVENUES) + y * math.cos(_AVENUES)
    return PARTS[int(along < _STREET_59) + int(along < _STREET_14)]


def _box(rings: list[NDArray[np.float64]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    points = np.concatenate(rings)
    return points.min(axis=0), points.max(axis=0)


def read_trips(uri: str, data: bytes) -> pd.DataFrame:
    """Read trips and rename their columns. Unreadable values become missing values.

    Args:
        uri: Location of the file, for its suffix and for messages.
        data: Content of the file.

    Raises:
        DataError: The file is unreadable, or has no times or no zone ids.
    """
    try:
        is_parquet = uri.endswith(".parquet")
        table = pd.read_parquet(io.BytesIO(data)) if is_parquet else pd.read_csv(io.BytesIO(data))
    except (ValueError, OSError) as error:
        raise DataError(f"not a table of trips: {error}", where=uri) from error
    trips = pd.DataFrame(index=table.index)
    for column, names in _COLUMN_NAMES.items():
        present = [name for name in names if name in table.columns]
        if present:
            values = table[present[0]]
        elif column in ("miles", "fare", "passengers"):
            values = pd.Series(np.nan, index=table.index)
        else:
            raise DataError(
                f"no column {' or '.join(names)}; it has {', '.join(map(str, table.columns))}",
                where=uri,
                cause="records from before 2016 have coordinates; add the zone ids",
                setting=f"source.taxi.trips = {uri}",
            )
        if column.endswith("_time"):
            trips[column] = pd.to_datetime(values, errors="coerce")
        else:
            numbers = pd.Series(pd.to_numeric(values, errors="coerce"), dtype=float)
            trips[column] = numbers.replace([np.inf, -np.inf], np.nan)
    return trips


def to_events(trips: pd.DataFrame, zones: dict[int, Zone]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Convert each trip to two events.

    Args:
        trips: Table of ``read_trips``.
        zones: Zones of ``read_zones``.

    Returns:
        Events in order of time, with columns ``time`` (seconds since midnight of the first day),
        ``date``, ``zone``, ``is_pickup``, ``type`` and ``text``; and the excluded events with
        ``trip``, ``event`` and ``cause``.
    """
    kept, excluded = [], []
    for way, is_pickup in (("pickup", True), ("dropoff", False)):
        cause = _exclusion_causes(trips, zones, way)
        bad = cause != ""
        excluded.append(pd.DataFrame({"trip": trips.index[bad], "event": way, "cause": cause[bad]}))
        good = pd.DataFrame(trips[~bad])
        zone_ids = good[f"{way}_zone"].astype(int)
        kept.append(
            pd.DataFrame(
                {
                    "at": good[f"{way}_time"],
                    "zone": zone_ids,
                    "is_pickup": is_pickup,
                    "type": [
                        PARTS.index(zones[zone].part) + (0 if is_pickup else len(PARTS))
                        for zone in zone_ids
                    ],
                    "text": list(_texts(good, zones, is_pickup=is_pickup)),
                }
            )
        )
    events = pd.concat(kept).sort_values(["at", "is_pickup"], kind="stable", ignore_index=True)
    first_day = events["at"].min().normalize() if len(events) else pd.Timestamp(0)
    events["time"] = (events.pop("at") - first_day) / pd.Timedelta(seconds=1)
    events["date"] = [
        (first_day + pd.Timedelta(seconds=time)).strftime("%Y-%m-%d") for time in events["time"]
    ]
    return events, pd.concat(excluded, ignore_index=True)


def _exclusion_causes(trips: pd.DataFrame, zones: dict[int, Zone], way: str) -> pd.Series:
    """Cause why the pick-up or drop-off of each trip is left out; empty if it is kept."""
    parts = {zone_id: zone.part for zone_id, zone in zones.items()}
    part = trips[f"{way}_zone"].map(parts.get)
    cause = pd.Series("", index=trips.index, dtype=object)
    cause[part == ""] = "outside_manhattan"
    cause[part.isna()] = "unknown_zone"
    cause[trips.dropoff_time <= trips.pickup_time] = "dropoff_before_pickup"
    cause[trips.pickup_time.isna() | trips.dropoff_time.isna()] = "unreadable_time"
    return cause


def _texts(trips: pd.DataFrame, zones: dict[int, Zone], *, is_pickup: bool) -> Iterator[str]:
    """Descriptions of the pick-ups or drop-offs of trips."""
    columns = ("pickup_zone", "dropoff_zone", "passengers", "miles", "fare")
    for start, end, passengers, miles, fare in zip(*(trips[name] for name in columns), strict=True):
        if is_pickup:
            text = f"Pickup in {zones[int(start)].name}"
            if passengers == passengers:  # not missing
                text += f", {int(passengers)} passenger{'' if passengers == 1 else 's'}"
        else:
            text = f"Drop-off in {zones[int(end)].name}"
            if miles == miles:
                text += f" after {miles:.1f} miles"
            if fare == fare:
                text += f", fare ${fare:.2f}"
        yield text


def draw_zone(zones: dict[int, Zone], zone: int, *, is_pickup: bool) -> bytes:
    """Draw a map patch around a zone.

    Args:
        zones: Zones of ``read_zones``; all zones that touch the patch are drawn.
        zone: Id of the zone to highlight.
        is_pickup: Whether the zone is green; otherwise it is red.

    Returns:
        A PNG of ``MAP_PX`` x ``MAP_PX`` pixels, with north at the top.
    """
    low, high = _box(list(zones[zone].rings))
    side = max(_MIN_MAP_FEET, float((high - low).max()) * 1.2)
    corner = (low + high) / 2 - side / 2
    image = Image.new("RGB", (MAP_PX, MAP_PX), (170, 200, 225))
    draw = ImageDraw.Draw(image)
    for zone_id, neighbour in zones.items():
        fill = (240, 236, 226)
        if zone_id == zone:
            fill = (90, 180, 90) if is_pickup else (220, 80, 70)
        for ring in neighbour.rings:
            if (ring.max(axis=0) > corner).all() and (ring.min(axis=0) < corner + side).all():
                pixels = (ring - corner) / side * MAP_PX
                pixels[:, 1] = MAP_PX - pixels[:, 1]
                draw.polygon([(x, y) for x, y in pixels.tolist()], fill=fill, outline=(90, 90, 90))
    target = io.BytesIO()
    image.save(target, format="PNG")
    return target.getvalue()


def _image_path(zone: int, is_pickup: bool) -> str:
    return f"images/{'pickup' if is_pickup else 'dropoff'}-{zone:03d}.png"


def _as_json(events: pd.DataFrame) -> bytes:
    times = events["time"].to_numpy()
    columns = (events[name] for name in ("time", "text", "zone", "is_pickup", "type"))
    records = [
        {
            "time": time,
            "text": text,
            "image_path": _image_path(zone, is_pickup),
            "TPP_attribute": {"time_since_last_event": wait, "event_type": code},
        }
        for time, text, zone, is_pickup, code, wait in zip(
            *columns, np.diff(times, prepend=times[0]).tolist(), strict=True
        )
    ]
    return json.dumps(records).encode()
