"""Processes and jobs killed during ``prepare``: the work is finished, and no work is repeated."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress

import numpy as np
import psutil
import pytest
from PIL import Image

from mmtpp.core.errors import ClusterError
from mmtpp.data.encode.encode_pipeline import EncodePipeline
from mmtpp.data.from_config import build_sample_settings
from mmtpp.data.prepare import prepare
from mmtpp.data.prepared_store import store_vocabulary
from mmtpp.data.samples.assemble import Assembler
from mmtpp.data.samples.make_plan import make_plan
from mmtpp.data.samples.plan import samples_table
from mmtpp.storage.manifest import find_manifest, load_manifest
from mmtpp.storage.paths import exists, list_files
from tests.helpers.job_settings import make_config
from tests.helpers.paths import ROOT
from tests.helpers.published_events import NUM_EVENTS, NUM_SEQUENCES, publish_events, publish_many


def _processes(stack, name: str) -> list[psutil.Process]:
    """Processes of the stack's Ray cluster whose command line contains a name."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if name in " ".join(process.info["cmdline"] or []) and _belongs(process, stack)
    ]


def _belongs(process: psutil.Process, stack) -> bool:
    with suppress(psutil.Error):
        return any(
            str(stack.ports["gcs"]) in " ".join(parent.cmdline()) for parent in process.parents()
        )
    return False


@pytest.mark.parametrize(
    "step", ["ReadShard", pytest.param("DecodeImages", marks=pytest.mark.slow)]
)
def test_a_killed_worker_does_not_change_the_store(cluster, tmp_path, monkeypatch, step: str):
    monkeypatch.setattr("mmtpp.data.encode.shards.FILES_PER_SHARD", 1)
    raw = str(tmp_path / "raw")
    publish_events(raw)
    changes = {"source.uri": raw, "source.max_processes": 2}
    killed: list[int] = []

    def kill_one() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not killed:
            for victim in _processes(cluster, f"ray::Map({step})")[:1]:
                victim.send_signal(signal.SIGKILL)
                killed.append(victim.pid)
            time.sleep(0.002)

    killer = threading.Thread(target=kill_one)
    killer.start()
    report = prepare(make_config(**changes, **{"store.uri": str(tmp_path / "killed")}))
    killer.join()
    assert killed
    whole = prepare(make_config(**changes, **{"store.uri": str(tmp_path / "whole")}))
    assert {**report, "store_uri": ""} == {**whole, "store_uri": ""}


