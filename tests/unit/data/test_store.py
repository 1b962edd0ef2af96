"""The event store: what is written is read back, whatever the parts, shards and caches."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mmtpp.core.errors import StorageError
from mmtpp.core.events import EventSequence
from mmtpp.data.encode.shard_columns import ShardColumns
from mmtpp.data.encode.text_tokeniser import TextTokeniser
from mmtpp.data.encode.totals import Totals, ids_with_hashes, shard_counts
from mmtpp.data.sources.reader import ReadCounts
from mmtpp.data.store.layout import GROUP_EVENTS, IMAGES_PER_BLOCK, PART_EVENTS, frames_per_group
from mmtpp.data.store.store_reader import StoreReader, StoreSettings
from mmtpp.model.vocabulary import Vocabulary, train_tokenizer
from mmtpp.storage.cache import DiskCache
from mmtpp.storage.parquet import open_file
from tests.steps import encode_shard

TOKENIZER = train_tokenizer(["some words of text", "and more"], size=300)
VOCABULARY = Vocabulary(TOKENIZER)


def _sequence(name: str, length: int, *, seed: int = 0, questions=()) -> EventSequence:
    rng = np.random.default_rng([seed, length])
    return EventSequence(
        name,
        np.cumsum(rng.exponential(1.0, length)),
        rng.integers(0, 9, length).astype(np.int16),
        tuple(rng.choice(["some words", "of text", "", "ünï"], length).tolist()),
        tuple(rng.choice(["a.png", "b.png", None], length).tolist()),
        questions,
    )


def _columns(sequences: list[EventSequence]) -> ShardColumns:
    columns, _ = ShardColumns.from_sequences(
        sequences,
        paths=[each.sequence_id for each in sequences],
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
    return StoreReader(StoreSettings(str(folder), "x", 56, 0, ""))


def test_row_groups_hold_whole_short_sequences_or_one_part(tmp_path):
    _columns(SEQUENCES).write(str(tmp_path / "s.parquet"))
    file = open_file(str(tmp_path / "s.parquet"))
    groups = [file.read_row_group(group) for group in range(file.num_row_groups)]
    parts = [group["part"].to_pylist() for group in groups]
    sizes = [sum(map(len, group["times"].to_pylist())) for group in groups]
    assert max(sizes) <= max(GROUP_EVENTS, PART_EVENTS)
    assert all(len(group) == 1 for group, part in zip(groups, parts, strict=True) if max(part))
    names = [name for group in groups for name in group["sequence_id"].to_pylist()]
    assert list(dict.fromkeys(names)) == [each.sequence_id for each in SEQUENCES]
    assert len(groups) <= 12  # three parts, two, one of 4,096, and the small ones together
    assert groups[0]["questions"][0].as_py() == ["Why?"]
    ids = [VOCABULARY.encode_texts(["Why?", "So."])[place] for place in range(2)]
    assert groups[0]["question_ids"][0].as_py() == [ids[0]]
    assert groups[0]["answer_ids"][0].as_py() == [ids[1]]


def test_every_sequence_is_read_back_whole(reader):
    found = list(reader.sequences(["000000.parquet"], with_text=True))
    assert [each.sequence_id for each in SEQUENCES] == [each.sequence_id for each in found]
    for expected, stored in zip(SEQUENCES, found, strict=True):
        assert np.array_equal(expected.times, stored.times)
        assert np.array_equal(expected.types, stored.events.types)
        assert np.allclose(np.diff(expected.times), stored.events.intervals[1:])
        ids = VOCABULARY.encode_texts(list(expected.texts))
        assert [len(each) for each in ids] == np.diff(stored.events.text_offsets).tolist()
        assert stored.events.text_ids.tolist() == [token for each in ids for token in each]
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
    found = reader.events(stored.address, start, end)
    expected = stored.events.slice(start, end)
    for name in ("intervals", "types", "text_ids", "text_offsets", "frames"):
        assert np.array_equal(getattr(expected, name), getattr(found.events, name)), name
    assert np.array_equal(stored.times[start:end], found.times)
    types, waits = stored.events.types, stored.events.intervals
    assert [types[max(i - 1, 0)] for i in range(start, end)] == found.previous_type.tolist()
    before = [waits[i - 1] if i else np.inf for i in range(start, end)]
    assert found.previous_interval.tolist() == before


def test_columns_survive_a_file_and_thinning(tmp_path):
    columns = _columns(SEQUENCES)
    uri = str(tmp_path / "s.parquet")
    columns.write(uri)
    again = ShardColumns.read(uri, paths=columns.paths)
    for name in ("sequence_ids", "splits", "questions", "paths"):
        assert getattr(columns, name) == getattr(again, name)
    for name in ("lengths", "times", "types", "text_ids", "text_lengths", "frame"):
        assert np.array_equal(getattr(columns, name), getattr(again, name)), name
    assert columns.texts.equals(again.texts)

    keep = np.random.default_rng(0).random(len(columns.times)) < 0.5
    keep[:3] = False  # all of the first sequence
    thin = again.keep(keep)
    assert "short" not in thin.sequence_ids
    assert columns.times[keep].tolist() == thin.times.tolist()
    assert columns.texts.filter(pa.array(keep)).equals(thin.texts)
    assert int(keep.sum()) == int(thin.lengths.sum())
    expected = VOCABULARY.encode_texts(thin.texts.to_pylist())
    assert thin.text_ids.tolist() == [token for ids in expected for token in ids]


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
    some = [_sequence(f"s{index}", 40) for index in range(6)]
    whole, spread = _totals([some]), _totals([[some[3], some[0]], [], some[4:], some[1:3]])
    assert whole._content == spread._content
    for change in (
        _sequence("s0", 40, seed=1),
        _sequence("s0", 40, questions=(("a", "b"),)),
        _sequence("other", 40),
    ):
        assert _totals([[change, *some[1:]]])._content != whole._content


def test_sequence_ids_that_occur_twice_are_found():
    totals = _totals([[_sequence("a", 3), _sequence("b", 3)], [_sequence("c", 3)]])
    assert not totals.repeated_ids()
    totals = _totals([[_sequence("a", 3), _sequence("b", 3)], [_sequence("a", 4)]])
    assert ids_with_hashes({"sequence_ids": ["b", "a"]}, totals.repeated_ids()) == ["a"]


@given(st.lists(st.lists(st.sampled_from(["", "a", "some words", "ü", "and"]), max_size=8)))
def test_texts_are_tokenised_as_one_by_one_whatever_is_remembered(columns: list[list[str]]):
    tokenise = TextTokeniser(VOCABULARY, cached_bytes=300)
    for texts in columns:
        ids, lengths = tokenise(pa.array(texts, pa.string()))
        expected = VOCABULARY.encode_texts(texts)
        assert ids.tolist() == [token for each in expected for token in each]
        assert list(map(len, expected)) == lengths.tolist()


def _raw(folder: Path, *, images: int, same: int) -> list[str]:
    """A sequence with an image an event, ``same`` of them of equal content."""
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
    reader = StoreReader(StoreSettings(str(tmp_path / "out"), "x", 56, 0, ""))
    (sequence,) = reader.sequences(["000000.parquet"])
    order = np.random.default_rng(0).permutation(600)[:80]
    found = reader.frames("000000.parquet", sequence.events.frames[order])
    assert len({digest for digest, _ in found}) == 80
    for index, (_, pixels) in zip(order.tolist(), found, strict=True):
        assert pixels[:3].tolist() == [index % 256, index // 256, 7]
        assert len(pixels) == 3 * 56 * 56


def test_planning_does_not_look_at_the_cache(tmp_path, monkeypatch):
    """Which holds many thousand files, and every task of a plan would list them."""
    paths = _raw(tmp_path / "raw", images=3, same=0)
    encode_shard(
        str(tmp_path / "out"), paths, tokenizer=TOKENIZER, source_uri=str(tmp_path / "raw")
    )
    looked: list[object] = []
    monkeypatch.setattr(StoreSettings, "cache", lambda self: looked.append(self))
    reader = StoreReader(StoreSettings(str(tmp_path / "out"), "x", 56, 0, ""))
    (sequence,) = reader.sequences(["000000.parquet"])
    assert not looked
    reader.events(sequence.address, 0, 1)
    assert len(looked) == 1


def _table(value: int, rows: int = 1000) -> pa.Table:
    return pa.table({"x": pa.array(np.full(rows, value))})


def test_the_cache_returns_what_was_loaded_and_loads_once(tmp_path):
    loads = []
    cache = DiskCache(tmp_path / "c", max_bytes=10**6)

    def load() -> pa.Table:
        loads.append(1)
        return _table(7)

    assert cache.table("k", load).equals(_table(7))
    assert cache.table("k", load).equals(_table(7))
    assert DiskCache(tmp_path / "c", max_bytes=10**6).table("k", load).equals(_table(7))
    assert len(loads) == 1
    assert (tmp_path / "c" / "tables").stat().st_mode & 0o777 == 0o700


def test_the_cache_forgets_what_was_used_longest_ago(tmp_path):
    cache = DiskCache(tmp_path / "c", max_bytes=100_000)  # room for about eleven tables
    held = {}
    for index in range(40):
        held[index] = cache.table(str(index), lambda value=index: _table(value))
        os.utime(
            max((tmp_path / "c/tables").iterdir(), key=lambda p: p.stat().st_ctime_ns),
            (index, index),
        )
        cache.table("0", lambda: pytest.fail("the table in use was forgotten"))
    total = sum(path.stat().st_size for path in (tmp_path / "c/tables").iterdir())
    assert total <= 100_000 + 20_000
    assert all(table.equals(_table(value)) for value, table in held.items())  # still mapped
    again = cache.table("1", lambda: _table(-1))
    assert again.equals(_table(-1))


def test_a_damaged_table_of_the_cache_is_loaded_again(tmp_path):
    cache = DiskCache(tmp_path / "c", max_bytes=10**6)
    cache.table("k", lambda: _table(1))
    (path,) = (tmp_path / "c/tables").iterdir()
    path.write_bytes(path.read_bytes()[:300])
    assert cache.table("k", lambda: _table(1)).equals(_table(1))
    assert path.stat().st_size > 300


FULL_DISK = """
import resource, sys, numpy as np, pyarrow as pa, pathlib
from mmtpp.storage.cache import DiskCache
cache = DiskCache(pathlib.Path(sys.argv[1]), max_bytes=10**9)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
for value in range(3):
    table = pa.table({"x": pa.array(np.full(10**5, value))})
    assert cache.table(str(value), lambda: table).equals(table)
