"""Which shards of a store are the same after its source or its settings have changed."""

from dataclasses import replace
from pathlib import Path

import pytest
from pyarrow.fs import FileInfo, FileType

from mmtpp.data.encode.encode_settings import EncodeSettings
from mmtpp.data.encode.reused_shards import ShardInputs, find_reusable
from mmtpp.data.encode.shards import build_shards
from mmtpp.data.encode.source_files import SourceFiles
from tests.helpers.steps import SETTINGS

EVENTS = {"a.json": 1, "b.json": 2, "red.png": 3}


def _files(sizes: dict[str, int], time: int | None = 7) -> SourceFiles:
    infos = [
        (path, FileInfo(path, FileType.File, size=size, mtime_ns=time))
        for path, size in sorted(sizes.items())
    ]
    return SourceFiles.from_listing(infos, [path for path in sizes if path.endswith(".json")])


def _settings(names: tuple[str, ...] = ("a", "b"), **changes: object) -> EncodeSettings:
    values = {**SETTINGS, "source_uri": "raw", "type_names": names, **changes}
    return EncodeSettings(**values)  # pyright: ignore[reportArgumentType]


def _inputs(sizes: dict[str, int], settings: EncodeSettings, vocabulary: str = "v") -> ShardInputs:
    return ShardInputs.from_settings(_files(sizes), settings, vocabulary, [1])


@pytest.fixture(autouse=True)
def _a_file_a_shard(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mmtpp.data.encode.shards.FILES_PER_SHARD", 1)


def _reusable(folder: Path, before: ShardInputs, now: ShardInputs) -> list[tuple[int, int]]:
    """Numbers of the shards in the new and in the old store."""
    before.save(str(folder))
    items = find_reusable(str(folder), now, build_shards(now.files.event_files()))
    return [(item["shard"], item["old_shard"]) for item in items]  # pyright: ignore


def test_unchanged_files_keep_their_shards_under_other_numbers(tmp_path: Path):
    before = _inputs(EVENTS, _settings())
    assert _reusable(tmp_path, before, before) == [(0, 0), (1, 1)]
    more = {"0.json": 5, **EVENTS}
    assert _reusable(tmp_path, before, _inputs(more, _settings())) == [(1, 0), (2, 1)]
    assert _reusable(tmp_path, before, _inputs({**EVENTS, "a.json": 9}, _settings())) == [(1, 1)]
    without = {name: size for name, size in EVENTS.items() if name != "a.json"}
    assert _reusable(tmp_path, before, _inputs(without, _settings())) == [(0, 1)]


def test_another_time_of_a_file_is_another_file():
    before, now = _files(EVENTS), _files(EVENTS, time=8)
    assert before.unchanged_in(now) == set()
    assert before.digest != now.digest
    without_times = _files(EVENTS, time=None)
    assert without_times.unchanged_in(SourceFiles.from_bytes(without_times.as_bytes())) == set(
        EVENTS
    )


def test_other_settings_or_another_vocabulary_keep_no_shard(tmp_path: Path):
    before = _inputs(EVENTS, _settings())
    for now in (
        _inputs(EVENTS, _settings(image_px=84)),
        _inputs(EVENTS, _settings(), vocabulary="w"),
        replace(before, digest="another division"),
    ):
        assert _reusable(tmp_path, before, now) == []


@pytest.mark.parametrize(
    ("before", "now", "keeps"),
    [
        (("a", "b"), ("a", "b", "c"), True),
        (("a", "b"), ("b", "a"), False),
        (("a", "b"), ("a",), False),
        # without names, the type 10 is code 10; with these names it is code 0
        ((), ("10", "20"), False),
        (("10", "20"), (), False),
        # a number is a code where no name is a number
        (("a", "b"), ("a", "b", "0"), False),
        (("1", "2"), ("1", "2", "3"), True),
    ],
)
def test_every_type_keeps_its_code(
    tmp_path: Path, before: tuple[str, ...], now: tuple[str, ...], keeps: bool
):
    inputs = [_inputs(EVENTS, _settings(names)) for names in (before, now)]
    assert bool(_reusable(tmp_path, *inputs)) == keeps


def test_images_elsewhere_may_have_changed(tmp_path: Path):
    def has_same_images(now: ShardInputs) -> bool:
        before = _inputs(EVENTS, _settings(image_roots=("s3://images/",) * now.has_outside_images))
        before.save(str(tmp_path))
        items = find_reusable(str(tmp_path), now, build_shards(now.files.event_files()))
        return bool(items[0]["has_same_images"])

    assert has_same_images(_inputs(EVENTS, _settings()))
    assert not has_same_images(_inputs({**EVENTS, "red.png": 4}, _settings()))
    assert not has_same_images(_inputs(EVENTS, _settings(image_roots=("s3://images/",))))
