"""A damaged file of any kind ends in a typed error, or all its events are accounted for."""

import copy
import json
import pickle
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmtpp.data.sources import READERS, build_reader
from mmtpp.data.sources.checking import read_file
from mmtpp.data.sources.columns import Columns
from mmtpp.data.sources.event_files import MalformedFileError
from mmtpp.data.sources.type_codes import TypeCodes
from tests.helpers.event_files import CAB_FILES, EASYTPP_EVENTS, QA_PROMPT, QA_RECORD
from tests.helpers.tables import xes_bytes

MMTPP = [
    {
        "time": 1.0,
        "text": "hi",
        "image_path": "a.png",
        "TPP_attribute": {"time_since_last_event": 0.0, "event_type": 3},
    }
] * 2
ROW = {
    "dim_process": 2,
    **{key: [event[key] for event in EASYTPP_EVENTS] for key in EASYTPP_EVENTS[0]},
}
CABS = [{"unix_time": 5, "cab_id": "a", "event_type": 1, "concept:name": 1}] * 2
VALID: list[tuple[str, str, bytes]] = [
    ("mmtpp", "a.json", json.dumps(MMTPP).encode()),
    ("taxi", "a.json", json.dumps(MMTPP).encode()),
    ("flights", "a.json", json.dumps(MMTPP).encode()),
    ("danmaku", "a.xml", b'<i><d p="1.5,1,25,1,1,0,a,1">x</d><d p="0.5,4">y</d></i>'),
    ("danmaku_qa", "a.jsonl", json.dumps(QA_PROMPT).encode()),
    ("easytpp", "a.pkl", pickle.dumps({"dim_process": 2, "train": [EASYTPP_EVENTS]})),
    ("easytpp", "a.pkl", pickle.dumps({"dim_process": 2, "train": [EASYTPP_EVENTS]}, protocol=0)),
    ("easytpp", "a.json", json.dumps([ROW]).encode()),
    *(("columns", path, data) for path, data in CAB_FILES.items()),
    ("xes", "a.xes", xes_bytes({"x": CABS, "y": CABS})),
]
VALUES = [
    None,
    True,
    -1,
    10**400,
    1e999,
    "x",
    "\ud800",
    [],
    {},
    [[1]],
    {"time": 1},
    3.5,
    "1e5",
    -0.0,
]


def _account(kind: str, path: str, data: bytes) -> None:
    columns = Columns(time="unix_time", sequence="cab_id", type="event_type", text="cab_id")
    reader = build_reader(kind, columns=columns)
    parsed, problem = None, ""
    try:
        parsed = read_file(reader, path, data, types=TypeCodes(reader.type_names))
    except MalformedFileError as error:
        problem = str(error)
    if parsed is None:
        assert path.removesuffix(".gz") in problem
        return
    kept = sum(map(len, parsed.sequences))
    if kind == "mmtpp":  # counted without the reader
        assert (
            len(json.loads(data.decode("utf-8-sig", "surrogateescape"))) == parsed.counts.num_read
        )
    assert kept + len(parsed.rejected) == parsed.counts.num_read
    assert all(record.cause and record.detail for record in parsed.rejected)
    assert all((record.detail + record.record).encode() is not None for record in parsed.rejected)
    for sequence in parsed.sequences:
        # a table of strings must be able to hold all of these words
        words = [sequence.sequence_id, *sequence.texts, *map(str, sequence.images)]
        words += [word for question in sequence.questions for word in question]
        assert all(word.encode() is not None for word in words)
        assert (sequence.times[1:] >= sequence.times[:-1]).all()
        assert ((sequence.types >= 0) & (sequence.types < 256)).all()


def _flip(data: bytes, place: int, value: int) -> bytes:
    place %= max(1, len(data))
    return data[:place] + bytes([value]) + data[place + 1 :]


def _damages() -> st.SearchStrategy[Callable[[bytes], bytes]]:
    places, chunks = st.integers(0, 5000), st.binary(max_size=6)
    return st.one_of(
        st.builds(lambda a, b: lambda data: _flip(data, a, b), places, st.integers(0, 255)),
        st.builds(lambda a: lambda data: data[: a % (len(data) + 1)], places),
        st.builds(lambda a, b: lambda data: data[:a] + b + data[a:], places, chunks),
        st.builds(lambda a, b: lambda data: data[:a] + data[a + b % 50 :], places, places),
    )


@st.composite
def damaged_bytes(draw: st.DrawFn) -> tuple[str, str, bytes]:
    kind, path, data = draw(st.sampled_from(VALID))
    for damage in draw(st.lists(_damages(), min_size=1, max_size=4)):
        data = damage(data)
    return kind, path, data


@st.composite
def damaged_values(draw: st.DrawFn) -> tuple[str, str, bytes]:
    """Well-formed JSON and pickles in which values are of other kinds than they should be."""
    kind, path, tree, dump = draw(
        st.sampled_from(
            [
                ("mmtpp", "a.json", MMTPP, json.dumps),
                ("easytpp", "a.json", [ROW], json.dumps),
                ("easytpp", "a.pkl", {"dim_process": 2, "train": [EASYTPP_EVENTS]}, pickle.dumps),
                ("danmaku_qa", "a.json", [QA_PROMPT, QA_RECORD], json.dumps),
                ("columns", "a.json", json.loads(CAB_FILES["x/t.json"]), json.dumps),
            ]
        )
    )
    tree = json.loads(json.dumps(tree))
    for _ in range(draw(st.integers(1, 3))):
        node = tree
        while isinstance(node, list | dict) and node:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            key = draw(st.sampled_from(keys))
            if not isinstance(node[key], list | dict) or draw(st.integers(0, 3)) == 0:
                node[key] = copy.deepcopy(draw(st.sampled_from(VALUES)))
                break
            node = node[key]
    data = dump(tree)
    return kind, path, data.encode() if isinstance(data, str) else data


anything = st.tuples(st.sampled_from([*READERS, "columns"]), st.binary(max_size=300)).map(
    lambda pair: (pair[0], VALID_PATHS[pair[0]], pair[1])
)
VALID_PATHS = {kind: path for kind, path, _ in VALID}
malformed = st.one_of(damaged_bytes(), damaged_values(), anything)


@given(malformed)
def test_damage_ends_in_an_error_or_an_account(sample: tuple[str, str, bytes]):
    _account(*sample)


@pytest.mark.slow
@settings(max_examples=10_000)
@given(malformed)
def test_ten_thousand_damages_end_in_an_error_or_an_account(sample: tuple[str, str, bytes]):
    _account(*sample)


@pytest.mark.parametrize(("kind", "path", "data"), VALID)
def test_undamaged_files_are_read_completely(kind: str, path: str, data: bytes):
    reader = build_reader(kind, columns=Columns(time="unix_time", sequence="cab_id"))
    parsed = read_file(reader, path, data, types=TypeCodes(()))
    assert not parsed.rejected
    assert parsed.counts.num_read >= 2
