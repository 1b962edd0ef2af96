"""Faults of buckets, networks and files: every event is accounted for, or the job fails."""

import io
import json
import os
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from ray.train import Checkpoint
from ray.train.v2._internal.execution.storage import StorageContext

from mmtpp.core.errors import DataError, ModelError, StorageError
from mmtpp.data.from_config import build_sample_settings
from mmtpp.data.prepare import prepare
from mmtpp.data.prepared_store import store_vocabulary
from mmtpp.data.samples.assemble import Assembler
from mmtpp.data.samples.make_plan import make_plan
from mmtpp.data.samples.plan import samples_table
from mmtpp.model.tokens.vocabulary import train_tokenizer
from mmtpp.storage.filesystems import filesystem_of
from mmtpp.storage.manifest import load_manifest
from mmtpp.storage.paths import exists, list_files, read_bytes, write_bytes
from mmtpp.train.checkpoints.upload import retrying_upload
from tests.helpers.job_settings import SOURCE, STORE, make_config
from tests.helpers.paths import ROOT
from tests.helpers.published_events import NUM_EVENTS, NUM_SEQUENCES, publish_events, publish_many
from tests.helpers.steps import encode_shard
from tests.on_ray.fault_proxy import fault_proxy

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
    """Encodes a shard twice, once through a proxy that breaks requests."""
    paths = [info.base_name for info in list_files(SOURCE, ".json")]
    target = f"s3://mmtpp/t/faults/{fault}"
    expected = encode_shard(f"{target}/good", paths, tokenizer=TOKENIZER, source_uri=SOURCE)
    monkeypatch.setattr("mmtpp.storage.s3.SILENCE_S", 2.0)
    with fault_proxy(_port(stack), FAULTS[fault]) as (address, requests):
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        counts = encode_shard(f"{target}/bad", paths, tokenizer=TOKENIZER, source_uri=SOURCE)
    assert requests[fault] >= 2
    assert counts == expected
    assert counts["events_read"] == NUM_SEQUENCES * NUM_EVENTS


def test_a_server_that_always_fails_is_a_clear_error(stack, monkeypatch):
    monkeypatch.setattr("mmtpp.storage.s3.S3_ATTEMPTS", 2)
    with fault_proxy(_port(stack), lambda number, line: "unavailable") as (address, requests):
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        with pytest.raises(StorageError, match=r"(?s)cannot read.*s3://mmtpp/t/raw/line-00\.json"):
            read_bytes(f"{SOURCE}/line-00.json")
    assert requests["unavailable"] == 2


def test_samples_are_assembled_through_a_bad_network(store, stack, monkeypatch):
    config = make_config(**{"store.cache_gib": 0.0})
    manifest = load_manifest(STORE)
    token_ids = store_vocabulary(STORE, manifest).token_ids()
    settings = build_sample_settings(config.sample_sections, manifest, split="train")
    plan = make_plan(settings, token_ids)
    samples = samples_table(plan, np.arange(plan.num_samples))
    expected = Assembler(settings, token_ids)(samples)
    faults = ("unavailable", "reset", "")
    with fault_proxy(_port(stack), lambda n, line: faults[n % 3]) as (address, requests):
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        assert Assembler(settings, token_ids)(samples).equals(expected)
    assert requests["reset"] >= 1


def test_a_checkpoint_whose_files_do_not_arrive_is_uploaded_again(stack, tmp_path, monkeypatch):
    """The writes fail and the listings do not: Ray's own upload then reports success."""
    files = {"progress.json": b"{}", "ranks/0.safetensors": bytes(3_000_000)}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    writes: list[str] = []

    def choose(_number: int, line: str) -> str:
        if line.startswith(("PUT", "POST")) and "checkpoint" in line:
            writes.append(line)
            return "unavailable" if len(writes) <= len(files) else ""
        return ""

    monkeypatch.setattr("mmtpp.storage.s3.S3_ATTEMPTS", 1)
    with fault_proxy(_port(stack), choose) as (address, _):
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        filesystem, path = filesystem_of("s3://mmtpp/t/faults/runs")
        storage = StorageContext(path, "upload", storage_filesystem=filesystem)
        alone = storage.persist_current_checkpoint(Checkpoint(str(tmp_path)), "checkpoint_0")
        assert not exists(f"s3://{alone.path}")  # where this fails, the check can go
        writes.clear()
        monkeypatch.setattr("mmtpp.train.checkpoints.upload.train_storage", lambda: storage)
        retrying_upload(60.0)(Checkpoint(str(tmp_path)), "checkpoint_1")
        assert len(writes) > len(files)
        for name, content in files.items():
            assert read_bytes(f"s3://mmtpp/t/faults/runs/upload/checkpoint_1/{name}") == content


