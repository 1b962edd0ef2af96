"""Prepare, pretrain, adapt and evaluate on a real cluster, S3 server and MLflow server."""

import io
import json
import os
import pickle
import signal
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import cast

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import torch
from mlflow.tracking import MlflowClient
from peft import PeftModel, get_peft_model_state_dict
from PIL import Image
from ray.train import Checkpoint
from safetensors.torch import load_file

from mmtpp.config.load import config_from_tree, load_config, with_values
from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import ConfigError, DataError, StorageError
from mmtpp.data.assemble import (
    Assembler,
    load_plan,
    make_plan,
    row_from_arrow,
    samples_table,
)
from mmtpp.data.encode import EncodeShard
from mmtpp.data.feed import iter_rows, rank_samples
from mmtpp.data.layout import EncodeSettings
from mmtpp.data.prepare import prepare
from mmtpp.data.settings import assemble_settings, store_vocabulary
from mmtpp.evaluate.evaluate import evaluate
from mmtpp.inspect.dataset import load
from mmtpp.inspect.measure import measure
from mmtpp.model.folder import local_folder
from mmtpp.model.qwen_vl import load_base
from mmtpp.model.vocabulary import train_tokenizer
from mmtpp.storage.manifest import load_manifest
from mmtpp.storage.paths import copy_folder, filesystem_of, list_files, read_bytes, write_bytes
from mmtpp.train.checkpoint import Progress, restore
from mmtpp.train.engine import Engine
from mmtpp.train.launch import plan_validation, pretrain
from tests.on_ray.events import NUM_EVENTS, NUM_SEQUENCES, publish_events
from tests.unit.test_table_sources import EVENTS, FORMS, LINE
from tune.report import as_toml
from tune.space import load_sweep
from tune.sweep import run

SOURCE, STORE, RUNS = "s3://mmtpp/t/raw", "s3://mmtpp/t/store", "s3://mmtpp/t/runs"


def _config(**changes: object) -> RunConfig:
    config = config_from_tree(
        {
            "source": {"kind": "mmtpp", "uri": SOURCE},
            "store": {"uri": STORE},
            "split": {"validation_fraction": 0.25, "test_fraction": 0.2},
            "template": {"style": "minimal", "images": "on_change", "time_bytes": 2},
            "compression": {"delta": 0.5, "run_encoding": "run_length"},
            "window": {"max_tokens": 256},
            "model": {"tokenizer_size": 512},
            "lora": {"rank": 0},
            "run": {"storage_uri": RUNS},
            "training": {"num_steps": 12, "num_workers": 2, "samples_per_step": 4, "log_every": 1,
                         "checkpoint_every": 4, "learning_rate": 3e-3, "validation_sequences": 3},
        }
    )  # fmt: skip
    return with_values(config, changes)


@pytest.fixture(scope="module")
def store(cluster) -> dict:
    publish_events(SOURCE)
    return prepare(_config())


@pytest.fixture(scope="module")
def base(store) -> dict:
    """An uninterrupted run of all parameters."""
    return pretrain(_config(**{"run.name": "base"}))


def test_prepare_accounts_for_every_event(store):
    events = NUM_SEQUENCES * NUM_EVENTS
    assert (events, events, 0) == (
        store["events_read"], store["events_kept"], store["events_rejected"]
    )  # fmt: skip
    assert NUM_SEQUENCES == store["sequences"]
    assert 3 * NUM_SEQUENCES == store["frames"]  # equal images are stored once a sequence
    json.dumps(store)


def test_preparing_again_does_nothing_and_finds_the_same_content(store):
    again = prepare(_config())
    assert again["reused"]
    assert store["fingerprint"] == again["fingerprint"]


def test_another_place_gives_the_same_fingerprint(store, tmp_path):
    copy_folder(SOURCE, str(tmp_path / "raw"))
    local = prepare(
        _config(**{"source.uri": str(tmp_path / "raw"), "store.uri": str(tmp_path / "store")})
    )
    assert not local["reused"]
    assert store["fingerprint"] == local["fingerprint"]