"""


def test_a_disk_without_room_costs_the_cache_and_not_the_job(tmp_path):
    """The limit on the size of files is the system's own, so the error is a real one."""
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "c")],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("cannot write to the cache") == 1
    assert "store.cache_gib" in done.stderr
    assert list((tmp_path / "c/tables").iterdir()) == []


def test_a_cache_folder_that_cannot_be_made_costs_the_cache_and_not_the_job(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    cache = DiskCache(tmp_path / "file" / "c", max_bytes=10**6)
    assert cache.table("k", lambda: _table(3)).equals(_table(3))
    assert "store.cache_path" in caplog.text


def test_a_cache_that_others_can_write_into_is_refused(tmp_path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables").chmod(0o777)
    with pytest.raises(StorageError, match=r"(?s)trusted.*store\.cache_path"):
        DiskCache(tmp_path, max_bytes=10**6)


def test_the_cache_deletes_no_file_that_is_not_its_own(tmp_path):
    cache = DiskCache(tmp_path, max_bytes=1)
    mine = tmp_path / "tables" / "thesis.doc"
    mine.write_text("years of work")
    (tmp_path / "tables" / "folder").mkdir()
    for value in range(3):
        cache.table(str(value), lambda value=value: _table(value))
    assert {path.name for path in (tmp_path / "tables").iterdir()} == {"thesis.doc", "folder"}


def test_a_limit_holds_for_processes_that_write_little(tmp_path):
    for value in range(20):
        cache = DiskCache(tmp_path, max_bytes=50_000)
        cache.table(str(value), lambda value=value: _table(value))
    assert sum(path.stat().st_size for path in (tmp_path / "tables").iterdir()) < 60_000


def test_row_groups_of_a_batch_are_read_once_whatever_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("mmtpp.data.store.store_reader.MEMORY_BYTES", 1)
    paths = _raw(tmp_path / "raw", images=300, same=0)
    encode_shard(
        str(tmp_path / "out"), paths, tokenizer=TOKENIZER, source_uri=str(tmp_path / "raw")
    )
    reader = StoreReader(StoreSettings(str(tmp_path / "out"), "x", 56, 0, ""))
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
    assert len(reader._groups) <= 6  # what only the first batch wanted is gone


@pytest.mark.parametrize(
    ("image_px", "frames"), [(28, 32), (84, 32), (112, 16), (224, 4), (560, 1)]
)
def test_a_group_of_frames_takes_about_a_mebibyte(image_px: int, frames: int):
    assert frames_per_group(image_px) == frames
    assert IMAGES_PER_BLOCK % frames == 0
