"""``prepare`` on a real cluster with a real S3 server: from raw files to an event store."""

import gzip
import io
import json
import os
import pickle
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import mmtpp
from mmtpp.core.errors import DataError, StorageError
from mmtpp.data.prepare import prepare
from mmtpp.evaluate.evaluate import evaluate
from mmtpp.inspect.dataset import load
from mmtpp.inspect.measure import measure
from mmtpp.storage.manifest import load_manifest
from mmtpp.storage.paths import copy_folder, write_bytes
from mmtpp.train.launch import finetune, pretrain
from tests.helpers.event_files import CAB_FILES, CAB_ROWS, EASYTPP_EVENTS, QA_PROMPT
from tests.helpers.job_settings import SOURCE, STORE, make_config
from tests.helpers.published_events import NUM_EVENTS, NUM_SEQUENCES, publish_events
from tests.helpers.tables import write_rows, xes_bytes


def test_prepare_accounts_for_every_event(store):
    events = NUM_SEQUENCES * NUM_EVENTS
    counts = [store[key] for key in ("events_read", "events_kept", "events_rejected")]
    assert counts == [events, events, 0]
    assert store["sequences"] == NUM_SEQUENCES
    assert store["frames"] == 3  # equal images are stored once
    json.dumps(store)


def test_preparing_again_reuses_the_store(store):
    repeated = prepare(make_config())
    assert repeated["reused"]
    assert repeated["fingerprint"] == store["fingerprint"]


def test_the_fingerprint_does_not_depend_on_the_location(store, tmp_path):
    copy_folder(SOURCE, str(tmp_path / "raw"))
    local = prepare(
        make_config(**{"source.uri": str(tmp_path / "raw"), "store.uri": str(tmp_path / "store")})
    )
    assert not local["reused"]
    assert local["fingerprint"] == store["fingerprint"]


def test_images_of_another_bucket_are_read_where_the_settings_name_it(store, tmp_path):
    """Without the setting, their events are rejected, and the error names the setting."""
    pictures = f"{SOURCE}/images"
    events = [
        {"time": at, "text": "", "type_event": 0, "image_path": f"{pictures}/{name}.png"}
        for at, name in enumerate(["red", "green", "red"])
    ]
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.json").write_text(json.dumps(events))
    changes = {"source.uri": str(tmp_path / "raw"), "store.uri": str(tmp_path / "store")}
    with pytest.raises(DataError, match=r"(?s)unreadable_image.*source\.image_roots"):
        prepare(make_config(**changes))
    report = prepare(make_config(**changes, **{"source.image_roots": [pictures]}))
    assert (report["events_kept"], report["frames"]) == (3, 2)


def test_a_single_file_is_a_source(cluster, tmp_path, caplog):
    """Other files in the folder are ignored; images are relative to the folder."""
    raw, target = str(tmp_path / "raw"), str(tmp_path / "store")
    publish_events(raw)
    one = {"source.uri": f"{raw}/line-03.json", "store.uri": target}
    report = prepare(make_config(**one))
    assert (report["events_kept"], report["sequences"], report["frames"]) == (NUM_EVENTS, 1, 3)
    assert prepare(make_config(**one))["reused"]
    assert "fell into the test split" in caplog.text
    [loaded] = mmtpp.load_sequences(f"{raw}/line-03.json")
    [stored] = mmtpp.load_sequences(target)
    assert stored.times.tolist() == loaded.times.tolist()
    assert (stored.texts, stored.sequence_id) == (loaded.texts, "line-03")
    pair = [
        mmtpp.load_image(sequence.images[5] or "", image_px=56) for sequence in (stored, loaded)
    ]
    assert (pair[0] == pair[1]).all()
    assert pair[0][0, 0].tolist() == [0, 0, 200]  # blue is the third image


def test_invalid_records_are_counted_and_stored_as_rejected(cluster, tmp_path):
    raw, target = str(tmp_path / "raw"), str(tmp_path / "store")
    publish_events(raw, bad=True)
    report = prepare(make_config(**{"source.uri": raw, "store.uri": target}))
    assert (report["rejected_by_cause"]) == {
        "missing_type": 1,
        "non_finite_time": 1,
        "unreadable_image": 2,
    }
    assert report["events_read"] == report["events_kept"] + report["events_rejected"]
    folder = load_manifest(target).data_folder
    rejected = pq.read_table(Path(target) / folder / "rejected").to_pylist()
    assert {record["path"] for record in rejected} == {"line-03.json"}
    assert any("leaves the source folder" in record["detail"] for record in rejected)

    with pytest.raises(DataError, match=r"max_rejected_fraction = 0\.001"):
        prepare(
            make_config(
                **{
                    "source.uri": raw,
                    "store.uri": str(tmp_path / "strict"),
                    "source.max_rejected_fraction": 0.001,
                }
            )
        )
    with pytest.raises(DataError, match=r"manifest\.json is missing"):
        load_manifest(str(tmp_path / "strict"))  # an unfinished store has no manifest