def test_bad_records_are_counted_and_kept_as_rejected(cluster, tmp_path):
    raw, target = str(tmp_path / "raw"), str(tmp_path / "store")
    publish_events(raw, bad=True)
    report = prepare(_config(**{"source.uri": raw, "store.uri": target}))
    assert {"missing_type": 1, "negative_time": 1, "unreadable_image": 2} == (
        report["rejected_by_cause"]
    )
    assert report["events_read"] == report["events_kept"] + report["events_rejected"]
    folder = load_manifest(target).data_folder
    rejected = pq.read_table(Path(target) / folder / "rejected").to_pylist()
    assert {"line-03.json"} == {record["path"] for record in rejected}
    assert any("leaves the source folder" in record["detail"] for record in rejected)

    with pytest.raises(DataError, match=r"max_rejected_fraction = 0\.001"):
        prepare(
            _config(**{"source.uri": raw, "store.uri": str(tmp_path / "strict"),
                       "source.max_rejected_fraction": 0.001})
        )  # fmt: skip
    with pytest.raises(DataError, match=r"manifest\.json is missing"):
        load_manifest(str(tmp_path / "strict"))  # nothing half-finished is visible


def test_more_images_than_the_cache_holds(cluster, tmp_path, monkeypatch):
    """Three images of 9,408 bytes, room for two: the store is the same as with room for all."""
    raw = str(tmp_path / "raw")
    publish_events(raw)
    settings = EncodeSettings("mmtpp", raw, (), None, 1.0, 56, 10**7, "fail", 0.25, 0.2, 512)
    tokenizer = train_tokenizer(["event 1 of line 2"], size=300)
    paths = sorted(path.name for path in Path(raw).glob("*.json"))
    tables = []
    for size in (10**9, 2 * 9408):
        monkeypatch.setattr("mmtpp.data.encode.IMAGE_CACHE_BYTES", size)
        folder = str(tmp_path / str(size))
        assert not EncodeShard(settings, folder, tokenizer)({"shard": 0, "paths": paths})["problem"]
        tables.append(pq.read_table(Path(folder) / "sequences" / "000000.parquet"))
    assert tables[0].equals(tables[1])


def test_inspecting_the_store_tells_what_its_source_tells(store):
    """The raw files and the store made from them have the same figures but for reused images."""
    raw = load(_config(), max_files=0)
    stored = load(_config(**{"source.uri": STORE}), max_files=0)
    assert "event store" == stored.kind
    reports = [measure(data, _config(), deltas=(0.5,)) for data in (raw, stored)]
    for name in ("num_events", "num_sequences", "num_read", "interval", "types",
                 "num_distinct_texts", "num_events_with_image", "choices"):  # fmt: skip
        assert getattr(reports[0], name) == getattr(reports[1], name), name


@pytest.mark.parametrize("kind", ["columns", "easytpp", "danmaku_qa"])
def test_other_kinds_of_source_become_stores(cluster, tmp_path, kind: str):
    """Two sequences of two events each, several in a file."""
    raw, store = tmp_path / "raw", str(tmp_path / "store")
    raw.mkdir()
    settings = {"source.kind": kind, "source.uri": str(raw), "store.uri": store,
                "split.validation_fraction": 0.0, "split.test_fraction": 0.0,
                "source.columns.time": "unix_time", "source.columns.sequence": "cab_id",
                "source.columns.type": "event_type",
                "source.types": ["pickup", "dropoff"]}  # fmt: skip
    if kind == "columns":
        (raw / "trips.parquet").write_bytes(FORMS["x/t.parquet"])
        settings["source.max_rejected_fraction"] = 0.5
    elif kind == "easytpp":
        del settings["source.types"]
        (raw / "dev.pkl").write_bytes(pickle.dumps({"dim_process": 2, "dev": [EVENTS, EVENTS]}))
    else:
        del settings["source.types"]
        write_bytes(str(raw / "frames" / "1.jpg"), _jpeg())
        (raw / "qa.jsonl").write_text("\n".join([json.dumps(LINE)] * 2))
    report = prepare(_config(**settings))
    expected = {"columns": 3, "easytpp": 4, "danmaku_qa": 4}[kind]
    assert (expected, expected, 2) == (
        report["events_read"],
        report["events_kept"],
        report["sequences"],
    )
    assert 0 == report["events_disagreeing"]
    rows = pq.read_table(Path(store) / load_manifest(store).data_folder / "sequences").to_pylist()
    if kind == "danmaku_qa":
        assert [["How many peaks?"], ["3"]] == [rows[0]["questions"], rows[0]["answers"]]
        assert [[0, -1]] * 2 == [row["frame"] for row in rows]


def _jpeg() -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (64, 48), (200, 10, 10)).save(sink, format="JPEG")
    return sink.getvalue()


