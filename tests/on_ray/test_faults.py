"""What goes wrong in a bucket, a network and a cluster: an account of everything, or an error."""

import io
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mmtpp.core.errors import ClusterError, DataError, ModelError, StorageError
from mmtpp.data.assemble import Assembler
from mmtpp.data.encode import _Run
from mmtpp.data.plan import make_plan, samples_table
from mmtpp.data.prepare import prepare
from mmtpp.data.settings import assemble_settings, store_vocabulary
from mmtpp.model.vocabulary import train_tokenizer
from mmtpp.storage.manifest import find_manifest, load_manifest
from mmtpp.storage.paths import exists, list_files, read_bytes, write_bytes
from tests.conftest import ROOT
from tests.on_ray.events import NUM_EVENTS, NUM_SEQUENCES, publish_events
from tests.on_ray.fault_proxy import fault_proxy
from tests.on_ray.settings import SOURCE, STORE, make_config
from tests.steps import encode_shard

TOKENIZER = train_tokenizer(["event 1 of line 2"], size=300)


def _port(stack) -> int:
    return stack.ports["s3"]


FAULTS: dict[str, Callable[[int, str], str]] = {
    "unavailable": lambda number, line: "unavailable" if number % 3 == 1 else "",
    "reset": lambda number, line: "reset" if number % 3 == 1 else "",
    "cut": lambda number, line: "cut" if number % 4 == 1 and line.startswith("GET") else "",
    "silent": lambda number, line: "silent" if number % 8 == 5 and "GET" in line else "",
    "slow": lambda number, line: "slow" if number % 20 == 1 else "",
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_shard_is_encoded_through_a_bad_network(store, stack, monkeypatch, fault: str):
    """Two shards of the real server, one of them through a proxy that breaks requests."""
    paths = [info.base_name for info in list_files(SOURCE, ".json")]
    target = f"s3://mmtpp/t/faults/{fault}"
    expected = encode_shard(f"{target}/good", paths, tokenizer=TOKENIZER, source_uri=SOURCE)
    monkeypatch.setattr("mmtpp.storage.paths.S3_SILENCE_S", 2.0)
    with fault_proxy(_port(stack), FAULTS[fault]) as (address, made):
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        found = encode_shard(f"{target}/bad", paths, tokenizer=TOKENIZER, source_uri=SOURCE)
    assert made[fault] >= 2
    assert expected == found
    assert NUM_SEQUENCES * NUM_EVENTS == found["events_read"]


def test_a_server_that_never_answers_well_is_a_clear_error(stack, monkeypatch):
    monkeypatch.setattr("mmtpp.storage.paths.S3_ATTEMPTS", 2)
    with fault_proxy(_port(stack), lambda number, line: "unavailable") as (address, made):
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        with pytest.raises(StorageError, match=r"(?s)cannot read.*s3://mmtpp/t/raw/line-00\.json"):
            read_bytes(f"{SOURCE}/line-00.json")
    assert made["unavailable"] == 2


def test_samples_are_assembled_through_a_bad_network(store, stack, monkeypatch):
    config = make_config(**{"store.cache_gib": 0.0})
    manifest = load_manifest(STORE)
    token_ids = store_vocabulary(STORE, manifest).token_ids()
    settings = assemble_settings(config, manifest, split="train")
    plan = make_plan(settings, token_ids)
    samples = samples_table(plan, np.arange(len(plan.samples)))
    expected = Assembler(settings, token_ids)(samples)
    broken = ("unavailable", "reset", "")
    with fault_proxy(_port(stack), lambda n, line: broken[n % 3]) as (address, made):
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        assert expected.equals(Assembler(settings, token_ids)(samples))
    assert made["reset"] >= 1


def _png(width: int, height: int, data: bytes, *more: tuple[bytes, bytes]) -> bytes:
    """A PNG with any header and any pixel data."""

    def chunk(name: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), *more, (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)


def _picture(kind: str) -> bytes:
    sink = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(sink, format=kind)
    return sink.getvalue()


ZEROS = zlib.compress(bytes(200 * 2**20), 9)  # 200 KB that unpack to 200 MiB
IMAGES: dict[str, tuple[bytes | None, str]] = {
    "good.jpg": (_picture("JPEG"), ""),
    "png_called.jpg": (_picture("PNG"), ""),  # the content counts, not the name
    "truncated.jpg": (_picture("JPEG")[:2000], "truncated"),
    "truncated.png": (_picture("PNG")[:6000], "unreadable image"),
    "empty.png": (b"", "the file is empty"),
    "text.png": (b"this is no image" * 10, "cannot identify"),
    "svg.png": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "cannot identify"),
    "gif.png": (_picture("GIF"), "cannot identify"),
    "huge.png": (_png(10_000, 10_000, ZEROS), "10000 x 10000 pixels is too large"),
    "bomb.png": (_png(64, 64, ZEROS), ""),  # rows beyond the last are never unpacked
    "text_bomb.png": (_png(64, 64, zlib.compress(bytes(64 * 193)), (b"zTXt", b"a\0\0" + ZEROS)),
                      "unreadable image"),
    "large.png": (_picture("PNG") + bytes(2 * 10**6), "source.max_image_mib"),
    "missing.png": (None, "does not exist"),
    "../outside.png": (None, "leaves the source folder"),
    "/etc/passwd": (None, "leaves the source folder"),
    "s3://other/x.png": (None, "leaves the source folder"),
    "a/../../x.png": (None, "leaves the source folder"),
    "a\\..\\..\\x.png": (None, "leaves the source folder"),
}  # fmt: skip