def _png(width: int, height: int, data: bytes, *extra: tuple[bytes, bytes]) -> bytes:
    """A PNG with a given header, pixel data and extra chunks."""

    def chunk(name: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in chunks)


def _picture(kind: str) -> bytes:
    sink = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(sink, format=kind)
    return sink.getvalue()


ZEROS = zlib.compress(bytes(200 * 2**20), 9)  # 200 KB that decompress to 200 MiB
IMAGES: dict[str, tuple[bytes | None, str]] = {
    "good.jpg": (_picture("JPEG"), ""),
    "png_called.jpg": (_picture("PNG"), ""),  # the type is read from the content, not from the name
    "truncated.jpg": (_picture("JPEG")[:2000], "truncated"),
    "truncated.png": (_picture("PNG")[:6000], "unreadable image"),
    "empty.png": (b"", "the file is empty"),
    "text.png": (b"this is no image" * 10, "not a PNG, JPEG or WebP image"),
    "svg.png": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "not a PNG, JPEG or WebP image"),
    "gif.png": (_picture("GIF"), "not a PNG, JPEG or WebP image"),
    "huge.png": (_png(10_000, 10_000, ZEROS), "10000 x 10000 pixels is too large"),
    "bomb.png": (_png(64, 64, ZEROS), ""),  # rows beyond the last are never decompressed
    "text_bomb.png": (
        _png(64, 64, zlib.compress(bytes(64 * 193)), (b"zTXt", b"a\0\0" + ZEROS)),
        "unreadable image",
    ),
    "large.png": (_picture("PNG") + bytes(2 * 10**6), "source.max_image_mib"),
    "missing.png": (None, "does not exist"),
    "../outside.png": (None, "leaves the source folder"),
    "/etc/passwd": (None, "leaves the source folder"),
    "s3://other/x.png": (None, "is outside of the source folder"),
    "a/../../x.png": (None, "leaves the source folder"),
    "a\\..\\..\\x.png": (None, "leaves the source folder"),
}


