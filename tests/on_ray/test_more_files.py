"""A store whose source gets more files: unchanged shards are copied, new files are read."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import mmtpp
from mmtpp.config.load import with_values
from mmtpp.data.encode.reused_shards import CopyShard
from mmtpp.data.prepare import prepare
from mmtpp.storage.filesystems import filesystem_of
from mmtpp.storage.manifest import load_manifest
from mmtpp.storage.paths import copy_folder, read_bytes, write_bytes
from tests.helpers.job_settings import make_config
from tests.helpers.published_events import publish_events
from tests.helpers.tables import write_rows

COLUMNS = {
    "source.kind": "columns",
    "source.columns.time": "t",
    "source.columns.sequence": "s",
    "source.columns.type": "k",
    "source.columns.text": "x",
    "source.columns.image": "i",
    "source.types": "auto",
}


@pytest.fixture(autouse=True)
def _a_file_a_shard(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mmtpp.data.encode.shards.FILES_PER_SHARD", 1)


def _write_day(raw: Path, day: int, *, image: str = "", types: str = "ab") -> None:
    """Three sequences of twelve events; the first one of a day with an image."""
    rows = [
        {
            "t": 100 * day + 2 * event,
            "s": f"d{day}-{sequence}",
            "k": types[event % len(types)],
            "x": f"text {event % 3}",
            "i": image if sequence == 0 and event % 2 else "",
        }
        for sequence in range(3)
        for event in range(12)
    ]
    write_rows(raw / f"day-{day}.csv", rows)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Three days, of which the second has images."""
    folder = tmp_path / "raw"
    folder.mkdir()
    Image.new("RGB", (60, 60), (200, 0, 0)).save(folder / "red.png")
    for day in range(3):
        _write_day(folder, day, image="red.png" if day == 1 else "")
    return folder


def _prepare(raw: Path, store: Path, **changes: Any) -> dict[str, Any]:
    places = {"source.uri": str(raw), "store.uri": str(store)}
    return prepare(make_config(**COLUMNS, **places, **changes))


def _files(store: Path) -> dict[str, bytes]:
    """Contents of the finished files of a store, without what says when they were made."""
    folder = store / load_manifest(str(store)).data_folder
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.parent != folder
    }


def _forgetting_copy(store: Path) -> Path:
    """A copy with the same vocabulary that does not record what its shards depend on."""
    copy = store.with_name("forgetting")
    shutil.copytree(store, copy)
    (copy / load_manifest(str(store)).data_folder / "source_settings.json").unlink()
    return copy


def _check_against_reading_all(raw: Path, extended: Path, other: Path) -> None:
    """The extended store is, byte for byte, the one that reading all files gives."""
    again = _prepare(raw, other, **{"source.max_rejected_fraction": 1.0})
    assert again["shards_copied"] == 0
    assert again["fingerprint"] == load_manifest(str(extended)).fingerprint
    assert _files(extended) == _files(other)


def test_a_new_day_is_read_and_the_others_are_copied(cluster, raw: Path, tmp_path: Path):
    store = tmp_path / "store"
    first = _prepare(raw, store)
    assert (first["shards_copied"], first["sequences"]) == (0, 9)
    other = _forgetting_copy(store)
    before, old_folder = _files(store), load_manifest(str(store)).data_folder
    _write_day(raw, 3, image="red.png")
    second = _prepare(raw, store)
    assert (second["shards_copied"], second["sequences"], second["reused"]) == (3, 12, False)
    assert second["fingerprint"] != first["fingerprint"]
    assert second["frames"] == 2  # one for each shard with the image
    # a job that reads the earlier data is undisturbed
    assert old_folder != load_manifest(str(store)).data_folder
    assert before == {
        str(path.relative_to(store / old_folder)): path.read_bytes()
        for path in sorted((store / old_folder).rglob("*"))
        if path.is_file() and path.parent != store / old_folder
    }
    _check_against_reading_all(raw, store, other)
    assert _prepare(raw, store)["reused"]


def test_a_file_between_the_others_changes_only_their_numbers(cluster, raw: Path, tmp_path: Path):
    store = tmp_path / "store"
    _prepare(raw, store)
    other = _forgetting_copy(store)
    _write_day(raw, 9)
    (raw / "day-9.csv").rename(raw / "day-0b.csv")
    assert _prepare(raw, store)["shards_copied"] == 3
    _check_against_reading_all(raw, store, other)