def test_every_bad_image_is_rejected_with_its_cause(stack):
    source, target = "s3://mmtpp/t/faults/images", "s3://mmtpp/t/faults/images-out"
    for name, (data, _) in IMAGES.items():
        if data is not None:
            write_bytes(f"{source}/{name}", data)
    events = [
        {"time": float(index), "text": "x", "image_path": name,
         "TPP_attribute": {"event_type": 0, "time_since_last_event": 1.0}}
        for index, name in enumerate(IMAGES)
    ]  # fmt: skip
    write_bytes(f"{source}/a.json", json.dumps(events).encode())
    counts = encode_shard(target, ["a.json"], tokenizer=TOKENIZER, source_uri=source)
    rejected = _rejected(target)
    expected = {name: problem for name, (_, problem) in IMAGES.items() if problem}
    assert len(expected) == counts["rejected"]["unreadable_image"]
    assert len(IMAGES) == counts["events_read"]
    for name, problem in expected.items():
        (detail,) = [each["detail"] for each in rejected if each["record"].endswith(f" {name}")]
        assert problem in detail, name


BOMB = """
import resource, sys
from mmtpp.core.errors import DataError
from mmtpp.model.processor import decode_image
data = open(sys.argv[1], "rb").read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    decode_image(data, image_px=56, max_pixels=10**7)
except DataError:
    pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("name", ["huge.png", "bomb.png", "text_bomb.png"])
def test_no_bomb_is_unpacked(tmp_path, name: str):
    """200 MiB of zeros in 200 KB; the process is new, so its peak is that of this image."""
    data = IMAGES[name][0]
    assert data is not None
    (tmp_path / name).write_bytes(data)
    done = subprocess.run([sys.executable, "-c", BOMB, str(tmp_path / name)], cwd=ROOT,
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert int(done.stdout) < 20 * 1024, f"{done.stdout} KiB"


def _rejected(folder: str) -> list[dict]:
    data = read_bytes(f"{folder}/rejected/000000.parquet")
    return pq.read_table(io.BytesIO(data)).to_pylist()


def test_equal_sequence_ids_in_two_files_are_refused_and_nothing_is_there(cluster, tmp_path):
    raw, target = tmp_path / "raw", str(tmp_path / "store")
    raw.mkdir()
    for name in ("one", "two"):
        (raw / f"{name}.csv").write_text("who,at\na,1\na,2\nb" + name + ",3\n")
    changes = {"source.kind": "columns", "source.columns.time": "at",
               "source.columns.sequence": "who"}  # fmt: skip
    with pytest.raises(DataError, match=r"(?s)1 sequence ids occur more than once, 'a'"):
        prepare(make_config(**changes, **{"source.uri": str(raw), "store.uri": target}))
    assert find_manifest(target) is None


def test_a_file_over_the_limit_is_refused_before_any_work(cluster, tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.json").write_bytes(b" " * (2**20 + 1))
    with pytest.raises(DataError, match=r"(?s)a\.json.*source\.max_file_mib = 1"):
        prepare(make_config(**{"source.uri": str(tmp_path / "raw"), "source.max_file_mib": 1,
                               "store.uri": str(tmp_path / "store")}))  # fmt: skip
    assert not (tmp_path / "store").exists()


def test_a_store_keeps_its_vocabulary(cluster, tmp_path):
    """More events are added with the tokenizer of the store; another one is refused."""
    raw, target = str(tmp_path / "raw"), str(tmp_path / "store")
    publish_events(raw)
    changes = {"source.uri": raw, "store.uri": target}
    prepare(make_config(**changes))
    first = load_manifest(target)
    for index in range(3):
        text = (Path(raw) / "line-00.json").read_text().replace("event 0", f"other words {index}")
        (Path(raw) / f"more-{index}.json").write_text(text)
    prepare(make_config(**changes))
    second = load_manifest(target)
    assert first.vocabulary_hash == second.vocabulary_hash
    assert first.events_kept + 3 * NUM_EVENTS == second.events_kept
    assert first.fingerprint != second.fingerprint
    with pytest.raises(ModelError, match="models of one cannot read the other"):
        prepare(make_config(**changes, **{"model.tokenizer_size": 600}))
    assert second == load_manifest(target)


def test_an_image_changed_in_place_is_noticed(cluster, tmp_path):
    raw, target = str(tmp_path / "raw"), str(tmp_path / "store")
    publish_events(raw)
    changes = {"source.uri": raw, "store.uri": target}
    first = prepare(make_config(**changes))
    assert prepare(make_config(**changes))["reused"]
    Image.new("RGB", (80, 60), (1, 2, 3)).save(Path(raw) / "images" / "red.png")
    second = prepare(make_config(**changes))
    assert not second["reused"]
    assert first["fingerprint"] != second["fingerprint"]


def _many(uri: str, files: int) -> None:
    """Sequences of two events without images."""
    events = [{"time": float(i), "text": "x", "image_path": None,
               "TPP_attribute": {"event_type": 0, "time_since_last_event": 1.0}}
              for i in range(2)]  # fmt: skip
    data = json.dumps(events).encode()
    for index in range(files):
        write_bytes(f"{uri}/{index // 1000:03d}/{index:06d}.json", data)


def _processes(stack, name: str) -> list[psutil.Process]:
    """Workers of the stack's own cluster."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if name in " ".join(process.info["cmdline"] or []) and _belongs(process, stack)
    ]