def test_inspect_reports_the_same_figures_for_a_store_and_its_source(store):
    """Except for images, which the store keeps once."""
    config, sections = make_config(), make_config().sample_sections
    raw = load(config.source, config.split, config.model, max_files=0)
    source = make_config(**{"source.uri": STORE}).source
    stored = load(source, config.split, config.model, max_files=0)
    assert stored.kind == "event store"
    reports = [measure(data, sections, deltas=(0.5,)) for data in (raw, stored)]
    for name in (
        "num_events",
        "num_sequences",
        "num_read",
        "interval",
        "types",
        "num_distinct_texts",
        "num_events_with_image",
        "choices",
    ):
        assert getattr(reports[0], name) == getattr(reports[1], name), name


def test_type_names_are_collected_and_keep_their_codes(cluster, tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    settings: dict[str, object] = {
        "source.kind": "columns",
        "source.uri": str(raw),
        "store.uri": str(tmp_path / "store"),
        "source.columns.time": "t",
        "source.columns.type": "k",
        "split.test_fraction": 0.0,
        "split.validation_fraction": 0.0,
    }
    rows = [f"2024-01-01 00:00:{second:02d},{kind}" for second, kind in enumerate("abbcbb")]
    (raw / "one.csv").write_text("t,k\n" + "\n".join(rows))
    (raw / "notes.xlsx").write_bytes(b"")
    with pytest.raises(DataError, match=r'(?s)"auto".*source\.types = \["b", "a", "c"\]'):
        prepare(make_config(**settings))
    settings["source.types"] = "auto"
    report = prepare(make_config(**settings))
    assert report["type_names"] == ["b", "a", "c"]
    assert report["files_not_read"] == {".xlsx": 1}
    assert load_manifest(str(tmp_path / "store")).times_are_dates
    # with more data, known names keep their codes and new names follow
    (raw / "two.csv").write_text("t,k\n" + "2024-01-02 00:00:00,z\n" * 9)
    report = prepare(make_config(**settings))
    assert report["type_names"] == ["b", "a", "c", "z"]
    assert load_manifest(str(tmp_path / "store")).type_counts == [4, 1, 1, 9]

    many = "t,k\n" + "".join(f"{i},k{min(i, 299):03d}\n" for i in range(600))
    (raw / "two.csv").unlink()
    (raw / "one.csv").write_text(many)
    settings["store.uri"] = str(tmp_path / "folded")
    with pytest.raises(DataError, match=r"(?s)300 event types.*source\.rare_types"):
        prepare(make_config(**settings))
    settings["source.rare_types"] = "other"
    report = prepare(make_config(**settings))
    # 301 events of k299 and one of every other type: 254 other types keep their names
    assert (
        len(report["type_names"]),
        report["type_names"][0],
        report["type_names"][-1],
    ) == (256, "k299", "other")
    assert report["events_folded"] == 299 - 254
    assert report["events_kept"] == 600


@pytest.mark.parametrize("kind", ["columns", "easytpp", "danmaku_qa", "xes"])
def test_other_source_formats_are_prepared(cluster, tmp_path, kind: str):
    """Several sequences of two events per file."""
    raw, store = tmp_path / "raw", str(tmp_path / "store")
    raw.mkdir()
    settings = {
        "source.kind": kind,
        "source.uri": str(raw),
        "store.uri": store,
        "split.validation_fraction": 0.3,
        "split.test_fraction": 0.3,
        "source.columns.time": "unix_time",
        "source.columns.sequence": "cab_id",
        "source.columns.type": "event_type",
        "source.types": ["pickup", "dropoff"],
    }
    if kind == "columns":
        (raw / "trips.parquet").write_bytes(CAB_FILES["x/t.parquet"])
        settings["source.max_rejected_fraction"] = 0.5
    elif kind == "easytpp":
        del settings["source.types"]
        (raw / "dev.pkl").write_bytes(
            pickle.dumps({"dim_process": 2, "dev": [EASYTPP_EVENTS, EASYTPP_EVENTS]})
        )
    elif kind == "xes":
        (raw / "log.xes.gz").write_bytes(gzip.compress(xes_bytes({"x": CAB_ROWS})))
    else:
        del settings["source.types"]
        write_bytes(str(raw / "frames" / "1.jpg"), _jpeg())
        (raw / "qa.jsonl").write_text("\n".join([json.dumps(QA_PROMPT)] * 12))
    report = prepare(make_config(**settings))
    sizes = {"columns": (3, 2), "easytpp": (4, 2), "danmaku_qa": (24, 12), "xes": (3, 2)}
    events, sequences = sizes[kind]
    counts = [report[key] for key in ("events_read", "events_kept", "sequences")]
    assert counts == [events, events, sequences]
    assert report["events_disagreeing"] == 0
    rows = pq.read_table(Path(store) / load_manifest(store).data_folder / "sequences").to_pylist()
    if kind == "danmaku_qa":
        assert [rows[0]["questions"], rows[0]["answers"]] == [["How many peaks?"], ["3"]]
        assert [row["frame"] for row in rows] == [[0, -1]] * 12
        # split by their ids, they would be in all three splits
        assert len({row["split"] for row in rows}) == 1


def _jpeg() -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (64, 48), (200, 10, 10)).save(sink, format="JPEG")
    return sink.getvalue()


