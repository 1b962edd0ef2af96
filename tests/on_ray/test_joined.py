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
from tests.job_settings import make_config
from tests.tables import write_rows

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
