"""Taxi trips and zones to events, texts and maps."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mmtpp.core.errors import DataError, MissingFileError
from mmtpp.data.sources import build_reader
from mmtpp.data.sources.checking import read_file
from mmtpp.data.sources.taxi import (
    MAP_PX,
    TYPES,
    draw_zone,
    publish,
    read_trips,
    read_zones,
    to_events,
)
from mmtpp.data.sources.type_codes import TypeCodes


def _trips_and_zones(real_data: Path):
    folder = real_data / "nyc_map_geometry"
    shapes = (folder / "taxi_zones.shp").read_bytes()
    zones = read_zones(shapes, (folder / "taxi_zones.dbf").read_bytes(), where="zones")
    data = (real_data / "taxi_nyc_yellow_2015_01" / "trips.csv").read_bytes()
    return read_trips("trips.csv", data), zones


def test_real_trips_become_two_events_each(real_data: Path):
    trips, zones = _trips_and_zones(real_data)
    events, excluded = to_events(trips, zones)
    assert len(events) + len(excluded) == 2 * 8040
    causes = excluded.cause.value_counts().to_dict()
    # boroughs and missing zones as counted in the file, less the one impossible trip
    assert causes["dropoff_before_pickup"] == 2
    raw = pd.read_csv(real_data / "taxi_nyc_yellow_2015_01" / "trips.csv")
    good = raw[raw.tpep_dropoff_datetime > raw.tpep_pickup_datetime]
    boroughs = pd.concat([good.pickup_borough, good.dropoff_borough])
    assert boroughs.isin(["Queens", "Brooklyn"]).sum() == causes["outside_manhattan"]
    assert boroughs.isna().sum() == causes["unknown_zone"]
    assert (np.diff(events.time) >= 0).all()
    first = raw.iloc[0]
    assert (events.time[0], TYPES[events.type[0]]) == (392.0, "Downtown Pickup")
    assert events.text[0] == f"Pickup in {first.pickup_zone}, 1 passenger"
    # the last trips end after midnight
    assert events.date.nunique() == 25


@pytest.mark.parametrize(
    ("zone", "part"),
    [
        (79, "Downtown"),
        (113, "Downtown"),
        (234, "Midtown"),
        (230, "Midtown"),
        (163, "Midtown"),
        (142, "Uptown"),
        (74, "Uptown"),
        (132, ""),
        (12, "Downtown"),
    ],
)
def test_zones_are_in_the_right_part_of_manhattan(real_data: Path, zone: int, part: str):
    """East Village, Greenwich Village North; Union Sq, Times Sq, Midtown North; Lincoln Square
    East, East Harlem North; JFK; Battery Park."""
    _, zones = _trips_and_zones(real_data)
    assert zones[zone].part == part


def test_a_map_shows_the_zone_where_its_centre_is(real_data: Path):
    _, zones = _trips_and_zones(real_data)
    for is_pickup, fill in ((True, (90, 180, 90)), (False, (220, 80, 70))):
        image = Image.open(io.BytesIO(draw_zone(zones, 79, is_pickup=is_pickup)))
        assert image.size == (MAP_PX, MAP_PX)
        colors = {color: count for count, color in image.getcolors(9999)}
        # the East Village is one simple polygon: its area on the map is that of the shoelace rule
        (ring,) = zones[79].rings
        x, y = ring.T
        area = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
        side = max(4600.0, 1.2 * float(np.ptp(ring, axis=0).max()))
        expected = area / side**2 * MAP_PX**2
        border = np.hypot(*np.diff(ring, axis=0).T).sum() / side * MAP_PX
        assert abs(colors[fill] - expected) < 1.5 * border


def test_the_taxi_set_is_published_once_and_read_back(real_data: Path, tmp_path: Path):
    arguments = {
        "trips_uri": str(real_data / "taxi_nyc_yellow_2015_01" / "trips.csv"),
        "zones_uri": str(real_data / "nyc_map_geometry" / "taxi_zones.shp"),
    }
    uri = str(tmp_path / "raw")
    published = publish(uri, sequence="day", **arguments)
    assert publish(uri, sequence="day", **arguments).was_there
    with pytest.raises(DataError, match="already holds taxi-day"):
        publish(uri, sequence="zone", **arguments)
    reader = build_reader("taxi")
    files = sorted((tmp_path / "raw" / "events").iterdir())
    assert len(files) == 25
    total = 0
    for file in files:
        parsed = read_file(reader, file.name, file.read_bytes(), types=TypeCodes(reader.type_names))
        assert not parsed.rejected
        assert parsed.counts.num_disagreeing == 0
        total += parsed.counts.num_read
        (sequence,) = parsed.sequences
        assert all((tmp_path / "raw" / image).exists() for image in set(sequence.images) if image)
    assert published.num_events == total
    assert published.excluded_by_cause is not None
    lines = (tmp_path / "raw" / "excluded.jsonl").read_text().splitlines()
    assert sum(published.excluded_by_cause.values()) == len(lines)


def test_trips_without_zones_and_invalid_shapefiles_are_refused():
    with pytest.raises(DataError, match="PULocationID or pickup_zone_id"):
        read_trips("t.csv", b"tpep_pickup_datetime,tpep_dropoff_datetime\n2015-01-01,2015-01-02\n")
    with pytest.raises(DataError, match="not a shapefile"):
        read_zones(b"no", b"no", where="z")


def test_a_missing_input_file_is_an_error_with_its_setting(tmp_path: Path):
    trips = tmp_path / "trips.csv"
    with pytest.raises(MissingFileError) as caught:
        publish(str(tmp_path / "raw"), trips_uri=str(trips), zones_uri="zones.shp", sequence="day")
    error = caught.value
    assert (error.where, error.setting) == (str(trips), f"source.taxi.trips = {trips}")
    assert "misspelt" in error.cause
