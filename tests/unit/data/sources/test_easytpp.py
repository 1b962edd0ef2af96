"""EasyTPP pickles and rows: the same events in every format, and no pickle runs code."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from mmtpp.data.sources import build_reader
from mmtpp.data.sources.checking import read_file
from mmtpp.data.sources.easytpp import parse
from mmtpp.data.sources.event_files import MalformedFileError
from mmtpp.data.sources.reader import ParsedFile
from mmtpp.data.sources.type_codes import TypeCodes
from tests.helpers.event_files import EASYTPP_EVENTS
from tests.helpers.tables import json_lines, parquet_bytes

EASYTPP = build_reader("easytpp")


def _read(path: str, data: bytes) -> ParsedFile:
    return read_file(EASYTPP, path, data, types=TypeCodes(()))


def test_real_pickles_have_the_known_numbers(real_data: Path):
    for name, num_sequences, num_events in (("train", 3000, 49363), ("dev", 400, 6612)):
        data = (real_data / "tpp_earthquake" / f"{name}.pkl").read_bytes()
        parsed = _read(f"{name}.pkl", data)
        assert (len(parsed.sequences), parsed.counts.num_read) == (num_sequences, num_events)
        assert not parsed.rejected
        assert parsed.counts.num_disagreeing == 0
        with (real_data / "tpp_earthquake" / f"{name}.pkl").open("rb") as file:
            tree = pickle.load(file)  # noqa: S301 # builtins only, of a known commit
        first = parsed.sequences[0]
        assert first.times.tolist() == [event["time_since_start"] for event in tree[name][0]]
        assert first.types.tolist() == [event["type_event"] for event in tree[name][0]]


def test_rows_of_hugging_face_data_sets_equal_the_pickle():
    row = {
        "dim_process": 2,
        "seq_idx": 0,
        **{key: [e[key] for e in EASYTPP_EVENTS] for key in EASYTPP_EVENTS[0]},
    }
    forms = {
        "train.pkl": pickle.dumps({"dim_process": 2, "train": [EASYTPP_EVENTS]}),
        "train.json": json.dumps([row]).encode(),
        "train.jsonl": json_lines([row]),
        "train.parquet": parquet_bytes([row]),
    }
    for path, data in forms.items():
        (sequence,) = _read(path, data).sequences
        assert (sequence.times.tolist(), sequence.types.tolist()) == ([0.0, 2.0], [1, 0]), path


def test_numpy_scalars_in_a_pickle_are_numbers():
    events = [{key: np.float64(value) for key, value in event.items()} for event in EASYTPP_EVENTS]
    for protocol in (2, 4):
        data = pickle.dumps({"dim_process": 2, "train": [events]}, protocol=protocol)
        (sequence,) = _read("t.pkl", data).sequences
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
        _read("t.pkl", pickle.dumps(tree))
    assert not Path("/tmp/mmtpp-pickle-was-run").exists()


def test_a_damaged_pickle_cannot_allocate_memory():
    # opcodes that store an object under the number 2^31 - 1, and a bytearray of 2^62 bytes
    for data in (b"\x80\x04]r\xff\xff\xff\x7f.", b"\x80\x05\x96" + (2**62).to_bytes(8, "little")):
        with pytest.raises(MalformedFileError):
            _read("t.pkl", data)


def test_types_beyond_the_declared_number_are_rejected():
    parsed = _read("t.pkl", pickle.dumps({"dim_process": 1, "dev": [EASYTPP_EVENTS, 5]}))
    assert [record.cause for record in parsed.rejected] == ["malformed_record", "malformed_record"]
    assert parsed.counts.num_read == 3


def test_a_pickle_that_nests_without_end_is_rejected_quickly():
    nested: list = [0]
    for _ in range(60):
        nested = [nested, nested]
    loop: dict = {"time_since_start": 0.0, "type_event": 0}
    loop["self"] = loop
    parsed = _read("t.pkl", pickle.dumps({"train": [[{"time_since_start": nested}, nested, loop]]}))
    assert (parsed.counts.num_read, len(parsed.rejected)) == (3, 2)


def test_stored_texts_of_a_pickle_contain_no_address_of_an_object():
    number_type = b"cnumpy\ndtype\n(S'f8'\ntR"
    with pytest.raises(MalformedFileError, match="_NumberType object") as caught:
        list(parse("a.pkl", number_type + b"I1\nR."))
    assert " at 0x" not in str(caught.value)
    (event,) = parse("a.pkl", b"}S'train'\n]]}S'type_event'\n" + number_type + b"saas.")
    assert event.type == "<_NumberType>"