def test_preparing_again_after_a_kill_does_only_the_unfinished_shards(
    cluster, tmp_path, monkeypatch
):
    """A store whose last shard and manifest are missing, as a kill leaves it."""
    monkeypatch.setattr("mmtpp.data.encode.FILES_PER_SHARD", 8)
    raw, store = str(tmp_path / "raw"), str(tmp_path / "store")
    publish_events(raw)
    settings = {"source.uri": raw, "store.uri": store}
    first = prepare(_config(**settings))
    manifest = load_manifest(store)
    folder = Path(store) / manifest.data_folder
    shards = sorted(path.stem for path in (folder / "counts").iterdir())
    assert len(shards) > 2
    (Path(store) / "manifest.json").unlink()
    for name in (f"counts/{shards[-1]}.json", f"sequences/{shards[-1]}.parquet"):
        (folder / name).unlink()
    written = {path: path.stat().st_mtime_ns for path in (folder / "sequences").iterdir()}
    second = prepare(_config(**settings))
    assert manifest == load_manifest(store)
    assert {**first, "reused": False} == second
    now = {path: path.stat().st_mtime_ns for path in (folder / "sequences").iterdir()}
    assert shards[-1] in {path.stem for path in set(now) - set(written)}
    assert written == {path: now[path] for path in written}


def test_a_malformed_file_stops_the_job_or_is_counted(cluster, tmp_path):
    raw = str(tmp_path / "raw")
    publish_events(raw)
    write_bytes(f"{raw}/zz.json", b'[{"time": 1')
    changes = {"source.uri": raw, "store.uri": str(tmp_path / "store")}
    with pytest.raises(DataError, match=r"(?s)zz\.json.*source\.malformed_file"):
        prepare(_config(**changes))
    report = prepare(_config(**changes, **{"source.malformed_file": "reject"}))
    assert {"malformed_file": 1} == report["rejected_by_cause"]


def test_missing_bucket_and_wrong_credentials_are_clear_errors(cluster, monkeypatch):
    with pytest.raises(StorageError, match="bucket nowhere does not exist"):
        prepare(_config(**{"source.uri": "s3://nowhere/raw"}))
    with pytest.raises(DataError, match=r"manifest\.json is missing"):
        pretrain(_config(**{"store.uri": "s3://mmtpp/empty"}))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StorageError, match="AWS_SECRET_ACCESS_KEY") as caught:
        prepare(_config())
    assert os.environ["AWS_ACCESS_KEY_ID"] not in str(caught.value)


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_the_feed_delivers_the_plan_at_any_world_size(store, num_ranks: int):
    config = _config()
    manifest = load_manifest(STORE)
    settings = assemble_settings(config, manifest, split="train")
    token_ids = store_vocabulary(STORE, manifest).token_ids()
    plan = make_plan(settings, token_ids)
    consumed = []
    for rank in range(num_ranks):
        samples = rank_samples(plan, seed=0, first_step=3, num_steps=6, samples_per_step=4,
                               rank=rank, num_ranks=num_ranks)  # fmt: skip
        rows = list(iter_rows(plan, samples, settings, token_ids))
        assert samples.tolist() == [row.sample_id for row in rows]
        assert all(len(row.input_ids) <= 256 for row in rows)
        consumed.append(samples.reshape(3, -1))
    whole = rank_samples(plan, seed=0, first_step=0, num_steps=6, samples_per_step=4, rank=0,
                         num_ranks=1)[12:]  # fmt: skip
    assert whole.tolist() == np.concatenate(consumed, axis=1).ravel().tolist()


def test_training_learns_and_is_tracked(base, stack):
    assert 12 == base["steps"]
    client = MlflowClient(stack.mlflow_uri)
    run = client.get_run(base["run_id"])
    assert "FINISHED" == run.info.status
    assert "0.5" == run.data.params["compression.delta"]
    history = client.get_metric_history(base["run_id"], "train/loss_per_token")
    assert list(range(1, 13)) == [point.step for point in history]
    assert history[0].value > history[-1].value + 0.3
    assert run.data.metrics["validation/events"] > 10
    assert {"model", "config.json"} <= {item.path for item in client.list_artifacts(base["run_id"])}
    with local_folder(base["adapter_uri"]) as folder:
        assert folder is not None
        load_base(folder, dtype=torch.float32)


def _worker_pids() -> list[int]:
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if "ray::RayTrainWorker" in " ".join(process.info["cmdline"] or [])
    ]