def _belongs(process: psutil.Process, stack) -> bool:
    with suppress(psutil.Error):
        return any(
            str(stack.ports["gcs"]) in " ".join(each.cmdline()) for each in process.parents()
        )
    return False


@pytest.mark.parametrize(
    "step", ["ReadShard", pytest.param("DecodeImages", marks=pytest.mark.slow)]
)
def test_a_killed_worker_of_prepare_changes_nothing(cluster, tmp_path, monkeypatch, step: str):
    monkeypatch.setattr("mmtpp.data.encode.FILES_PER_SHARD", 1)
    raw = str(tmp_path / "raw")
    publish_events(raw)
    changes = {"source.uri": raw, "source.max_workers": 2}
    killed: list[int] = []

    def kill_one() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not killed:
            for victim in _processes(cluster, f"ray::MapWorker(Map({step}))")[:1]:
                victim.send_signal(signal.SIGKILL)
                killed.append(victim.pid)
            time.sleep(0.002)

    killer = threading.Thread(target=kill_one)
    killer.start()
    report = prepare(make_config(**changes, **{"store.uri": str(tmp_path / "killed")}))
    killer.join()
    assert killed
    whole = prepare(make_config(**changes, **{"store.uri": str(tmp_path / "whole")}))
    assert {**whole, "store_uri": ""} == {**report, "store_uri": ""}


