"""``prepare`` where the events of a sequence lie in several files, such as one for each day."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mmtpp
from mmtpp.core.errors import DataError
from mmtpp.data.encode.encode_pipeline import EncodePipeline
from mmtpp.data.prepare import prepare
from mmtpp.storage.manifest import find_manifest, load_manifest
from tests.helpers.job_settings import make_config
from tests.helpers.tables import write_rows

NUM_DAYS, NUM_USERS = 6, 20
COLUMNS = {
    "source.kind": "columns",
    "source.columns.time": "at",
    "source.columns.sequence": "who",
    "source.columns.type": "what",
    "source.columns.text": "note",
    "source.columns.image": "image",
    "split.validation_fraction": 0.2,
    "split.test_fraction": 0.2,
}


def _rows() -> list[dict]:
    """Events of users on several days; the events of a user are not in order of time."""
    draw = np.random.default_rng(0)
    rows = []
    for day in range(NUM_DAYS):
        for user in range(NUM_USERS):
            for _ in range(int(draw.integers(0, 4))):
                at = day * 86400 + int(draw.integers(0, 90_000))  # some after midnight
                shown = ["", "red.png", "blue.png"][int(draw.integers(0, 3))]
                rows.append(
                    {
                        "day": day,
                        "who": f"user {user}",
                        "at": at,
                        "what": user % 3,
                        "note": f"{user} on {day}",
                        "image": shown,
                    }
                )
    return rows


@pytest.fixture(scope="module")
def days(tmp_path_factory) -> Path:
    """A folder with a file for each day; one event of the third day has no time."""
    raw = tmp_path_factory.mktemp("days")
    rows = _rows()
    for day in range(NUM_DAYS):
        of_day = [row for row in rows if row["day"] == day]
        lost = [{**of_day[0], "at": ""}] if day == 2 else []
        write_rows(raw / f"2024-01-{day + 1:02}.csv", [*of_day, *lost])
    for name, color in (("red", (200, 0, 0)), ("blue", (0, 0, 200))):
        Image.new("RGB", (60, 60), color).save(raw / f"{name}.png")
    return raw


@pytest.fixture(autouse=True)
def _a_file_a_shard(monkeypatch):
    monkeypatch.setattr("mmtpp.data.encode.shards.FILES_PER_SHARD", 1)


def _contents(store: Path | str) -> dict[str, tuple]:
    """Times, types, texts and image sizes of each stored sequence."""
    return {
        item.sequence_id: (item.times.tolist(), item.types.tolist(), item.texts)
        for item in mmtpp.load_sequences(store)
    }


def test_days_are_joined_to_the_sequences_of_one_file(cluster, days, tmp_path, caplog):
    changes = {"source.uri": str(days), "store.uri": str(tmp_path / "auto")}
    config = make_config(**COLUMNS, **changes)
    report = prepare(config)
    rows = _rows()
    assert (report["events_read"], report["events_kept"]) == (len(rows) + 1, len(rows))
    assert report["rejected_by_cause"] == {"missing_time": 1}
    assert report["frames"] > 0
    in_days = {(row["who"], row["day"]) for row in rows}
    users = {user for user, _ in in_days}
    joined = sum(sum(user == name for user, _ in in_days) > 1 for name in users)
    assert (report["sequences"], report["sequences_joined"]) == (len(users), joined)
    assert "set source.partitioning = sequence" in caplog.text

    (tmp_path / "whole").mkdir()
    for name in ("red.png", "blue.png"):
        (tmp_path / "whole" / name).write_bytes((days / name).read_bytes())
    write_rows(tmp_path / "whole" / "all.csv", rows)
    whole = {"source.uri": str(tmp_path / "whole"), "store.uri": str(tmp_path / "one")}
    one = prepare(make_config(**COLUMNS, **whole))
    assert one["sequences_joined"] == 0
    assert _contents(tmp_path / "auto") == _contents(tmp_path / "one")
    for key in ("sequences_by_split", "events_by_split", "tick_s", "type_names"):
        assert report[key] == one[key]

    explicit = {"store.uri": str(tmp_path / "sequence"), "source.partitioning": "sequence"}
    again = prepare(make_config(**COLUMNS, **{"source.uri": str(days)}, **explicit))
    assert again["fingerprint"] == report["fingerprint"]
    assert len(list((tmp_path / "auto").glob("data-*"))) == 1  # nothing of the first attempt
    assert prepare(config)["reused"]


def test_a_joined_store_resumes_at_the_step_that_was_interrupted(
    cluster, days, tmp_path, monkeypatch
):
    """The second job does not read the files again to find that ids repeat."""
    tasks: list[tuple[str, int]] = []
    stop_after = {"JoinPartition": 1}
    original = EncodePipeline.run_step

    def recorded(self, step, items, arguments):
        tasks.append((step.__name__, len(items)))
        for count, row in enumerate(original(self, step, items, arguments)):
            if count == stop_after.get(step.__name__, 10**9):
                raise KeyboardInterrupt
            yield row

    monkeypatch.setattr(EncodePipeline, "run_step", recorded)
    target = str(tmp_path / "store")
    changes = {"source.uri": str(days), "store.uri": target, "source.max_processes": 1}
    config = make_config(**COLUMNS, **changes)
    with pytest.raises(KeyboardInterrupt):
        prepare(config)
    assert find_manifest(target) is None
    steps = ("ReadShard", "PartitionShard", "JoinPartition")
    assert dict(tasks) == dict.fromkeys(steps, NUM_DAYS)
    tasks.clear()
    stop_after.clear()
    report = prepare(config)
    again = dict(tasks)
    assert "ReadShard" not in again
    assert again["PartitionShard"] == 0
    assert 0 < again["JoinPartition"] < NUM_DAYS
    assert report["events_kept"] == len(_rows())
    assert load_manifest(target).sequences_joined > 0


@pytest.fixture
def tasks(cluster, monkeypatch) -> dict[str, list[dict]]:
    """The inputs of each step of the last ``prepare``, in shards of one file."""
    by_step: dict[str, list[dict]] = {}
    original = EncodePipeline.run_step

    def recorded(self, step, items, arguments):
        by_step[step.__name__] = items
        return original(self, step, items, arguments)

    monkeypatch.setattr(EncodePipeline, "run_step", recorded)
    return by_step


def _files_read(tasks: dict[str, list[dict]]) -> list[str]:
    assert not tasks.get("ReadShard")
    return sorted(path for item in tasks["PartitionShard"] for path in item["paths"])


def _write_day(raw: Path, day: int, users: list[str], **changes) -> None:
    rows = [
        {"who": user, "at": 86400 * day + 60 * at, "what": at % 3, "note": f"{at}", "image": ""}
        for user in users
        for at in range(4)
    ]
    write_rows(raw / f"2024-02-{day + 1:02}.csv", [{**row, **changes} for row in rows])


@pytest.mark.parametrize("partitioning", ["auto", "sequence"])
def test_a_new_day_is_joined_and_the_others_are_not_read_again(
    cluster, tmp_path, tasks: dict[str, list[dict]], partitioning: str
):
    raw, store = tmp_path / "raw", tmp_path / "store"
    users = [f"user {number}" for number in range(12)]
    for day in range(6):
        _write_day(raw, day, users)
    changes = {**COLUMNS, "source.uri": str(raw), "source.partitioning": partitioning}
    assert prepare(make_config(**changes, **{"store.uri": str(store)}))["shards_copied"] == 0
    old_files = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    tasks.clear()
    _write_day(raw, 6, ["user 3", "somebody new"])
    report = prepare(make_config(**changes, **{"store.uri": str(store)}))
    assert _files_read(tasks) == ["2024-02-07.csv"]
    assert len(tasks["JoinPartition"]) <= 2  # the partitions of two users
    assert (report["shards_copied"], report["sequences"]) == (6, 13)
    assert (report["events_kept"], report["sequences_joined"]) == (6 * 12 * 4 + 8, 12)

    anew = prepare(make_config(**changes, **{"store.uri": str(tmp_path / "anew")}))
    keys = set(report) - {"store_uri", "shards_copied"}
    assert {key: report[key] for key in keys} == {key: anew[key] for key in keys}
    assert _contents(store) == _contents(tmp_path / "anew")
    del old_files[store / "manifest.json"]
    assert {path: path.read_bytes() for path in old_files} == old_files  # for jobs that read it


def test_a_changed_day_is_read_again(cluster, days, tmp_path, tasks: dict[str, list[dict]]):
    raw, store = tmp_path / "raw", tmp_path / "store"
    for day in range(4):
        _write_day(raw, day, ["a", "b", "c"], what=["x", "y"][day % 2], image="red.png")
    (raw / "red.png").write_bytes((days / "red.png").read_bytes())
    changes = {"source.uri": str(raw), "source.types": ["x"], "source.max_rejected_fraction": 0.6}
    changes |= {**COLUMNS, "source.partitioning": "sequence", "store.uri": str(store)}
    prepare(make_config(**changes))
    _write_day(raw, 0, ["a", "b"], what="x")
    assert prepare(make_config(**changes))["shards_copied"] == 3
    assert _files_read(tasks) == ["2024-02-01.csv"]
    # the rejected events of two days may now have a type
    report = prepare(make_config(**{**changes, "source.types": ["x", "y"]}))
    assert (report["shards_copied"], report["events_rejected"]) == (2, 0)
    assert _files_read(tasks) == ["2024-02-02.csv", "2024-02-04.csv"]
    # another image changes no piece, but the frames of the partitions
    (raw / "red.png").write_bytes((days / "blue.png").read_bytes())
    changes |= {"source.types": ["x", "y"]}
    report = prepare(make_config(**changes))
    assert (report["shards_copied"], _files_read(tasks)) == (4, [])
    anew = prepare(make_config(**{**changes, "store.uri": str(tmp_path / "anew")}))
    assert report["fingerprint"] == anew["fingerprint"]
    # without its pieces a store is made anew
    for path in store.rglob("000001.arrow"):
        path.unlink()
    _write_day(raw, 9, ["a"], what="x")
    assert prepare(make_config(**changes))["shards_copied"] == 0


def test_a_source_that_has_doubled_is_divided_into_more_partitions(cluster, tmp_path):
    raw, store = tmp_path / "raw", tmp_path / "store"
    changes = {**COLUMNS, "source.uri": str(raw), "source.partitioning": "sequence"}
    copied: list[int] = []
    partitions: list[int] = []
    for num_days in (2, 4, 5):
        for day in range(num_days):
            if not (raw / f"2024-02-{day + 1:02}.csv").exists():
                _write_day(raw, day, ["a", "b", "c"])
        copied.append(prepare(make_config(**changes, **{"store.uri": str(store)}))["shards_copied"])
        folder = store / load_manifest(str(store)).data_folder
        partitions.append(len(list((folder / "counts").glob("*.json"))))
    assert (copied, partitions) == ([0, 2, 0], [2, 2, 5])


def test_files_with_their_own_ids_are_read_once(cluster, tmp_path, monkeypatch):
    raw, target = tmp_path / "raw", str(tmp_path / "store")
    for name in ("one", "two"):
        rows = [{"who": name, "at": at} for at in range(3)]
        write_rows(raw / f"{name}.csv", rows)
    changes = {
        "source.kind": "columns",
        "source.columns.time": "at",
        "source.columns.sequence": "who",
        "source.uri": str(raw),
        "store.uri": target,
    }
    steps: list[str] = []
    original = EncodePipeline.run_step

    def recorded(self, step, items, arguments):
        steps.append(step.__name__)
        return original(self, step, items, arguments)

    monkeypatch.setattr(EncodePipeline, "run_step", recorded)
    assert prepare(make_config(**changes))["sequences_joined"] == 0
    assert "PartitionShard" not in steps
    write_rows(raw / "three.csv", [{"who": "one", "at": 9}])
    message = r"(?s)1 sequence ids occur .* for example 'one'.*source\.partitioning = "
    for _ in range(2):  # the second job finds the shards of the first finished
        with pytest.raises(DataError, match=message):
            prepare(make_config(**changes, **{"source.partitioning": "file"}))
    assert load_manifest(target).sequences == 2  # the store is as it was