@pytest.mark.parametrize(
    "how", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_a_killed_job_leaves_no_store_and_the_next_job_resumes(cluster, tmp_path, how):
    """SIGTERM is the signal of ``ray job stop``. Finished shards are not written again."""
    raw, target = str(tmp_path / "raw"), tmp_path / "store"
    publish_many(raw, 4000)
    command = [
        sys.executable,
        "jobs/prepare.py",
        "--set",
        f"source.uri={raw}",
        "--set",
        f"store.uri={target}",
        "--set",
        "model.tokenizer_size=512",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as job:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and len(list(target.glob("data-*/counts/*.json"))) < 3:
            assert job.poll() is None, "the job ended too early"
            time.sleep(0.01)
        job.send_signal(how)
    assert find_manifest(str(target)) is None
    while _processes(cluster, "ray::Map(ReadShard)"):  # Ray stops the workers of the driver
        assert time.monotonic() < deadline
        time.sleep(0.1)
    finished = {path: path.stat().st_mtime_ns for path in target.glob("data-*/counts/*.json")}
    assert 3 <= len(finished) < 32
    process = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    report = json.loads(process.stdout.splitlines()[-1])
    assert (report["events_read"], report["events_kept"], report["sequences"]) == (8000, 8000, 4000)
    assert all(path.stat().st_mtime_ns == at for path, at in finished.items())
    assert len(list(target.glob("data-*/counts/*.json"))) == 32
    assert not list(target.glob("data-*/pending"))
    assert f"{len(finished)} of 32 shards were finished before" in process.stderr


@pytest.mark.parametrize(
    "stop_at", ["DecodeImages", pytest.param("FinishShard", marks=pytest.mark.slow)]
)
def test_a_job_that_ended_between_two_steps_resumes_there(store, monkeypatch, stop_at: str):
    """The second job runs only the work that the first job has not finished."""
    monkeypatch.setattr("mmtpp.data.encode.shards.FILES_PER_SHARD", 1)
    target = f"s3://mmtpp/t/faults/stop-{stop_at}"
    tasks: list[tuple[str, list]] = []
    stop_after = {stop_at: 1}
    original = EncodePipeline.run_step

    def recorded(self, actor, items, arguments):
        tasks.append((actor.__name__, items))
        for count, row in enumerate(original(self, actor, items, arguments)):
            if count == stop_after.get(actor.__name__, 10**9):
                raise KeyboardInterrupt
            yield row

    monkeypatch.setattr(EncodePipeline, "run_step", recorded)
    config = make_config(**{"store.uri": target, "source.max_processes": 1})
    with pytest.raises(KeyboardInterrupt):
        prepare(config)
    assert find_manifest(target) is None
    first = {name: len(items) for name, items in tasks}
    tasks.clear()
    stop_after.clear()
    report = prepare(config)
    second = {name: len(items) for name, items in tasks}
    assert first["ReadShard"] == first[stop_at] == NUM_SEQUENCES
    assert second["ReadShard"] == 0
    assert 0 < second[stop_at] < first[stop_at]  # some tasks were running
    assert load_manifest(target).fingerprint == store["fingerprint"]
    assert report["events_kept"] == NUM_SEQUENCES * NUM_EVENTS
    pending = f"{target}/{load_manifest(target).data_folder}/pending"
    assert not exists(pending) or not list_files(pending, "")  # some servers keep empty folders


@pytest.mark.slow
def test_a_task_that_always_kills_its_process_ends_the_job(cluster, tmp_path, monkeypatch):
    """For example a task that needs more memory than the machine has."""
    monkeypatch.setattr("mmtpp.data.encode.encode_pipeline.MAX_RETRIES", 1)
    raw = tmp_path / "raw"
    publish_events(str(raw))
    config = make_config(**{"source.uri": str(raw), "store.uri": str(tmp_path / "store")})
    monkeypatch.setattr("mmtpp.data.encode.encode_pipeline.ReadShard", KilledStep)
    with pytest.raises(
        ClusterError, match=r"(?s)step KilledStep failed 2 times.*source\.max_file_mib"
    ):
        prepare(config)
    assert find_manifest(config.store.uri) is None


class KilledStep:
    """A step that kills its process."""

    def __init__(self, *_: object) -> None:
        pass

    def __call__(self, row: dict) -> dict:
        os.kill(os.getpid(), signal.SIGKILL)
        return row


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_one_very_long_sequence_is_prepared_with_short_ones(cluster, tmp_path):
    """200,000 events with 4,000 images in one file, and 2,000 files of 20 events."""
    raw = tmp_path / "raw"
    (raw / "i").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 255, (4000, 3), dtype=np.uint8)
    for index, colour in enumerate(noise):
        # large images, so that one process cannot decode all before the other starts
        Image.new("RGB", (640, 480), tuple(colour.tolist())).save(raw / f"i/{index}.png")

    def events(count: int, images: int) -> str:
        return json.dumps(
            [
                {
                    "time": float(i),
                    "text": f"words {i % 50}",
                    "image_path": f"i/{i % images}.png" if images else None,
                    "TPP_attribute": {"event_type": i % 9, "time_since_last_event": 1.0},
                }
                for i in range(count)
            ]
        )

    (raw / "long.json").write_text(events(200_000, 4000))
    for index in range(2000):
        (raw / f"short-{index:04d}.json").write_text(events(20, 0))
    seen: dict[int, int] = {}
    decoding: Counter[int] = Counter()  # polls in which a process decodes, five per second
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.2):
            for process in _processes(cluster, "ray::Map("):
                with suppress(psutil.Error):
                    memory = process.memory_full_info().uss
                    seen[process.pid] = max(seen.get(process.pid, 0), memory)
                    if "DecodeImages" in " ".join(process.cmdline()):
                        decoding[process.pid] += 1

    watcher = threading.Thread(target=watch)
    watcher.start()
    config = make_config(
        **{"source.uri": str(raw), "store.uri": str(tmp_path / "store"), "source.max_processes": 2}
    )
    report = prepare(config)
    stop.set()
    watcher.join()
    assert report["events_read"] == report["events_kept"] == 240_000
    # both processes decode the images of the long sequence
    assert sum(count > max(decoding.values()) / 2 for count in decoding.values()) == 2
    assert max(seen.values()) < 700 * 2**20, {pid: size >> 20 for pid, size in seen.items()}
    manifest = load_manifest(config.store.uri)
    # the long sequence is in the training split
    settings = build_sample_settings(config.sample_sections, manifest, split="train")
    token_ids = store_vocabulary(config.store.uri, manifest).token_ids()
    plan = make_plan(settings, token_ids)
    samples = samples_table(plan, np.arange(8))
    assert len(Assembler(settings, token_ids)(samples)) == 8