@pytest.mark.parametrize(
    "how", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_a_job_that_is_killed_leaves_no_store_and_the_next_one_goes_on(cluster, tmp_path, how):
    """SIGTERM is what ``ray job stop`` sends; finished shards are not touched again."""
    raw, target = str(tmp_path / "raw"), tmp_path / "store"
    _many(raw, 4000)
    command = [sys.executable, "jobs/prepare.py", "--set", f"source.uri={raw}",
               "--set", f"store.uri={target}", "--set", "model.tokenizer_size=512"]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL) as job:  # fmt: skip
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and len(list(target.glob("data-*/counts/*.json"))) < 3:
            assert job.poll() is None, "the job ended too early"
            time.sleep(0.01)
        job.send_signal(how)
    assert find_manifest(str(target)) is None
    while _processes(cluster, "ray::MapWorker(Map(ReadShard))"):  # Ray stops what the driver left
        assert time.monotonic() < deadline
        time.sleep(0.1)
    finished = {path: path.stat().st_mtime_ns for path in target.glob("data-*/counts/*.json")}
    assert 3 <= len(finished) < 32
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True,
                          check=True)  # fmt: skip
    report = json.loads(done.stdout.splitlines()[-1])
    assert (8000, 8000, 4000) == (
        report["events_read"], report["events_kept"], report["sequences"]
    )  # fmt: skip
    assert all(path.stat().st_mtime_ns == at for path, at in finished.items())
    assert 32 == len(list(target.glob("data-*/counts/*.json")))
    assert not list(target.glob("data-*/pending"))
    assert f"{len(finished)} of 32 shards were finished before" in done.stderr


@pytest.mark.slow
def test_a_whole_job_through_a_bad_network(stack):
    """A cluster of its own whose every request to the server passes the proxy."""
    source, target = "s3://mmtpp/t/faults/job", "s3://mmtpp/t/faults/job-store"
    publish_events(source)
    faults = ("", "", "unavailable", "", "reset", "", "cut", "")
    with (
        fault_proxy(_port(stack), lambda n, line: faults[n % 8]) as (address, made),
        tempfile.TemporaryDirectory() as temp,  # Ray's sockets want a short path
    ):
        environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
        environment |= {"AWS_ENDPOINT_URL": address, "PYTHONPATH": str(ROOT),
                        "RAY_TMPDIR": temp}  # fmt: skip
        done = subprocess.run(
            [sys.executable, "jobs/prepare.py", "--set", f"source.uri={source}",
             "--set", f"store.uri={target}", "--set", "model.tokenizer_size=512"],
            cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=400,
        )  # fmt: skip
    assert 0 == done.returncode, done.stderr[-3000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert NUM_SEQUENCES * NUM_EVENTS == report["events_read"] == report["events_kept"]
    assert min(made[fault] for fault in ("unavailable", "reset", "cut")) > 5


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_bucket_with_a_hundred_thousand_small_files(cluster):
    source, target = "s3://mmtpp/t/faults/many", "s3://mmtpp/t/faults/many-store"
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda part: _many(f"{source}/{part:02d}", 2500), range(40)))
    report = prepare(make_config(**{"source.uri": source, "store.uri": target}))
    assert (200_000, 200_000, 100_000) == (
        report["events_read"], report["events_kept"], report["sequences"]
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_one_very_long_sequence_among_short_ones(cluster, tmp_path):
    """200,000 events with 4,000 images in one file, and 2,000 files of 20 events."""
    raw = tmp_path / "raw"
    (raw / "i").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 255, (4000, 3), dtype=np.uint8)
    for index, colour in enumerate(noise):
        Image.new("RGB", (160, 120), tuple(colour.tolist())).save(raw / f"i/{index}.png")

    def events(count: int, images: int) -> str:
        return json.dumps([
            {"time": float(i), "text": f"words {i % 50}",
             "image_path": f"i/{i % images}.png" if images else None,
             "TPP_attribute": {"event_type": i % 9, "time_since_last_event": 1.0}}
            for i in range(count)
        ])  # fmt: skip

    (raw / "long.json").write_text(events(200_000, 4000))
    for index in range(2000):
        (raw / f"short-{index:04d}.json").write_text(events(20, 0))
    seen: dict[int, int] = {}
    busy: set[int] = set()
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.2):
            for process in _processes(cluster, "ray::MapWorker"):
                with suppress(psutil.Error):
                    memory = process.memory_full_info().uss
                    seen[process.pid] = max(seen.get(process.pid, 0), memory)
                    if "DecodeImages" in " ".join(process.cmdline()) and (
                        sum(process.cpu_times()[:2]) > 2.5
                    ):
                        busy.add(process.pid)

    watcher = threading.Thread(target=watch)
    watcher.start()
    config = make_config(**{"source.uri": str(raw), "store.uri": str(tmp_path / "store"),
                            "source.max_workers": 2})  # fmt: skip
    report = prepare(config)
    stop.set()
    watcher.join()
    assert 240_000 == report["events_read"] == report["events_kept"]
    assert 2 == len(busy), "the images of the long sequence are decoded by both processes"
    assert max(seen.values()) < 700 * 2**20, {pid: size >> 20 for pid, size in seen.items()}
    manifest = load_manifest(config.store.uri)
    settings = assemble_settings(
        config, manifest, split="train"
    )  # the long one is in the train split
    token_ids = store_vocabulary(config.store.uri, manifest).token_ids()
    plan = make_plan(settings, token_ids)
    samples = samples_table(plan, np.arange(8))
    assert 8 == len(Assembler(settings, token_ids)(samples))