def test_preparing_again_after_a_kill_writes_only_unfinished_shards(cluster, tmp_path, monkeypatch):
    """The last shard and the manifest are missing, like after a kill."""
    monkeypatch.setattr("mmtpp.data.encode.shards.FILES_PER_SHARD", 8)
    raw, store = str(tmp_path / "raw"), str(tmp_path / "store")
    publish_events(raw)
    settings = {"source.uri": raw, "store.uri": store}
    first = prepare(make_config(**settings))
    manifest = load_manifest(store)
    folder = Path(store) / manifest.data_folder
    shards = sorted(path.stem for path in (folder / "counts").iterdir())
    assert len(shards) > 2
    assert not (folder / "pending").exists()
    (Path(store) / "manifest.json").unlink()
    for name in (f"counts/{shards[-1]}.json", f"sequences/{shards[-1]}.parquet"):
        (folder / name).unlink()
    written = {path: path.stat().st_mtime_ns for path in (folder / "sequences").iterdir()}
    second = prepare(make_config(**settings))
    assert load_manifest(store) == manifest
    assert second == {**first, "reused": False}
    now = {path: path.stat().st_mtime_ns for path in (folder / "sequences").iterdir()}
    assert {shards[-1]} == {path.stem for path in set(now) - set(written)}
    assert written == {path: now[path] for path in written}


def test_a_malformed_file_fails_the_job_or_is_rejected(cluster, tmp_path):
    raw = str(tmp_path / "raw")
    publish_events(raw)
    write_bytes(f"{raw}/zz.json", b'[{"time": 1')
    changes = {"source.uri": raw, "store.uri": str(tmp_path / "store")}
    with pytest.raises(DataError, match=r"(?s)zz\.json.*source\.malformed_file"):
        prepare(make_config(**changes))
    report = prepare(make_config(**changes, **{"source.malformed_file": "reject"}))
    assert report["rejected_by_cause"] == {"malformed_file": 1}


def test_missing_bucket_and_wrong_credentials_are_clear_errors(cluster, monkeypatch):
    with pytest.raises(StorageError, match="bucket nowhere does not exist"):
        prepare(make_config(**{"source.uri": "s3://nowhere/raw"}))
    with pytest.raises(DataError, match=r"manifest\.json is missing"):
        pretrain(make_config(**{"store.uri": "s3://mmtpp/empty"}))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StorageError, match="AWS_SECRET_ACCESS_KEY") as caught:
        prepare(make_config())
    assert os.environ["AWS_ACCESS_KEY_ID"] not in str(caught.value)


def test_the_real_danmaku_files_are_prepared(cluster, real_data, tmp_path):
    """92 files with 130,198 comments."""
    report = prepare(
        make_config(
            **{
                "source.kind": "danmaku",
                "source.uri": str(real_data / "danmaku_bilibili_xml"),
                "store.uri": str(tmp_path / "store"),
            }
        )
    )
    assert (report["sequences"], report["events_read"]) == (92, 130_198)
    assert report["events_kept"] + report["events_rejected"] == 130_198
    assert sum(report["rejected_by_cause"].values()) == report["events_rejected"]  # pyright: ignore[reportAttributeAccessIssue]


