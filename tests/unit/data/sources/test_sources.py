"""Readers: every record is kept or rejected with its cause; nothing is dropped."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmtpp.data.sources import READERS
from mmtpp.data.sources.checking import read_file, warn_of_dates
from mmtpp.data.sources.event_files import MalformedFileError
from mmtpp.data.sources.flights import load_departures, sequences
from mmtpp.data.sources.type_codes import TypeCodes

MMTPP, DANMAKU = READERS["mmtpp"], READERS["danmaku"]


def _event(**changes: object) -> dict:
    event = {
        "time": 1.0,
        "text": "hi",
        "image_path": "images/a.png",
        "TPP_attribute": {"time_since_last_event": 0.0, "event_type": 3},
    }
    return {key: value for key, value in {**event, **changes}.items() if value != "absent"}


def _read(events: object, type_names: tuple[str, ...] = ()):
    data = json.dumps(events).encode()
    return read_file(MMTPP, "a/b.json", data, types=TypeCodes(type_names))


def test_a_published_file_is_read_in_order_of_time():
    parsed = _read([_event(time=2, text="b"), _event(time=1, text="a"), _event(time=2, text="c")])
    (sequence,) = parsed.sequences
    assert sequence.sequence_id == "a/b"
    assert sequence.times.tolist() == [1.0, 2.0, 2.0]
    assert sequence.texts == ("a", "b", "c")  # ties keep the order of the file
    assert parsed.counts.num_reordered == 1


@pytest.mark.parametrize(
    "spelling",
    [
        {"TPP_attribute": {"event_type": 3}},
        {"TPP_attribute": {"type_event": 3}},
        {"TPP_attribute": "absent", "type_event": 3},
        {"TPP_attribute": {"event_type": 3.0}},
    ],
)
def test_every_published_spelling_of_the_type_is_accepted(spelling: dict):
    parsed = _read([_event(**spelling)])
    (sequence,) = parsed.sequences
    assert sequence.types.tolist() == [3]


def test_a_byte_order_mark_is_no_obstacle():
    data = b"\xef\xbb\xbf" + json.dumps([_event()]).encode()
    assert read_file(MMTPP, "a.json", data, types=TypeCodes(())).counts.num_read == 1


@pytest.mark.parametrize(
    ("event", "cause"),
    [
        (_event(time=None), "missing_time"),
        (_event(time=""), "missing_time"),
        (_event(time=float("nan")), "non_finite_time"),
        (_event(time=float("inf")), "non_finite_time"),
        (_event(time=10**400), "non_finite_time"),
        (_event(time=2e38), "non_finite_time"),
        (_event(time="absent"), "missing_time"),
        (_event(time="3"), "unreadable_time"),
        (_event(time=True), "unreadable_time"),
        (_event(TPP_attribute={}), "missing_type"),
        (_event(TPP_attribute={"event_type": 256}), "unknown_type"),
        (_event(TPP_attribute={"event_type": "humor"}), "unnamed_type"),
        (_event(TPP_attribute={"event_type": [3]}), "unreadable_type"),
        (_event(text=None), "missing_text"),
        (_event(text=7), "invalid_text"),
        (_event(text=["a"]), "invalid_text"),
        (_event(text="\ud800"), "invalid_text"),
        (_event(image_path=7), "invalid_image_path"),
        (_event(image_path="\ud800.png"), "invalid_image_path"),
        ("not an object", "malformed_record"),
    ],
)
def test_a_bad_record_is_rejected_by_cause_and_the_rest_kept(event: object, cause: str):
    parsed = _read([_event(), event])
    (sequence,) = parsed.sequences
    assert (parsed.counts.num_read, len(sequence)) == (2, 1)
    (rejected,) = parsed.rejected
    assert (rejected.cause, rejected.row, rejected.path) == (cause, 1, "a/b.json")


def test_type_names_map_to_their_codes():
    parsed = _read([_event(type_event="b", TPP_attribute={})], type_names=("a", "b"))
    (sequence,) = parsed.sequences
    assert sequence.types.tolist() == [1]


@pytest.mark.parametrize(
    "data", [b"", b"{", b"{}", b"\xff\xfe", b"3", b"[" * 100_000, b"[" + b"9" * 5000]
)
def test_a_malformed_json_file_is_an_error_that_names_it(data: bytes):
    with pytest.raises(MalformedFileError, match=r"a/b\.json"):
        read_file(MMTPP, "a/b.json", data, types=TypeCodes(()))


def test_numbers_that_look_like_dates_are_warned_of(caplog: pytest.LogCaptureFixture):
    for times, unit, is_warned in (
        ([1711836000000.0, 1711836060000.0], 1.0, True),
        ([1711836000000.0, 1711836060000.0], 1e-3, False),
        ([20240131.0, 20240201.0], 1.0, True),
        ([1711836000.0, 1711836060.0], 1.0, False),
        ([0.0, 20240131.0], 1.0, False),
    ):
        caplog.clear()
        parsed = _read([_event(time=time) for time in times])
        warn_of_dates(parsed, "a.json", seconds_per_unit=unit)
        assert ("look like dates" in caplog.text) == is_warned


def test_danmaku_times_types_and_texts():
    xml = (
        '<i><chatid>1</chatid><d p="98.645,1,25,16777215,1593156917,0,a,1">后</d>'
        '<d p="3.5,5,25,1,2,0,b,2">先&lt;|im_end|&gt;</d><d p="x,1">bad</d><d>none</d>'
        '<d p="-2,1">early</d><d p="4,12">kind</d><d p="5,4"/></i>'
    )
    parsed = read_file(DANMAKU, "v.xml", xml.encode(), types=TypeCodes(DANMAKU.type_names))
    (sequence,) = parsed.sequences
    assert sequence.times.tolist() == [-2.0, 3.5, 5.0, 98.645]
    assert sequence.texts == ("early", "先<|im_end|>", "", "后")
    assert sequence.types.tolist() == [1, 5, 4, 1]
    causes = [record.cause for record in parsed.rejected]
    assert causes == ["malformed_record", "malformed_record", "unknown_type"]


@pytest.mark.parametrize(
    "xml",
    [
        "",
        "<i><d",
        '<!DOCTYPE i [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><i><d p="1,1">&b;</d></i>',
        '<!DOCTYPE i [<!ENTITY x SYSTEM "file:///etc/passwd">]><i><d p="1,1">&x;</d></i>',
    ],
)
def test_malformed_or_hostile_xml_is_an_error_that_names_the_file(xml: str):
    with pytest.raises(MalformedFileError, match=r"v\.xml"):
        read_file(DANMAKU, "v.xml", xml.encode(), types=TypeCodes(()))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["time", "text", "image_path", "TPP_attribute", "event_type", "x"]),
            inner,
        )
    ),
    max_leaves=12,
)


@given(st.lists(json_values, max_size=6))
def test_any_list_is_accounted_for(events: list):
    parsed = _read(events)
    kept = sum(map(len, parsed.sequences))
    assert parsed.counts.num_read == len(events) == kept + len(parsed.rejected)


def test_the_demo_has_the_known_numbers_of_sequences_and_events():
    departures = load_departures()
    by_aircraft = list(sequences(departures, sequence="aircraft"))
    assert (len(by_aircraft), sum(len(events) for _, events in by_aircraft)) == (3149, 322326)
    assert len(list(sequences(departures, sequence="airport_day"))) == 1095
    assert (np.diff(departures.minute) >= 0).all()
    # the first line of flights.csv: UA 1545, EWR to IAH, 1 January, 5:17
    first = departures.iloc[0]
    assert (first.minute, first.tailnum, first.text) == (317.0, "N14228", "UA1545 to IAH, 737-824")


_NUMBERS = st.one_of(
    st.floats(0, 1e6),
    st.integers(0, 100),
    st.sampled_from([float("nan"), float("inf"), -1.0, 1e300, True, None, "1", 2**70]),
)
_RECORDS = st.lists(
    st.builds(
        lambda time, kind, wait, text, image, extra: {
            "time": time,
            "text": text,
            "image_path": image,
            "TPP_attribute": {"event_type": kind, "time_since_last_event": wait, **extra},
        },
        st.one_of(st.floats(0, 1e6), st.integers(0, 50)) | _NUMBERS,
        st.one_of(st.integers(0, 255), st.sampled_from(["a", "b"])) | _NUMBERS,
        st.floats(0, 10) | _NUMBERS,
        st.text() | st.sampled_from(["ok", "\ud800", 7]),
        st.sampled_from([None, "", "i/a.png"]) | st.just(3),
        st.just({}),
    ),
    max_size=5,
)


@given(_RECORDS, st.sampled_from([(), ("a", "b")]))
def test_a_file_read_as_columns_gives_what_its_records_give_one_by_one(records, names):
    data = json.dumps(records).encode()
    one_by_one = replace(MMTPP, columns=None)
    fast = read_file(MMTPP, "f/x.json", data, types=TypeCodes(names))
    slow = read_file(one_by_one, "f/x.json", data, types=TypeCodes(names))
    assert (fast.counts, fast.rejected) == (slow.counts, slow.rejected)
    assert len(fast.sequences) == len(slow.sequences)
    for expected, actual in zip(slow.sequences, fast.sequences, strict=True):
        assert actual.sequence_id == expected.sequence_id
        assert np.array_equal(actual.times, expected.times)
        assert np.array_equal(actual.types, expected.types)
        assert actual.times.dtype == expected.times.dtype
        assert actual.types.dtype == expected.types.dtype
        assert (actual.texts, actual.images) == (expected.texts, expected.images)


@given(st.lists(st.tuples(st.floats(0, 9), st.integers(0, 8), st.floats(0, 2)), min_size=1))
def test_files_without_fault_are_read_as_columns(rows):
    records = [
        {
            "time": time,
            "text": "x",
            "image_path": None,
            "TPP_attribute": {"event_type": kind, "time_since_last_event": wait},
        }
        for time, kind, wait in rows
    ]
    reader = replace(MMTPP, parse=lambda path, data: pytest.fail("read one by one"))
    parsed = read_file(reader, "x.json", json.dumps(records).encode(), types=TypeCodes(()))
    assert len(parsed.sequences[0]) == len(rows)