@pytest.mark.parametrize(
    "stop_at", ["DecodeImages", pytest.param("FinishShard", marks=pytest.mark.slow)]
)
def test_a_job_that_ends_between_its_steps_goes_on_there(store, monkeypatch, stop_at: str):
    """On the real server; the second job is given only what the first has not done."""
    monkeypatch.setattr("mmtpp.data.encode.FILES_PER_SHARD", 1)
    target = f"s3://mmtpp/t/faults/stop-{stop_at}"
    given: list[tuple[str, list]] = []
    stop_after = {stop_at: 1}
    whole = _Run._map

    def watched(self, actor, items, arguments):
        given.append((actor.__name__, items))
        for count, row in enumerate(whole(self, actor, items, arguments)):
            if count == stop_after.get(actor.__name__, 10**9):
                raise KeyboardInterrupt
            yield row

    monkeypatch.setattr(_Run, "_map", watched)
    config = make_config(**{"store.uri": target, "source.max_workers": 1})
    with pytest.raises(KeyboardInterrupt):
        prepare(config)
    assert find_manifest(target) is None
    first = {name: len(items) for name, items in given}
    given.clear()
    stop_after.clear()
    report = prepare(config)
    second = {name: len(items) for name, items in given}
    assert NUM_SEQUENCES == first["ReadShard"] == first[stop_at]
    assert 0 == second["ReadShard"]
    assert 0 < second[stop_at] < first[stop_at]  # some were under way
    assert store["fingerprint"] == load_manifest(target).fingerprint
    assert NUM_SEQUENCES * NUM_EVENTS == report["events_kept"]
    pending = f"{target}/{load_manifest(target).data_folder}/pending"
    assert not exists(pending) or not list_files(pending, "")  # a server may keep the empty folder


def test_a_task_that_always_kills_its_process_ends_the_job(cluster, tmp_path, monkeypatch):
    """As one does that needs more memory than there is."""
    monkeypatch.setattr("mmtpp.data.encode.MAX_RETRIES", 1)
    raw = tmp_path / "raw"
    publish_events(str(raw))
    config = make_config(**{"source.uri": str(raw), "store.uri": str(tmp_path / "store")})
    monkeypatch.setattr("mmtpp.data.encode.ReadShard", Dies)
    with pytest.raises(ClusterError, match=r"(?s)step Dies failed 2 times.*source\.max_file_mib"):
        prepare(config)
    assert find_manifest(config.store.uri) is None


class Dies:
    """A step whose process is killed by its work."""

    def __init__(self, *_: object) -> None:
        pass

    def __call__(self, row: dict) -> dict:
        os.kill(os.getpid(), signal.SIGKILL)
        return row


def test_a_store_of_another_version_is_replaced(cluster, tmp_path):
    raw, target = str(tmp_path / "raw"), str(tmp_path / "store")
    publish_events(raw)
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "manifest.json").write_text('{"schema_version": 2}')
    with pytest.raises(DataError, match=r"prepare\.py again"):
        load_manifest(target)
    prepare(make_config(**{"source.uri": raw, "store.uri": target}))
    assert NUM_SEQUENCES * NUM_EVENTS == load_manifest(target).events_kept