def test_changed_files_are_read_again(cluster, raw: Path, tmp_path: Path):
    store = tmp_path / "store"
    _prepare(raw, store)
    other = _forgetting_copy(store)
    _write_day(raw, 0, types="b")
    assert _prepare(raw, store)["shards_copied"] == 2
    _check_against_reading_all(raw, store, other)
    shutil.rmtree(other)
    other = _forgetting_copy(store)
    # another image: the shard that shows it is read again
    Image.new("RGB", (60, 60), (0, 0, 200)).save(raw / "red.png")
    assert _prepare(raw, store)["shards_copied"] == 2
    _check_against_reading_all(raw, store, other)
    # another setting: all are read again
    assert _prepare(raw, store, **{"split.test_fraction": 0.5})["shards_copied"] == 0


def test_an_image_that_was_missing_and_new_types_are_seen(cluster, raw: Path, tmp_path: Path):
    store = tmp_path / "store"
    (raw / "red.png").rename(tmp_path / "red.png")
    tolerant = {"source.max_rejected_fraction": 1.0}
    first = _prepare(raw, store, **tolerant)
    assert first["rejected_by_cause"] == {"unreadable_image": 6}
    other = _forgetting_copy(store)
    (tmp_path / "red.png").rename(raw / "red.png")
    _write_day(raw, 3, types="abc")
    second = _prepare(raw, store, **tolerant)
    assert (second["shards_copied"], second["events_rejected"]) == (2, 0)
    assert second["type_names"] == ["a", "b", "c"]
    _check_against_reading_all(raw, store, other)


def test_a_kill_while_shards_are_copied_resumes(cluster, raw: Path, tmp_path: Path):
    """Of the new data folder, one copied shard is finished, and another one is half copied."""
    store = tmp_path / "store"
    _prepare(raw, store)
    other = _forgetting_copy(store)
    _write_day(raw, 3)
    _prepare(raw, other)
    new_folder = store / load_manifest(str(other)).data_folder
    old_folder = store / load_manifest(str(store)).data_folder
    copy = CopyShard(str(old_folder), str(new_folder))
    item = {"shard": 0, "old_shard": 0, "frame_files": [], "has_same_images": True}
    assert copy({**item, "has_same_types": True}) == {"problem": "", "copied": True}
    (new_folder / "sequences" / "000001.parquet").write_bytes(b"half of a fi")
    assert _prepare(raw, store)["shards_copied"] == 2
    assert _files(store) == _files(other)


def test_a_store_of_an_earlier_version_is_read_as_a_whole(cluster, raw: Path, tmp_path: Path):
    """It does not record what its shards depend on."""
    _prepare(raw, tmp_path / "store")
    store = _forgetting_copy(tmp_path / "store")
    _write_day(raw, 3)
    assert _prepare(raw, store)["shards_copied"] == 0
    _write_day(raw, 4)
    assert _prepare(raw, store)["shards_copied"] == 4


def test_shards_of_remote_storage_are_copied(cluster, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mmtpp.data.encode.shards.FILES_PER_SHARD", 8)
    raw, stores = "s3://mmtpp/more/raw", [f"s3://mmtpp/more/{name}" for name in ("a", "b")]
    publish_events(raw)
    config = make_config(**{"source.uri": raw, "store.uri": stores[0]})
    assert prepare(config)["shards_copied"] == 0
    copy_folder(*stores)
    filesystem, path = filesystem_of(f"{stores[1]}/{load_manifest(stores[1]).data_folder}")
    filesystem.delete_file(f"{path}/source_settings.json")
    write_bytes(f"{raw}/zz.json", read_bytes(f"{raw}/line-23.json"))
    extended = prepare(config)
    assert (extended["shards_copied"], extended["sequences"]) == (3, 25)
    other = prepare(with_values(config, {"store.uri": stores[1]}))
    assert (other["shards_copied"], other["fingerprint"]) == (0, extended["fingerprint"])
    contents = [
        [
            (item.sequence_id, item.times.tolist(), item.texts)
            for item in mmtpp.load_sequences(store)
        ]
        for store in stores
    ]
    assert contents[0] == contents[1]


def test_a_new_file_with_known_ids_is_joined_and_nothing_is_copied(
    cluster, raw: Path, tmp_path: Path
):
    store = tmp_path / "store"
    _prepare(raw, store)
    (raw / "day-3.csv").write_bytes((raw / "day-0.csv").read_bytes())
    report = _prepare(raw, store)
    assert (report["shards_copied"], report["sequences"], report["sequences_joined"]) == (0, 9, 3)