def test_a_killed_worker_resumes_with_the_same_losses_in_the_same_run(base, stack):
    """SIGKILL after the first checkpoint; the curve equals that of the uninterrupted run."""
    killed: list[int] = []

    def kill_one() -> None:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and not killed:
            if list_files(f"{RUNS}/killed", "progress.json"):
                victims = _worker_pids()
                if victims:
                    os.kill(victims[-1], signal.SIGKILL)
                    killed.append(victims[-1])
            time.sleep(0.05)

    write_bytes(f"{RUNS}/killed/.exists", b"")
    killer = threading.Thread(target=kill_one)
    killer.start()
    result = pretrain(_config(**{"run.name": "killed", "training.max_failures": 1}))
    killer.join()
    assert killed
    client = MlflowClient(stack.mlflow_uri)
    curves = []
    for run_id in (base["run_id"], result["run_id"]):
        points = client.get_metric_history(run_id, "train/loss_per_token")
        curves.append({point.step: point.value for point in points})
    assert set(range(1, 13)) == set(curves[1])
    assert curves[0] == curves[1]  # bit for bit
    (experiment,) = client.search_experiments(filter_string="name = 'mmtpp'")
    runs = client.search_runs([experiment.experiment_id], "attributes.run_name = 'killed'")
    assert [result["run_id"]] == [run.info.run_id for run in runs]
    assert "FINISHED" == runs[0].info.status


def test_ranks_of_one_node_do_not_share_a_downloaded_checkpoint(stack):
    """Restoring in the middle of another rank's restoring leaves the other's files alone."""
    expected = Progress(step=3, num_ranks=2, plan_fingerprint="p", vocabulary_hash="v")
    write_bytes(f"{RUNS}/shared/progress.json", json.dumps(asdict(expected)).encode())
    write_bytes(f"{RUNS}/shared/state/optimizer.pt", b"x" * 1000)
    filesystem, path = filesystem_of(f"{RUNS}/shared")
    checkpoint = Checkpoint(path, filesystem)
    folders: list[Path] = []

    class Rank:
        def load(self, folder: Path) -> None:
            folders.append(folder)
            before = (folder / "state" / "optimizer.pt").stat()
            if len(folders) < 3:
                assert restore(cast(Engine, Rank()), checkpoint, expected=expected) == 3
            after = (folder / "state" / "optimizer.pt").stat()
            assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
            assert 1000 == after.st_size

    assert restore(cast(Engine, Rank()), checkpoint, expected=expected) == 3
    assert 3 == len(set(folders))
    assert not any(folder.exists() for folder in folders)


def test_an_adapter_trained_without_tracking_server_loads_and_is_evaluated(base, stack, tmp_path):
    """MLflow is away during training: it goes on, and what could not be sent is kept."""
    changes = {
        "tracking.uri": "http://127.0.0.1:1",
        "model.path": base["adapter_uri"],
        "lora.rank": 4,
        "run.name": "adapter",
        "training.num_steps": 5,
        "training.num_workers": 1,
    }
    adapted = pretrain(_config(**changes))
    assert (5, None) == (adapted["steps"], adapted["run_id"])
    backlogs = list_files(f"{RUNS}/adapter", ".jsonl")
    calls = {json.loads(line)["call"] for each in backlogs
             for line in read_bytes(f"s3://{each.path}").splitlines()}  # fmt: skip
    assert {"params", "metrics", "status"} <= calls
    copy_folder(adapted["adapter_uri"], str(tmp_path / "adapter"))
    copy_folder(base["adapter_uri"], str(tmp_path / "base"))
    model, _ = load_base(tmp_path / "base", dtype=torch.float32)
    loaded = PeftModel.from_pretrained(model, tmp_path / "adapter")
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert set(saved) == set(get_peft_model_state_dict(loaded))

    settings = {"model.path": base["adapter_uri"], "model.adapter": adapted["adapter_uri"]}
    result = evaluate(_config(**settings))
    manifest = load_manifest(STORE)
    plan = make_plan(
        assemble_settings(_config(), manifest, split="test"),
        store_vocabulary(STORE, manifest).token_ids(),
    )
    test_events = manifest.events_by_split["test"]
    # every held-out event but the first of each sequence, unless compression dropped it
    assert result["events"] <= test_events - manifest.sequences_by_split["test"]
    assert result["events"] > 0.5 * test_events
    assert plan.num_similar > 0
    assert 0 <= result["metrics"]["type_accuracy"] <= 1
    assert result["baselines"]["type_accuracy_most_frequent"] < 0.5
    run = MlflowClient(stack.mlflow_uri).get_run(result["run_id"])
    assert run.data.metrics["type_accuracy"] == result["metrics"]["type_accuracy"]
    json.dumps(result, allow_nan=False)


