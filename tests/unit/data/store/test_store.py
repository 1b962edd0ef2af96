"""The event store: written sequences and images are read back, in any parts and order."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mmtpp.core.events import EventSequence
from mmtpp.data.encode.shard_columns import ShardColumns
from mmtpp.data.encode.text_tokeniser import TextTokeniser
from mmtpp.data.encode.totals import Totals, ids_with_hashes, shard_counts
from mmtpp.data.sources.reader import ReadCounts
from mmtpp.data.store.layout import GROUP_EVENTS, IMAGES_PER_BLOCK, PART_EVENTS, frames_per_group
from mmtpp.data.store.row_groups import RowGroupKey
from mmtpp.data.store.store_reader import StoreReader
from mmtpp.data.store.store_settings import StoreSettings
from mmtpp.model.tokens.vocabulary import Vocabulary, train_tokenizer
from mmtpp.storage.parquet import open_file
from tests.helpers.steps import encode_shard

TOKENIZER = train_tokenizer(["some words of text", "and more"], size=300)
VOCABULARY = Vocabulary(TOKENIZER)


def _sequence(name: str, length: int, *, seed: int = 0, questions=()) -> EventSequence:
    rng = np.random.default_rng([seed, length])
    return EventSequence(
        name,
        np.cumsum(rng.exponential(1.0, length)),
        rng.integers(0, 9, length).astype(np.int16),
        tuple(rng.choice(["some words", "of text", "", "ünï"], length).tolist()),
        tuple(rng.choice(["a.png", "b.png", None], length).tolist()),  # pyright: ignore[reportCallIssue]
        questions,
    )


def _columns(sequences: list[EventSequence]) -> ShardColumns:
    columns, _ = ShardColumns.from_sequences(
        sequences,
        paths=[sequence.sequence_id for sequence in sequences],
        splits=["train"] * len(sequences),
        tokenise=TextTokeniser(VOCABULARY),
    )
    return columns


SEQUENCES = [
    _sequence("short", 3, questions=(("Why?", "So."),)),
    _sequence("long", 2 * PART_EVENTS + 7),
    _sequence("exact", PART_EVENTS),
    *(_sequence(f"small-{index}", 50) for index in range(100)),
    _sequence("last", PART_EVENTS + 1),
]


@pytest.fixture(scope="module")
def reader(tmp_path_factory) -> StoreReader:
    folder = tmp_path_factory.mktemp("store")
    _columns(SEQUENCES).write(str(folder / "sequences" / "000000.parquet"))
    return StoreReader(StoreSettings(str(folder), "x", 56))


def test_row_groups_hold_whole_short_sequences_or_one_part(tmp_path):
    _columns(SEQUENCES).write(str(tmp_path / "s.parquet"))
    file = open_file(str(tmp_path / "s.parquet"))
    groups = [file.read_row_group(group) for group in range(file.num_row_groups)]
    parts = [group["part"].to_pylist() for group in groups]
    sizes = [sum(map(len, group["times"].to_pylist())) for group in groups]
    assert max(sizes) <= max(GROUP_EVENTS, PART_EVENTS)
    assert all(len(group) == 1 for group, part in zip(groups, parts, strict=True) if max(part))
    names = [name for group in groups for name in group["sequence_id"].to_pylist()]
    assert list(dict.fromkeys(names)) == [sequence.sequence_id for sequence in SEQUENCES]
    assert len(groups) <= 12  # three parts, two, one of 4,096, and the small ones together
    assert groups[0]["questions"][0].as_py() == ["Why?"]
    ids = [VOCABULARY.encode_texts(["Why?", "So."])[place] for place in range(2)]
    assert groups[0]["question_ids"][0].as_py() == [ids[0]]
    assert groups[0]["answer_ids"][0].as_py() == [ids[1]]


def test_every_sequence_is_read_back_whole(reader):
    stored_sequences = list(reader.sequences(["000000.parquet"], with_text=True))
    assert len(stored_sequences) == len(SEQUENCES)
    for stored, expected in zip(stored_sequences, SEQUENCES, strict=True):
        assert stored.sequence_id == expected.sequence_id
        assert np.array_equal(stored.times, expected.times)
        assert np.array_equal(stored.events.types, expected.types)
        assert np.allclose(stored.events.intervals[1:], np.diff(expected.times))
        ids = VOCABULARY.encode_texts(list(expected.texts))
        assert np.diff(stored.events.text_offsets).tolist() == [len(tokens) for tokens in ids]
        assert stored.events.text_ids.tolist() == [token for tokens in ids for token in tokens]
        has_image = [image is not None for image in expected.images]
        assert (stored.events.frames >= 0).tolist() == has_image


@given(st.integers(0, len(SEQUENCES) - 1), st.data())
def test_any_events_are_those_of_the_whole_sequence(reader, index: int, data):
    stored = list(reader.sequences(["000000.parquet"], with_text=True))[index]
    length = len(stored.times)
    edges = st.sampled_from(
        sorted(
            {0, 1, 2, 3, PART_EVENTS - 1, PART_EVENTS, PART_EVENTS + 1, 2 * PART_EVENTS, length - 1}
        )
    )
    start = data.draw(st.one_of(edges, st.integers(0, length - 1)))
    start = min(start, length - 1)
    end = min(length, start + data.draw(st.integers(1, PART_EVENTS + 100)))
    actual = reader.events(stored.address, start, end)
    expected = stored.events.slice(start, end)
    for name in ("intervals", "types", "text_ids", "text_offsets", "frames"):
        assert np.array_equal(getattr(actual.events, name), getattr(expected, name)), name
    assert np.array_equal(actual.times, stored.times[start:end])
    types, intervals = stored.events.types, stored.events.intervals
    assert actual.previous_type.tolist() == [types[max(i - 1, 0)] for i in range(start, end)]
    previous_intervals = [intervals[i - 1] if i else np.inf for i in range(start, end)]
    assert actual.previous_interval.tolist() == previous_intervals


def test_columns_are_read_back_and_filtered(tmp_path):
    columns = _columns(SEQUENCES)
    uri = str(tmp_path / "s.parquet")
    columns.write(uri)
    restored = ShardColumns.read(uri, paths=columns.paths)
    for name in ("sequence_ids", "splits", "questions", "paths"):
        assert getattr(restored, name) == getattr(columns, name)
    for name in ("lengths", "times", "types", "text_ids", "text_lengths", "frame"):
        assert np.array_equal(getattr(restored, name), getattr(columns, name)), name
    assert restored.texts.equals(columns.texts)

    keep = np.random.default_rng(0).random(len(columns.times)) < 0.5
    keep[:3] = False  # all of the first sequence
    kept = restored.keep(keep)
    assert "short" not in kept.sequence_ids
    assert kept.times.tolist() == columns.times[keep].tolist()
    assert kept.texts.equals(columns.texts.filter(pa.array(keep)))
    assert int(kept.lengths.sum()) == int(keep.sum())
    expected = VOCABULARY.encode_texts(kept.texts.to_pylist())
    assert kept.text_ids.tolist() == [token for ids in expected for token in ids]


def _totals(shards: list[list[EventSequence]]) -> Totals:
    totals = Totals()
    for sequences in shards:
        columns = _columns(sequences)
        digests = {value: bytes([65 + value] * 16) for value in (0, 1)}
        counts = shard_counts(
            columns, [], ReadCounts(), frame_digests=digests, seconds_per_unit=1.0
        )
        totals.add(json.loads(json.dumps(counts)))
    return totals


def test_the_fingerprint_depends_on_the_content_and_not_on_the_shards():
    sequences = [_sequence(f"s{index}", 40) for index in range(6)]
    one_shard = _totals([sequences])
    shards = [[sequences[3], sequences[0]], [], sequences[4:], sequences[1:3]]
    assert one_shard._content == _totals(shards)._content
    for change in (
        _sequence("s0", 40, seed=1),
        _sequence("s0", 40, questions=(("a", "b"),)),
        _sequence("other", 40),
    ):
        assert _totals([[change, *sequences[1:]]])._content != one_shard._content


def test_sequence_ids_that_occur_twice_are_found():
    totals = _totals([[_sequence("a", 3), _sequence("b", 3)], [_sequence("c", 3)]])
    assert not totals.repeated_ids()
    totals = _totals([[_sequence("a", 3), _sequence("b", 3)], [_sequence("a", 4)]])
    assert ids_with_hashes({"sequence_ids": ["b", "a"]}, totals.repeated_ids()) == ["a"]


@given(st.lists(st.lists(st.sampled_from(["", "a", "some words", "ü", "and"]), max_size=8)))
def test_texts_are_tokenised_the_same_way_whatever_is_cached(columns: list[list[str]]):
    tokenise = TextTokeniser(VOCABULARY, cached_bytes=300)
    for texts in columns:
        ids, lengths = tokenise(pa.array(texts, pa.string()))
        expected = VOCABULARY.encode_texts(texts)
        assert ids.tolist() == [token for tokens in expected for token in tokens]
        assert lengths.tolist() == list(map(len, expected))


def _raw(folder: Path, *, images: int, same: int) -> list[str]:
    """A sequence with one image per event; the first ``same`` images have equal content."""
    (folder / "i").mkdir(parents=True)
    for index in range(images):
        value = 0 if index < same else index
        Image.new("RGB", (8, 8), (value % 256, value // 256, 7)).save(folder / f"i/{index}.png")
    events = [
        {
            "time": float(i),
            "text": "x",
            "image_path": f"i/{i}.png",
            "TPP_attribute": {"event_type": 0, "time_since_last_event": 1.0},
        }
        for i in range(images)
    ]
    (folder / "a.json").write_text(json.dumps(events))
    return ["a.json"]


def test_equal_images_of_a_shard_share_a_frame_across_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("mmtpp.data.encode.decoded_images.IMAGES_PER_BLOCK", 64)
    paths = _raw(tmp_path / "raw", images=150, same=100)
    counts = encode_shard(
        str(tmp_path / "out"), paths, tokenizer=TOKENIZER, source_uri=str(tmp_path / "raw")
    )
    assert (counts["frames"], counts["events_read"]) == (51, 150)
    table = open_file(str(tmp_path / "out/sequences/000000.parquet")).read()
    frame = table["frame"][0].as_py()
    assert frame[:100] == [0] * 100
    assert len(set(frame)) == 51


def test_frames_are_the_images_in_any_order(tmp_path):
    paths = _raw(tmp_path / "raw", images=600, same=0)
    encode_shard(
        str(tmp_path / "out"), paths, tokenizer=TOKENIZER, source_uri=str(tmp_path / "raw")
    )
    reader = StoreReader(StoreSettings(str(tmp_path / "out"), "x", 56))
    (sequence,) = reader.sequences(["000000.parquet"])
    order = np.random.default_rng(0).permutation(600)[:80]
    images = reader.frames("000000.parquet", sequence.events.frames[order])
    assert len({digest for digest, _ in images}) == 80
    for index, (_, pixels) in zip(order.tolist(), images, strict=True):
        assert pixels[:3].tolist() == [index % 256, index // 256, 7]
        assert len(pixels) == 3 * 56 * 56


def test_reading_whole_files_does_not_open_the_cache(tmp_path, monkeypatch):
    """The cache may contain many thousand files, and every task of a plan would list them."""
    paths = _raw(tmp_path / "raw", images=3, same=0)
    encode_shard(
        str(tmp_path / "out"), paths, tokenizer=TOKENIZER, source_uri=str(tmp_path / "raw")
    )
    opened: list[object] = []
    monkeypatch.setattr(StoreSettings, "open_cache", lambda self: opened.append(self))
    reader = StoreReader(StoreSettings(str(tmp_path / "out"), "x", 56))
    (sequence,) = reader.sequences(["000000.parquet"])
    assert not opened
    reader.events(sequence.address, 0, 1)
    assert len(opened) == 1


def test_row_groups_of_a_batch_are_read_once_with_any_limit_of_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("mmtpp.data.store.store_reader.MEMORY_BYTES", 1)
    paths = _raw(tmp_path / "raw", images=300, same=0)
    encode_shard(
        str(tmp_path / "out"), paths, tokenizer=TOKENIZER, source_uri=str(tmp_path / "raw")
    )
    reader = StoreReader(StoreSettings(str(tmp_path / "out"), "x", 56))
    loads = []
    load = StoreReader._load
    monkeypatch.setattr(
        StoreReader, "_load", lambda self, key: loads.append(key) or load(self, key)
    )
    (sequence,) = reader.sequences(["000000.parquet"])
    for start in (0, 100):
        reader.read_ahead_events([(sequence.address, start, start + 100)])
        frames = sequence.events.frames[start : start + 100]
        reader.read_ahead_frames([("000000.parquet", frames)])
        before = len(loads)
        reader.events(sequence.address, start, start + 100)
        reader.frames("000000.parquet", frames)
        assert len(loads) == before
    assert len(reader._memory) <= 6  # row groups that only the first batch needed are dropped


@pytest.mark.parametrize(
    ("image_px", "frames"), [(28, 32), (84, 32), (112, 16), (224, 4), (560, 1)]
)
def test_a_group_of_frames_takes_about_a_mebibyte(image_px: int, frames: int):
    assert frames_per_group(image_px) == frames
    assert IMAGES_PER_BLOCK % frames == 0


def test_tables_of_the_disk_cache_keep_their_names():
    key = RowGroupKey("sequences", "000003.parquet", 7)
    assert key.cache_name == "_Key(folder='sequences', file='000003.parquet', group=7)"