def test_every_invalid_image_is_rejected_with_its_cause(stack):
    source, target = "s3://mmtpp/t/faults/images", "s3://mmtpp/t/faults/images-out"
    for name, (data, _) in IMAGES.items():
        if data is not None:
            write_bytes(f"{source}/{name}", data)
    events = [
        {
            "time": float(index),
            "text": "x",
            "image_path": name,
            "TPP_attribute": {"event_type": 0, "time_since_last_event": 1.0},
        }
        for index, name in enumerate(IMAGES)
    ]
    write_bytes(f"{source}/a.json", json.dumps(events).encode())
    counts = encode_shard(target, ["a.json"], tokenizer=TOKENIZER, source_uri=source)
    rejected = _rejected(target)
    expected = {name: problem for name, (_, problem) in IMAGES.items() if problem}
    assert counts["rejected"]["unreadable_image"] == len(expected)
    assert counts["events_read"] == len(IMAGES)
    for name, problem in expected.items():
        (detail,) = [
            record["detail"] for record in rejected if record["record"].endswith(f" {name}")
        ]
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
def test_decompression_bombs_use_little_memory(tmp_path, name: str):
    """200 MiB of zeros in 200 KB, decoded in a new process to measure its peak memory."""
    data = IMAGES[name][0]
    assert data is not None
    (tmp_path / name).write_bytes(data)
    process = subprocess.run(
        [sys.executable, "-c", BOMB, str(tmp_path / name)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(process.stdout) < 20 * 1024, f"{process.stdout} KiB"


def _rejected(folder: str) -> list[dict]:
    data = read_bytes(f"{folder}/rejected/000000.parquet")
    return pq.read_table(io.BytesIO(data)).to_pylist()


def test_a_file_over_the_size_limit_is_refused_at_the_start(cluster, tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.json").write_bytes(b" " * (2**20 + 1))
    with pytest.raises(DataError, match=r"(?s)a\.json.*source\.max_file_mib = 1"):
        prepare(
            make_config(
                **{
                    "source.uri": str(tmp_path / "raw"),
                    "source.max_file_mib": 1,
                    "store.uri": str(tmp_path / "store"),
                }
            )
        )
    assert not (tmp_path / "store").exists()


def test_a_store_keeps_its_vocabulary(cluster, tmp_path):
    """New events use the tokenizer of the store; another tokenizer is refused."""
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
    assert second.vocabulary_hash == first.vocabulary_hash
    assert second.events_kept == first.events_kept + 3 * NUM_EVENTS
    assert first.fingerprint != second.fingerprint
    with pytest.raises(ModelError, match="a model of one cannot read the other"):
        prepare(make_config(**changes, **{"model.tokenizer_size": 600}))
    assert load_manifest(target) == second


def test_a_changed_image_file_changes_the_store(cluster, tmp_path):
    raw, target = str(tmp_path / "raw"), str(tmp_path / "store")
    publish_events(raw)
    changes = {"source.uri": raw, "store.uri": target}
    first = prepare(make_config(**changes))
    assert prepare(make_config(**changes))["reused"]
    Image.new("RGB", (80, 60), (1, 2, 3)).save(Path(raw) / "images" / "red.png")
    second = prepare(make_config(**changes))
    assert not second["reused"]
    assert first["fingerprint"] != second["fingerprint"]


@pytest.mark.slow
def test_a_whole_job_succeeds_through_a_bad_network(stack):
    """Runs on a new cluster that sends all requests to the server through the proxy."""
    source, target = "s3://mmtpp/t/faults/job", "s3://mmtpp/t/faults/job-store"
    publish_events(source)
    faults = ("", "", "unavailable", "", "reset", "", "cut", "")
    with (
        fault_proxy(_port(stack), lambda n, line: faults[n % 8]) as (address, requests),
        tempfile.TemporaryDirectory() as temp,  # the paths of Ray's sockets must be short
    ):
        environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
        environment |= {"AWS_ENDPOINT_URL": address, "PYTHONPATH": str(ROOT), "RAY_TMPDIR": temp}
        process = subprocess.run(
            [
                sys.executable,
                "jobs/prepare.py",
                "--set",
                f"source.uri={source}",
                "--set",
                f"store.uri={target}",
                "--set",
                "model.tokenizer_size=512",
            ],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=400,
        )
    assert process.returncode == 0, process.stderr[-3000:]
    report = json.loads(process.stdout.splitlines()[-1])
    assert report["events_read"] == report["events_kept"] == NUM_SEQUENCES * NUM_EVENTS
    assert min(requests[fault] for fault in ("unavailable", "reset", "cut")) > 5


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_bucket_with_a_hundred_thousand_small_files_is_prepared(cluster):
    source, target = "s3://mmtpp/t/faults/many", "s3://mmtpp/t/faults/many-store"
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda part: publish_many(f"{source}/{part:02d}", 2500), range(40)))
    report = prepare(make_config(**{"source.uri": source, "store.uri": target}))
    assert (report["events_read"], report["events_kept"], report["sequences"]) == (
        200_000,
        200_000,
        100_000,
    )


def test_a_store_of_another_version_is_replaced(cluster, tmp_path):
    raw, target = str(tmp_path / "raw"), str(tmp_path / "store")
    publish_events(raw)
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "manifest.json").write_text('{"schema_version": 2}')
    with pytest.raises(DataError, match=r"prepare\.py again"):
        load_manifest(target)
    prepare(make_config(**{"source.uri": raw, "store.uri": target}))
    assert load_manifest(target).events_kept == NUM_SEQUENCES * NUM_EVENTS