def _small(tmp_path: Path, **changes: object) -> dict[str, object]:
    """Settings of a short run on local files."""
    return {
        "source.uri": str(tmp_path / "raw"),
        "store.uri": str(tmp_path / "store"),
        "run.storage_uri": str(tmp_path / "runs"),
        "template.images": "none",
        "compression.strategy": "none",
        "training.num_steps": 5,
        "training.num_workers": 1,
        "training.checkpoint_every": 5,
        **changes,
    }


@pytest.mark.slow
def test_one_long_sequence_is_split_in_time(cluster, tmp_path):
    """Training, validation, forecasts and baselines use parts of one sequence."""
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.integers(0, 9, 400)) * 60  # some events simultaneous
    rows = [
        {
            "t": f"{datetime.fromtimestamp(1.7e9 // 60 * 60 + int(time), UTC):%Y-%m-%dT%H:%M:%S}",
            "k": "abc"[row % 3],
        }
        for row, time in enumerate(times)
    ]
    write_rows(tmp_path / "raw" / "log.csv", rows)
    start = rows[300]["t"]  # start of the test split
    settings = _small(
        tmp_path,
        **{
            "source.kind": "columns",
            "source.columns.time": "t",
            "source.columns.type": "k",
            "source.types": ["a", "b", "c"],
            "source.seconds_per_unit": 3600.0,
            "split.by": "time",
            "split.validation_fraction": 0.25,
            "split.test_from": start,
            "evaluation.num_futures": 2,
            "evaluation.horizon": 1.0,
        },
    )
    report: dict[str, Any] = prepare(make_config(**settings))
    assert (report["sequences"], report["tick_s"]) == (1, 60.0)
    counts = report["events_by_split"]
    assert {part: pytest.approx(count, abs=9) for part, count in counts.items()} == {
        "train": 200,
        "validation": 100,
        "test": 100,
    }
    base: dict[str, Any] = pretrain(make_config(**{**settings, "run.name": "base"}))
    assert base["metrics"]["validation/loss_per_token"] > 0
    settings["model.path"] = base["model_uri"]
    # trained on the events of the history too, so one evaluation scores likelihoods and forecasts
    both = {"run.name": "fc", "tasks.history": 1.0, "training.num_steps": 2}
    tuned = finetune(make_config(**{**settings, **both}))
    settings["model.path"] = tuned["model_uri"]
    result: dict[str, Any] = evaluate(make_config(**settings))
    instant = datetime.fromisoformat(start).replace(tzinfo=UTC).timestamp() / 3600
    for uri, count in ((result["events_uri"], "events"), (result["targets_uri"], "targets")):
        table = pq.read_table(uri)
        assert result[count] == len(table) == counts["test"]
        assert table["time"].to_numpy().min() >= instant
        assert table["position"].to_numpy().max() + 1 == 400 if count == "targets" else True
    for baseline in ("marginal", "poisson", "hawkes", "repeat"):
        assert any(name.startswith(f"{baseline}/") for name in result["baselines"])
    futures = pq.read_table(str(Path(result["targets_uri"]).parent / "futures.parquet"))
    assert futures["origin"].to_numpy().min() >= counts["train"] + counts["validation"] - 1


def test_the_splits_of_easytpp_files_are_kept(cluster, tmp_path, caplog):
    raw = tmp_path / "raw"
    raw.mkdir()
    for part, (name, size) in enumerate({"train": 8, "dev": 3, "test": 4}.items()):
        sequences = [
            {
                "seq_idx": index,
                "dim_process": 3,
                "time_since_start": [float(2 * row + part) for row in range(20)],
                "type_event": [part] * 20,
            }
            for index in range(size)
        ]
        (raw / f"{name}.json").write_text(json.dumps(sequences))
    settings = _small(tmp_path, **{"source.kind": "easytpp"})
    hashed = make_config(**{**settings, "store.uri": str(tmp_path / "hashed")})
    prepare(hashed)
    assert "split.by = hash mixes them" in caplog.text
    settings["split.by"] = "given"
    report = prepare(make_config(**settings))
    assert report["sequences_by_split"] == {"train": 8, "validation": 3, "test": 4}
    base = pretrain(make_config(**settings, **{"run.name": "given"}))
    settings["model.path"] = base["model_uri"]
    events = pq.read_table(str(evaluate(make_config(**settings))["events_uri"]))
    assert len(events) == 4 * 19
    assert set(events["type"].to_pylist()) == {2}  # only the events of test.json
    assert len(set(events["sequence_id"].to_pylist())) == 4
