"""Tables, EasyTPP, question answering and taxi trips: what is read, and what is refused."""

import gzip
import io
import json
import pickle
from datetime import date
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mmtpp.core.errors import ConfigError, DataError
from mmtpp.data.sources import build_reader
from mmtpp.data.sources.checking import read_file
from mmtpp.data.sources.columns import Columns
from mmtpp.data.sources.reader import ParsedFile
from mmtpp.data.sources.tables import MalformedFileError
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

CAB = Columns(time="unix_time", sequence="cab_id", type="event_type")
CAB_TYPES = ("pickup", "dropoff")
ROWS = [
    {"cab_id": "b", "unix_time": 20.5, "event_type": "dropoff"},
    {"cab_id": "a", "unix_time": 10, "event_type": "pickup"},
    {"cab_id": "b", "unix_time": 11, "event_type": "pickup"},
]


def _read(path: str, data: bytes, columns: Columns = CAB, names: tuple = CAB_TYPES) -> ParsedFile:
    return read_file(build_reader("columns", columns=columns), path, data, types=TypeCodes(names))


def _csv(rows: list[dict]) -> bytes:
    return pd.DataFrame(rows).to_csv(index=False).encode()


def _parquet(rows: list[dict]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def _lines(rows: list[dict]) -> bytes:
    return "\n".join(map(json.dumps, rows)).encode()


FORMS = {
    "x/t.csv": _csv(ROWS),
    # without a time, so that every worker of pytest-xdist finds the same tests
    "x/t.csv.gz": gzip.compress(_csv(ROWS), mtime=0),
    "x/t.jsonl": _lines(ROWS),
    "x/t.jsonl.gz": gzip.compress(_lines(ROWS), mtime=0),
    "x/t.json": json.dumps(ROWS).encode(),
    "x/t.parquet": _parquet(ROWS),
}


@pytest.mark.parametrize("path", FORMS)
def test_every_form_of_a_table_gives_the_same_sequences(path: str):
    parsed = _read(path, FORMS[path])
    assert (parsed.counts.num_read, len(parsed.rejected), parsed.counts.num_reordered) == (3, 0, 1)
    by_id = {sequence.sequence_id: sequence for sequence in parsed.sequences}
    assert list(by_id) == ["b", "a"]
    assert by_id["b"].times.tolist() == [11.0, 20.5]
    assert by_id["b"].types.tolist() == [0, 1]
    assert by_id["b"].texts == ("", "")


def test_a_file_is_one_sequence_without_a_sequence_column():
    parsed = _read("x/t.csv", _csv(ROWS), Columns(time="unix_time"), ())
    (sequence,) = parsed.sequences
    assert (sequence.sequence_id, sequence.types.tolist()) == ("x/t", [0, 0, 0])


def test_dates_become_times_in_the_unit():
    rows = [{"at": "2015-01-01 00:00:30"}, {"at": "2015-01-01T01:00:00+01:00"}, {"at": "soon"}]
    reader = build_reader("columns", columns=Columns(time="at"), seconds_per_unit=60.0)
    midnight = 1420070400 / 60  # of 1 January 2015, UTC
    (sequence,) = (parsed := read_file(reader, "t.csv", _csv(rows), types=TypeCodes(()))).sequences
    assert sequence.times.tolist() == [midnight, midnight + 0.5]
    assert [record.cause for record in parsed.rejected] == ["unreadable_time"]
    stamps = pa.table({"at": pa.array([1420070400_000_000], pa.timestamp("us"))})
    sink = io.BytesIO()
    pq.write_table(stamps, sink)
    (sequence,) = read_file(reader, "t.parquet", sink.getvalue(), types=TypeCodes(())).sequences
    assert sequence.times.tolist() == [midnight]


def test_rows_of_lists_are_sequences_and_declared_intervals_are_compared():
    """Published bug 19: declared and recomputed intervals that disagree are reported."""
    columns = Columns(time="t", type="k", interval="dt")
    rows = [{"t": [1.0, 2.5, 2.5], "k": [0, 1, 2], "dt": [1.0, 1.501, 0.5]}, {"t": [1], "k": []}]
    parsed = _read("s.jsonl", _lines(rows), columns, ())
    (sequence,) = parsed.sequences
    assert (sequence.sequence_id, sequence.times.tolist()) == ("s#0", [1.0, 2.5, 2.5])
    # the first has no predecessor, the second is rounded, the third is wrong
    assert parsed.counts.num_disagreeing == 1
    assert (parsed.rejected[0].cause, parsed.rejected[0].row) == ("malformed_record", 1)
    assert parsed.counts.num_read == 4


@pytest.mark.parametrize(
    ("path", "data", "problem"),
    [
        ("t.csv", b"a,b\n1,2\n", "no column 'cab_id', 'event_type', 'unix_time'; it has"),
        ("t.csv", b"\xff\xfea", "not utf-16"),
        ("t.csv.gz", b"no", "not gzip"),
        ("t.parquet", b"PAR1no", "not readable as Parquet"),
        ("t.json", b"{", "not JSON"),
        ("t.json", b"3", "a list of records expected"),
        ("t.csv", b'"unix_time\n1,2', "line 1"),
    ],
)
def test_a_file_that_is_no_table_is_an_error_that_names_it(path: str, data: bytes, problem: str):
    with pytest.raises(MalformedFileError, match=problem) as caught:
        _read(path, data)
    assert path.removesuffix(".gz") in str(caught.value)


def test_bad_rows_of_a_table_are_rejected_by_cause_and_row():
    data = b"cab_id,unix_time,event_type\na,1,pickup\na,x,pickup\na,2\n,3,pickup\na,4,flying\n"
    parsed = _read("t.csv", data)
    causes = [(record.row, record.cause) for record in parsed.rejected]
    assert causes == [
        (1, "unreadable_time"),
        (2, "malformed_record"),
        (3, "malformed_record"),
        (4, "unknown_type"),
    ]
    assert parsed.counts.num_read == 5


@pytest.mark.parametrize("path", ["x/a.b.csv", "x/a.b.csv.gz", "x/a.b.parquet"])
def test_only_the_suffix_is_left_out_of_a_sequence_id(path: str):
    rows = [{"t": 1}]
    data = _parquet(rows) if path.endswith("parquet") else _csv(rows)
    data = gzip.compress(data) if path.endswith("gz") else data
    (sequence,) = _read(path, data, Columns(time="t"), ()).sequences
    assert sequence.sequence_id == "x/a.b"


def test_a_date_python_has_no_value_for_is_rejected_alone():
    sink = io.BytesIO()
    pq.write_table(pa.table({"t": pa.array([1, 10**14], pa.timestamp("s"))}), sink)
    parsed = _read("t.parquet", sink.getvalue(), Columns(time="t"), ())
    assert (
        parsed.sequences[0].times.tolist(),
        [record.cause for record in parsed.rejected],
    ) == ([1.0], ["unreadable_time"])


def test_dates_without_a_time_and_decimals_are_times_too():
    sink = io.BytesIO()
    pq.write_table(pa.table({"t": pa.array([date(1970, 1, 3), date(1969, 1, 1)])}), sink)
    parsed = _read("t.parquet", sink.getvalue(), Columns(time="t"), ())
    assert parsed.sequences[0].times.tolist() == [-365 * 86400.0, 172800.0]
    sink = io.BytesIO()
    pq.write_table(pa.table({"t": pa.array([Decimal("1.50")])}), sink)
    (sequence,) = _read("t.parquet", sink.getvalue(), Columns(time="t"), ()).sequences
    assert sequence.times.tolist() == [1.5]


def test_odd_ids_headers_and_declared_intervals():
    columns = Columns(time="t", sequence="id", interval="dt")
    data = b"t,id,dt\n1,1.0,\n2,1.0,\n3,1.0,7\n"
    parsed = _read("t.csv", data, columns, ())
    assert (
        [each.sequence_id for each in parsed.sequences],
        parsed.counts.num_disagreeing,
    ) == (["1.0"], 1)
    nameless = _read("t.json", b'[{"t": 1, "id": NaN, "dt": 0}]', columns, ())
    assert [record.cause for record in nameless.rejected] == ["malformed_record"]
    with pytest.raises(MalformedFileError, match="two columns have the same name"):
        _read("t.csv", b"t,t\n1,2\n", Columns(time="t"), ())
    unequal = _read(
        "t.jsonl", _lines([{"t": [1, 2, 3], "k": [0]}]), Columns(time="t", type="k"), ()
    )
    assert (unequal.counts.num_read, len(unequal.rejected)) == (3, 3)


def test_a_pickle_that_nests_without_end_is_rejected_quickly():
    nested: list = [0]
    for _ in range(60):
        nested = [nested, nested]
    loop: dict = {"time_since_start": 0.0, "type_event": 0}
    loop["self"] = loop
    parsed = _easytpp(
        "t.pkl", pickle.dumps({"train": [[{"time_since_start": nested}, nested, loop]]})
    )
    assert (parsed.counts.num_read, len(parsed.rejected)) == (3, 2)


def test_a_missing_text_is_an_empty_one():
    columns = Columns(time="t", text="x")
    rows = [{"t": 1, "x": None}, {"t": 2, "x": 3.5}, {"t": 3, "x": "three"}]
    for path, data in (
        ("t.parquet", _parquet([{"t": 1, "x": None}, {"t": 2, "x": "3.5"}])),
        ("t.jsonl", _lines(rows)[: len(_lines(rows[:2]))]),
    ):
        (sequence,) = _read(path, data, columns, ()).sequences
        assert sequence.texts == ("", "3.5")
    (sequence,) = _read("t.jsonl", _lines([{"t": [1, 2]}]), Columns(time="t"), ()).sequences
    assert sequence.texts == ("", "")


def test_columns_without_a_time_column_is_a_configuration_error():
    with pytest.raises(ConfigError, match=r"source\.columns\.time"):
        build_reader("columns", columns=Columns(time=""))


# EasyTPP

EASYTPP = build_reader("easytpp")
EVENTS = [
    {"time_since_start": 0.0, "time_since_last_event": 0.0, "type_event": 1},
    {"time_since_start": 2.0, "time_since_last_event": 2.0, "type_event": 0},
]


def _easytpp(path: str, data: bytes) -> ParsedFile:
    return read_file(EASYTPP, path, data, types=TypeCodes(()))


def test_real_pickles_have_the_known_numbers(real_data: Path):
    for name, num_sequences, num_events in (("train", 3000, 49363), ("dev", 400, 6612)):
        data = (real_data / "tpp_earthquake" / f"{name}.pkl").read_bytes()
        parsed = _easytpp(f"{name}.pkl", data)
        assert (len(parsed.sequences), parsed.counts.num_read) == (num_sequences, num_events)
        assert not parsed.rejected
        assert parsed.counts.num_disagreeing == 0
        with (real_data / "tpp_earthquake" / f"{name}.pkl").open("rb") as file:
            tree = pickle.load(file)  # noqa: S301 # builtins only, of a known commit
        first = parsed.sequences[0]
        assert first.times.tolist() == [event["time_since_start"] for event in tree[name][0]]
        assert first.types.tolist() == [event["type_event"] for event in tree[name][0]]


def test_rows_of_the_hugging_face_sets_equal_the_pickle():
    row = {"dim_process": 2, "seq_idx": 0, **{key: [e[key] for e in EVENTS] for key in EVENTS[0]}}
    forms = {
        "train.pkl": pickle.dumps({"dim_process": 2, "train": [EVENTS]}),
        "train.json": json.dumps([row]).encode(),
        "train.jsonl": _lines([row]),
        "train.parquet": _parquet([row]),
    }
    for path, data in forms.items():
        (sequence,) = _easytpp(path, data).sequences
        assert (sequence.times.tolist(), sequence.types.tolist()) == ([0.0, 2.0], [1, 0]), path


def test_numpy_scalars_in_a_pickle_are_numbers():
    events = [{key: np.float64(value) for key, value in event.items()} for event in EVENTS]
    for protocol in (2, 4):
        data = pickle.dumps({"dim_process": 2, "train": [events]}, protocol=protocol)
        (sequence,) = _easytpp("t.pkl", data).sequences
        assert sequence.times.tolist() == [0.0, 2.0]


class _Trap:
    def __reduce__(self):
        return Path.touch, (Path("/tmp/mmtpp-pickle-was-run"),)


@pytest.mark.parametrize(
    ("tree", "problem"),
    [
        ({"train": [[_Trap()]]}, "refused"),
        ({"train": [[np.zeros(3)]]}, "refused"),
        ([1], "a dictionary expected"),
        ({"dim_process": 3}, "none of the keys"),
    ],
)
def test_a_pickle_of_something_else_is_refused_not_run(tree: object, problem: str):
    with pytest.raises(MalformedFileError, match=problem):
        _easytpp("t.pkl", pickle.dumps(tree))
    assert not Path("/tmp/mmtpp-pickle-was-run").exists()


def test_a_damaged_pickle_cannot_ask_for_memory():
    # the opcodes say: remember this under number 2^31 - 1, and a bytearray of 2^40 bytes
    for data in (b"\x80\x04]r\xff\xff\xff\x7f.", b"\x80\x05\x96" + (2**62).to_bytes(8, "little")):
        with pytest.raises(MalformedFileError):
            _easytpp("t.pkl", data)


def test_types_beyond_the_declared_number_are_rejected():
    parsed = _easytpp("t.pkl", pickle.dumps({"dim_process": 1, "dev": [EVENTS, 5]}))
    assert [each.cause for each in parsed.rejected] == ["malformed_record", "malformed_record"]
    assert parsed.counts.num_read == 3


# DanmakuTPP-QA

QA = build_reader("danmaku_qa")
HISTORY = (
    "<|im_start|>user\nHistory:\n"
    "<|start_of_event|> <|time_start|><|byte_0|><|byte_0|><|byte_0|><|byte_0|><|time_end|> "
    "<|text_start|>first<|text_end|> <|vision_start|><|image_pad|><|vision_end|> "
    "<|end_of_event|>\n"
    "<|start_of_event|> <|time_start|><|byte_63|><|byte_192|><|byte_0|><|byte_0|><|time_end|> "
    "<|type_start|><|type_4|><|type_end|> <|text_start|>second<|text_end|> <|end_of_event|>\n"
)
LINE = {
    "prompt_text": HISTORY + "<|question|>How many peaks?<|im_end|>\n<|im_start|>assistant\n",
    "response_text": "3<|im_end|>",
    "prompt_image_paths": ["frames/1.jpg"],
}


def test_a_question_comes_with_its_events():
    parsed = read_file(QA, "qa.jsonl", _lines([LINE]), types=TypeCodes(()))
    (sequence,) = parsed.sequences
    assert (
        sequence.sequence_id,
        sequence.times.tolist(),
        sequence.types.tolist(),
    ) == ("qa#0", [0.0, 1.5], [0, 4])
    assert sequence.texts == ("first", "second")
    assert sequence.images == ("frames/1.jpg", None)
    assert sequence.questions == (("How many peaks?", "3"),)


def test_questions_about_the_same_events_are_in_one_split():
    other = LINE | {"prompt_text": HISTORY + "<|question|>Which type is last?<|im_end|>\n"}
    apart = LINE | {"prompt_text": HISTORY.replace("second", "third") + "<|question|>What?\n"}
    parsed = read_file(QA, "qa.jsonl", _lines([LINE, other, apart]), types=TypeCodes(()))
    assert QA.split_key is not None
    first, second, third = map(QA.split_key, parsed.sequences)
    assert first == second != third


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"response_text": None}, "must be strings"),
        ({"prompt_text": "no events"}, "has no events"),
        ({"prompt_image_paths": []}, "0 images, but 1 of 1 placeholders"),
        ({"prompt_text": HISTORY + "<|vision_start|>"}, "1 images, but 1 of 2 placeholders"),
        ({"prompt_text": HISTORY + "<|similar_event|>\n"}, "compressed"),
        ({"prompt_text": HISTORY.replace("byte_192", "byte_999")}, "event 1 lacks a time"),
        ({"prompt_text": HISTORY.replace("byte_63", "byte_255")}, "event 1 has the interval"),
        ({"prompt_image_paths": 3}, "must be a list"),
    ],
)
def test_a_line_that_is_no_question_is_rejected_with_its_reason(change: dict, problem: str):
    parsed = read_file(QA, "qa.jsonl", _lines([LINE, {**LINE, **change}]), types=TypeCodes(()))
    assert len(parsed.sequences) == 1
    # every event counts; of a prompt without any event, the line
    lost = 1 if change == {"prompt_text": "no events"} else 2
    assert [("malformed_record", 1)] * lost == [(each.cause, each.row) for each in parsed.rejected]
    assert problem in parsed.rejected[0].detail


# taxi trips


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
    assert f"Pickup in {first.pickup_zone}, 1 passenger" == events.text[0]
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
def test_parts_of_manhattan_are_those_new_yorkers_know(real_data: Path, zone: int, part: str):
    """East Village, Greenwich Village North; Union Sq, Times Sq, Midtown North; Lincoln Square
    East, East Harlem North; JFK; Battery Park."""
    _, zones = _trips_and_zones(real_data)
    assert part == zones[zone].part


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


def test_trips_without_zones_and_what_is_no_shapefile_are_refused():
    with pytest.raises(DataError, match="PULocationID or pickup_zone_id"):
        read_trips("t.csv", b"tpep_pickup_datetime,tpep_dropoff_datetime\n2015-01-01,2015-01-02\n")
    with pytest.raises(DataError, match="not a shapefile"):
        read_zones(b"no", b"no", where="z")