def test_validation_scores_the_same_events_whatever_delta(store, tmp_path):
    manifest = load_manifest(STORE)
    vocabulary = store_vocabulary(STORE, manifest)
    targets = []
    for delta in (0.0, 2.0):
        changes = {"compression.delta": delta, "evaluation.targets_delta": 2.0}
        config = _config(
            **changes, **{"training.validation_sequences": 2, "window.max_tokens": 128}
        )
        uri = str(tmp_path / str(delta))
        settings = plan_validation(config, manifest, vocabulary, uri)
        assert settings is not None
        plan = load_plan(f"{uri}/validation_plan.parquet")
        table = Assembler(settings, vocabulary.token_ids())(
            samples_table(plan, np.arange(len(plan.samples)))
        )
        found = set()
        for index in range(len(table)):
            row = row_from_arrow(table, index, image_px=56)
            scored = np.zeros(len(row.event_type), dtype=np.bool_)
            scored[row.event[row.scored & (row.event >= 0)]] = True
            names, times = (
                table["event_sequence"][index].as_py(),
                table["event_time"][index].as_py(),
            )
            found |= {(names[i], times[i]) for i in np.flatnonzero(scored & row.event_is_target)}
        targets.append(found)
    assert targets[0] == targets[1]
    assert 2 == len({name for name, _ in targets[0]})


@pytest.mark.slow
def test_a_sweep_has_one_parent_with_a_child_for_each_trial(base, stack, tmp_path):
    """Two trials, one of which fails: it is recorded and does not stop the other."""
    file = tmp_path / "sweep.toml"
    tree = _config(**{"model.path": base["adapter_uri"], "training.num_steps": 3,
                      "lora.rank": 2, "training.num_workers": 1, "training.max_failures": 0,
                      "evaluation.targets_delta": 1.0})  # fmt: skip
    file.write_text(
        '[sweep]\nname = "s"\nmetric = "validation/interval_nll_nats_per_event"\nmode = "min"\n'
        'max_concurrent = 1\n[space]\n"compression.delta" = [0.5]\n'
        '"training.learning_rate" = [0.003, 1e30]\n' + as_toml(tree)
    )
    result = run(load_sweep(file, []))
    assert (1, {"compression.delta": 0.5, "training.learning_rate": 0.003}) == (
        result["failed"],
        result["best"],
    )
    assert "not finite" in str(result["trials"][1]["error"])
    client = MlflowClient(stack.mlflow_uri)
    (experiment,) = client.search_experiments(filter_string="name = 'mmtpp'")
    children = client.search_runs(
        [experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{result['run_id']}'"
    )
    assert ["FAILED", "FINISHED"] == sorted(child.info.status for child in children)
    best = tmp_path / "best.toml"
    best.write_bytes(read_bytes(result["best_uri"]))
    assert 0.003 == load_config(best).training.learning_rate


def test_other_settings_or_data_under_the_same_run_name_are_refused(base, tmp_path):
    with pytest.raises(ConfigError, match=r"compression\.delta: 0\.5 -> 2\.0"):
        pretrain(_config(**{"run.name": "base", "compression.delta": 2.0}))
    raw, target = str(tmp_path / "raw"), str(tmp_path / "store")
    publish_events(raw, bad=True)
    prepare(_config(**{"source.uri": raw, "store.uri": target, "split.test_fraction": 0.1}))
    copy_folder(target, STORE)
    with pytest.raises(DataError, match="this run was started on data"):
        pretrain(_config(**{"run.name": "base"}))


def test_the_real_danmaku_files_are_prepared(cluster, real_data, tmp_path):
    """PROVENANCE.md: 92 files, 130,198 comments."""
    report = prepare(
        _config(**{"source.kind": "danmaku", "source.uri": str(real_data / "danmaku_bilibili_xml"),
                   "store.uri": str(tmp_path / "store")})
    )  # fmt: skip
    assert (92, 130_198) == (report["sequences"], report["events_read"])
    assert 130_198 == report["events_kept"] + report["events_rejected"]
    assert sum(report["rejected_by_cause"].values()) == report["events_rejected"]
