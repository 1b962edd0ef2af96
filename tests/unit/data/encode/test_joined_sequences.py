"""Sequences whose events lie in several files: pieces, partitions, and when they are joined."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mmtpp
from mmtpp.config.load import config_from_tree
from mmtpp.config.schema import SourceSection
from mmtpp.core.errors import ConfigError, StorageError
from mmtpp.core.events import EventSequence, Rejected
from mmtpp.data.encode.encode import _may_join
from mmtpp.data.encode.encode_settings import EncodeSettings
from mmtpp.data.encode.parse_files import ParsedShard
from mmtpp.data.encode.pieces import PartitionedShard, partitioned_uri, read_partition, write_pieces
from mmtpp.data.encode.raw_dataset import load_raw_dataset
from mmtpp.data.encode.repeated_ids import SAMPLE_SIZE, IdSamples, sample_ids
from mmtpp.data.encode.shards import build_partition
from mmtpp.data.prepare import prepare
from mmtpp.data.sources.reader import ReadCounts
from mmtpp.storage.paths import read_bytes, read_range
from tests.helpers.steps import SETTINGS
from tests.helpers.tables import write_rows

# a file is a list of events: sequence, time, type, text, image
EVENT = st.tuples(
    st.sampled_from(["a", "b", "ü", ""]),
    st.integers(-3, 3).map(float),
    st.integers(0, 255),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=3),
    st.one_of(st.none(), st.text("xy", min_size=1, max_size=2)),
)
FILES = st.lists(st.lists(EVENT, max_size=6), min_size=1, max_size=5)


def _sequence(name: str, events: list[tuple]) -> EventSequence:
    return EventSequence(
        name,
        np.array([event[1] for event in events]),
        np.array([event[2] for event in events], dtype=np.int16),
        tuple(event[3] for event in events),
        tuple(event[4] for event in events),
    )


def _parsed(path: str, events: list[tuple]) -> ParsedShard:
    """One file as a reader gives it: every sequence in order of time."""
    names = list(dict.fromkeys(event[0] for event in events))
    sequences = [
        _sequence(name, sorted((e for e in events if e[0] == name), key=lambda event: event[1]))
        for name in names
    ]
    return ParsedShard(
        sequences,
        paths=[path] * len(names),
        splits=["train"] * len(names),
        counts=ReadCounts(len(events)),
    )


def _rows(sequence: EventSequence) -> list[tuple]:
    columns = (sequence.times.tolist(), sequence.types.tolist(), sequence.texts, sequence.images)
    return list(zip(*columns, strict=True))


@given(FILES, st.integers(1, 4), st.integers(1, 3))
def test_partitions_hold_every_event_once_in_order_of_time(
    tmp_path_factory, files: list[list[tuple]], num_partitions: int, files_per_shard: int
):
    folder = str(tmp_path_factory.mktemp("pieces"))
    parsed = [_parsed(f"{index:02}.csv", events) for index, events in enumerate(files)]
    shards = [parsed[at : at + files_per_shard] for at in range(0, len(parsed), files_per_shard)]
    partitioned = []
    for index, members in enumerate(shards):
        content = ParsedShard()
        for member in members:
            content.sequences += member.sequences
            content.paths += member.paths
            content.splits += member.splits
            content.counts += member.counts
        write_pieces(folder, index, content, num_partitions=num_partitions)
        done = PartitionedShard.from_json(read_bytes(partitioned_uri(folder, index)))
        assert done.counts == content.counts
        partitioned.append(done)
    joined: dict[str, EventSequence] = {}
    num_joined = 0
    for partition in range(num_partitions):
        ranges = build_partition(
            partition, [shard.ranges[partition] for shard in partitioned]
        ).ranges
        content = read_partition(folder, ranges)
        assert content.splits == ["train"] * len(content.sequences)
        num_joined += content.counts.num_joined
        for sequence in content.sequences:
            assert sequence.sequence_id not in joined  # an id is in one partition
            joined[sequence.sequence_id] = sequence
    expected: dict[str, list[tuple]] = {}
    for events in files:
        for event in events:
            expected.setdefault(event[0], []).append(event[1:])
    assert {name: _rows(sequence) for name, sequence in joined.items()} == {
        name: sorted(events, key=lambda event: event[0]) for name, events in expected.items()
    }
    in_files = [{event[0] for event in events} for events in files]
    assert num_joined == sum(sum(name in ids for ids in in_files) > 1 for name in expected)


def test_a_rejected_record_is_last_only_if_no_later_file_has_a_kept_event(tmp_path: Path):
    """Otherwise ``predict`` would say that a sequence has lost its newest event."""
    content = _parsed("1.csv", [("a", 0.0, 0, "", None), ("b", 0.0, 0, "", None)])
    later = _parsed("2.csv", [("a", 5.0, 0, "", None)])
    lost = Rejected("1.csv", 7, "missing_time", "time is None", "{}", is_last=True)
    content.rejected = [replace(lost, sequence_id="a"), replace(lost, sequence_id="b")]
    later.rejected = [replace(lost, path="2.csv", sequence_id="a", events=3)]
    for index, shard in enumerate((content, later)):
        write_pieces(str(tmp_path), index, shard, num_partitions=1)
    ranges = [
        PartitionedShard.from_json(read_bytes(partitioned_uri(str(tmp_path), index))).ranges[0]
        for index in range(2)
    ]
    joined = read_partition(str(tmp_path), ranges)
    found = [(record.path, record.sequence_id, record.is_last) for record in joined.rejected]
    assert found == [("1.csv", "a", False), ("1.csv", "b", True), ("2.csv", "a", True)]
    assert joined.paths == ["1.csv to 2.csv (2 files)", "1.csv"]
    assert joined.rejected[-1].events == 3


def test_samples_show_ids_that_two_shards_share():
    days = [[f"user {number}" for number in range(day * 500, day * 500 + 5000)] for day in range(3)]
    samples = IdSamples()
    assert not samples.add(sample_ids(days[0]))
    assert samples.add(sample_ids(days[1]))
    apart = IdSamples()
    for day in range(3):
        sample = sample_ids([f"{day}/{name}" for name in days[day]])
        assert len(sample) == SAMPLE_SIZE
        assert not apart.add(sample)
    assert IdSamples().add(sample_ids([*days[0], days[0][-1]]))
    assert not IdSamples().add(sample_ids([]))


DAYS, SPLITS = ["2024-01-01.csv", "2024-01-02.csv"], ["train.csv", "test.csv"]


@pytest.mark.parametrize(
    ("partitioning", "split_by", "names", "expected"),
    [
        ("auto", "hash", DAYS, True),
        ("auto", "hash", SPLITS, False),  # ids may begin anew in each
        ("auto", "given", SPLITS, True),  # the split becomes part of an id
        ("file", "hash", DAYS, False),
    ],
)
def test_ids_of_given_splits_are_not_joined_by_themselves(
    partitioning: str, split_by: str, names: list[str], expected: bool
):
    values = {**SETTINGS, "source_uri": "", "split_by": split_by, "partitioning": partitioning}
    settings = EncodeSettings(**values)
    assert _may_join(settings, [(name, 1) for name in names]) == expected


@pytest.mark.parametrize("columns", [{"time": "t"}, {"time": "t", "sequence": ""}])
def test_events_that_do_not_name_their_sequence_cannot_be_joined(tmp_path: Path, columns: dict):
    raw = tmp_path / "raw"
    write_rows(raw / "a.csv", [{"t": 1}])
    tree = {
        "source": {
            "uri": str(raw),
            "kind": "columns",
            "partitioning": "sequence",
            "columns": columns,
        },
        "store": {"uri": str(tmp_path / "store")},
    }
    with pytest.raises(
        ConfigError, match=r"(?s)source\.partitioning = sequence.*columns\.sequence"
    ):
        prepare(config_from_tree(tree))
    tree["source"] |= {"kind": "danmaku"}
    with pytest.raises(ConfigError, match="a file of this kind is whole sequences"):
        prepare(config_from_tree(tree))


def test_files_in_memory_are_joined_like_those_of_a_store(tmp_path: Path):
    write_rows(tmp_path / "2.csv", [{"who": "a", "t": 3, "x": "late"}])
    write_rows(
        tmp_path / "1.csv", [{"who": "a", "t": 5, "x": "last"}, {"who": "b", "t": 1, "x": ""}]
    )
    columns = {"time": "t", "sequence": "who", "text": "x"}
    sequences = mmtpp.load_sequences(tmp_path, columns=columns)
    assert [sequence.sequence_id for sequence in sequences] == ["a", "b"]
    assert sequences[0].texts == ("late", "last")
    assert sequences[0].times.tolist() == [3, 5]


def test_a_range_of_a_file_is_whole_or_an_error(tmp_path: Path):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(10)))
    assert read_range(str(path), 2, 5) == bytes([2, 3, 4])
    assert read_range(str(path), 4, 4) == b""
    with pytest.raises(StorageError, match=r"read 2 of 4 bytes from byte 8"):
        read_range(str(path), 8, 12)
    with pytest.raises(StorageError, match="does not exist"):
        read_range(str(tmp_path / "none"), 0, 1)


@pytest.mark.parametrize(
    ("partitioning", "split_by", "expected"),
    [
        ("sequence", "hash", ["joined"]),  # by the id alone, as prepare does
        ("sequence", "given", ["train", "test"]),  # the split becomes part of an id
        ("auto", "hash", ["train", "test"]),  # ids may begin anew, and prepare refuses them
        ("auto", "given", ["train", "test"]),
    ],
)
def test_raw_files_of_two_splits_are_joined_as_prepare_joins_them(
    partitioning: str, split_by: str, expected: list[str], tmp_path: Path
):
    for split, at in (("train", 2), ("test", 1)):
        write_rows(tmp_path / split / "a.csv", [{"t": at, "who": "one"}])
    source = SourceSection(
        uri=str(tmp_path),
        kind="columns",
        partitioning=partitioning,
        columns={"time": "t", "sequence": "who"},
    )
    raw = load_raw_dataset(source, split_by=split_by)
    if expected == ["joined"]:
        assert [sequence.times.tolist() for sequence in raw.sequences] == [[1.0, 2.0]]
        assert raw.num_joined == 1
    else:
        assert sorted(raw.given_splits) == sorted(expected)
        assert raw.num_joined == 0
