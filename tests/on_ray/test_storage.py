"""The same files on real servers of S3, Azure and Google, through s3fs, adlfs and gcsfs."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.fs as pafs
import pytest

from mmtpp.core.errors import FileTooLargeError, MissingFileError, StorageError
from mmtpp.doctor.services import check_storage
from mmtpp.storage.filesystems import filesystem_of
from mmtpp.storage.manifest import load_manifest
from mmtpp.storage.parquet import read_table
from mmtpp.storage.paths import (
    check_bucket,
    copy_folder,
    create_bytes,
    exists,
    list_files,
    read_bytes,
    remove_file,
    remove_folder,
    write_bytes,
)
from tests.helpers.paths import ROOT
from tests.helpers.published_events import NUM_EVENTS, NUM_SEQUENCES, publish_events
from tests.on_ray.emulators import azurite, google_emulator
from tests.on_ray.fault_proxy import fault_proxy

NAMES = ["a/one.bin", "a/two [1]*#%20.txt", "ü.json"]


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with azurite(tmp_path_factory.mktemp("azurite")) as variables:
        yield variables


@pytest.fixture(scope="module")
def google(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with google_emulator(tmp_path_factory.mktemp("google")) as variables:
        yield variables


@pytest.fixture(params=["s3", "az", "gs"])
def bucket(request: pytest.FixtureRequest, stack, monkeypatch: pytest.MonkeyPatch) -> str:
    """URI of the bucket of a running server, whose variables are set."""
    if request.param != "s3":  # the stack has set its own
        variables = request.getfixturevalue({"az": "azure", "gs": "google"}[request.param])
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
    return f"{request.param}://mmtpp"


def test_files_are_written_listed_read_copied_and_deleted(bucket: str, tmp_path: Path):
    folder = f"{bucket}/t/storage/files"
    check_bucket(folder)
    contents = {name: name.encode() * 1000 for name in NAMES}
    for name, content in contents.items():
        write_bytes(f"{folder}/{name}", content)
        assert read_bytes(f"{folder}/{name}") == content
    root = folder.partition("://")[2]
    infos = list_files(folder, "")
    assert {info.path: info.size for info in infos} == {
        f"{root}/{name}": len(content) for name, content in contents.items()
    }
    assert all(info.mtime_ns for info in infos)
    assert exists(f"{folder}/a")
    assert not exists(f"{folder}/a/one")
    with pytest.raises(FileTooLargeError, match="9000 bytes"):
        read_bytes(f"{folder}/a/one.bin", max_bytes=8999)
    with pytest.raises(MissingFileError, match="does not exist"):
        read_bytes(f"{folder}/none")
    copy_folder(folder, str(tmp_path / "down"))
    copy_folder(str(tmp_path / "down"), f"{folder}-up")
    copy_folder(f"{folder}-up", f"{folder}-across")
    copy_folder(f"{folder}-up", "s3://mmtpp/t/storage/from-another-client")
    for name, content in contents.items():
        assert (tmp_path / "down" / name).read_bytes() == content
        assert read_bytes(f"{folder}-across/{name}") == content
        assert read_bytes(f"s3://mmtpp/t/storage/from-another-client/{name}") == content
    remove_folder(folder)
    assert not any(exists(f"{folder}/{name}") for name in NAMES)
    assert len(list_files(f"{folder}-up", "")) == len(NAMES)


def test_a_reader_sees_a_file_before_or_after_a_write(bucket: str):
    uri = f"{bucket}/t/storage/atomic"
    contents = [bytes([value]) * 2_000_000 for value in (1, 2)]
    write_bytes(uri, contents[0])
    with ThreadPoolExecutor(1) as pool:
        writes = pool.submit(lambda: [write_bytes(uri, contents[n % 2]) for n in range(1, 10)])
        seen = [read_bytes(uri)]
        while not writes.done():
            seen.append(read_bytes(uri))
        writes.result()
    assert all(content in contents for content in seen)
    assert read_bytes(uri) == contents[1]


def test_of_two_writers_that_create_a_file_one_succeeds(bucket: str):
    if bucket.startswith("gs://"):
        pytest.skip("the emulator of Google ignores the condition ifGenerationMatch")
    uri = f"{bucket}/t/storage/created/once"
    with ThreadPoolExecutor(2) as pool:
        created = list(pool.map(lambda content: create_bytes(uri, content), (b"1", b"2")))
    assert sorted(created) == [False, True]
    assert read_bytes(uri) == (b"1" if created[0] else b"2")
    assert not create_bytes(uri, b"3")
    remove_file(uri)
    remove_file(uri)
    assert create_bytes(uri, b"4")


def test_ray_copies_folders_and_tables_are_read_in_parts(bucket: str, tmp_path: Path):
    filesystem, path = filesystem_of(f"{bucket}/t/storage/ray")
    (tmp_path / "in" / "deep").mkdir(parents=True)
    content = os.urandom(3_000_000)
    (tmp_path / "in" / "deep" / "x").write_bytes(content)
    local = pafs.LocalFileSystem()
    pafs.copy_files(
        str(tmp_path / "in"), path, source_filesystem=local, destination_filesystem=filesystem
    )
    pafs.copy_files(
        path, str(tmp_path / "out"), source_filesystem=filesystem, destination_filesystem=local
    )
    assert (tmp_path / "out" / "deep" / "x").read_bytes() == content
    with filesystem.open_input_file(f"{path}/deep/x") as file:
        file.seek(1_000_000)
        assert file.read(100) == content[1_000_000:1_000_100]
        assert file.size() == len(content)


def test_the_doctor_checks_every_storage(bucket: str):
    uri = f"{bucket}/t/storage/doctor"
    (finding,) = check_storage(source_uri="", store_uri="", runs_uri=uri)
    assert finding.observed == f"{uri}: written, listed, read and deleted", finding


def test_wrong_credentials_are_an_error_without_the_secret(
    bucket: str, monkeypatch: pytest.MonkeyPatch
):
    if bucket.startswith("gs://"):
        pytest.skip("the emulator of Google accepts everybody")
    secret = "cGxhbnRlZCBzZWNyZXQgb2YgYSB0ZXN0"  # valid base64
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    connection = os.environ.get("AZURE_STORAGE_CONNECTION_STRING", "AccountKey=;")
    key = connection.partition("AccountKey=")[2].partition(";")[0]
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", connection.replace(key, secret or key))
    uri = f"{bucket}/t/storage/refused"
    for action in (read_bytes, lambda uri: write_bytes(uri, b""), check_bucket, exists):
        with pytest.raises(StorageError, match="missing credentials") as caught:
            action(uri)
        assert secret not in str(caught.value)


def test_a_missing_bucket_is_an_error(bucket: str):
    for action in (check_bucket, exists, lambda uri: list_files(uri, "")):
        with pytest.raises(StorageError, match=r"the bucket no-such-bucket does not exist"):
            action(bucket.replace("mmtpp", "no-such-bucket") + "/x")


def test_missing_credentials_are_an_error(stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    for action in (read_bytes, lambda uri: write_bytes(uri, b""), check_bucket):
        with pytest.raises(StorageError, match=r"missing credentials.*AWS_PROFILE"):
            action("s3://mmtpp/t/storage/x")


def test_credentials_and_endpoint_of_a_profile_read_and_write(
    stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Both clients of S3 use a profile, as the tools of AWS do."""
    (tmp_path / "credentials").write_text(
        f"[team]\naws_access_key_id = {stack.access_key}\n"
        f"aws_secret_access_key = {stack.secret_key}\n"
    )
    (tmp_path / "config").write_text(
        f"[profile team]\nregion = us-east-1\nendpoint_url = {stack.s3_uri}\n"
    )
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "ENDPOINT_URL", "DEFAULT_REGION"):
        monkeypatch.delenv(f"AWS_{name}")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "team")
    uri = "s3://mmtpp/t/storage/profile"
    write_bytes(uri, b"written with a profile")
    assert read_bytes(uri) == b"written with a profile"
    assert exists(uri)


def test_an_object_that_only_s3fs_can_name_is_read(stack):
    """Other tools write keys with empty parts; a folder is deleted with all of them."""
    folder = "s3://mmtpp/t/storage/odd"
    write_bytes(f"{folder}//a", b"odd")
    write_bytes(f"{folder}/b", b"plain")
    assert read_bytes(f"{folder}//a") == b"odd"
    with pytest.raises(FileTooLargeError):
        read_bytes(f"{folder}//a", max_bytes=2)
    remove_folder(folder)
    assert not exists(f"{folder}//a")
    assert not exists(f"{folder}/b")


FAULTS = ("unavailable", "reset", "cut", "silent")
SILENT_S = 300.0  # silence of the server, longer than all requests together


@pytest.mark.parametrize("scheme", [pytest.param("az", marks=pytest.mark.slow), "gs"])
def test_files_are_read_and_written_through_a_bad_network(
    scheme: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
):
    """Every fault occurs: it costs a further request, and no byte; the client ends silence."""
    module = {"az": "azure", "gs": "google"}[scheme]
    variables = request.getfixturevalue(module)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    folder = f"{scheme}://mmtpp/t/faults"
    content = os.urandom(300_000)
    write_bytes(f"{folder}/before", content)
    monkeypatch.setattr(f"mmtpp.storage.{module}.SILENCE_S", 1.0)
    monkeypatch.setattr("tests.on_ray.fault_proxy.SILENT_S", SILENT_S)
    fault_of = {5 * place + 4: fault for place, fault in enumerate(FAULTS)}
    (port,) = re.findall(r"127\.0\.0\.1:(\d+)", " ".join(variables.values()))
    with fault_proxy(int(port), lambda n, line: fault_of.get(n % 20, "")) as (address, requests):
        for name, value in variables.items():
            monkeypatch.setenv(name, value.replace(f"http://127.0.0.1:{port}", address))
        started = time.monotonic()
        for number in range(8):
            assert read_bytes(f"{folder}/before") == content
            write_bytes(f"{folder}/{number}", content)
            assert read_bytes(f"{folder}/{number}") == content
        assert time.monotonic() - started < SILENT_S, requests
    assert min(requests[fault] for fault in FAULTS) >= 1, requests


# prepares, trains and evaluates on a cluster of its own, whose workers get the variables
JOBS = """
import json, sys
from mmtpp.config.load import with_values
from mmtpp.data.prepare import prepare
from mmtpp.evaluate.evaluate import evaluate
from mmtpp.train.launch import pretrain
from tests.helpers.job_settings import make_config

config = make_config(**json.loads(sys.argv[1]))
report = prepare(config)
trained = pretrain(config)
result = evaluate(with_values(config, {"model.path": trained["model_uri"]}))
keys = {"report": report, "trained": trained, "result": result}
print(json.dumps(keys))
"""


@pytest.mark.parametrize("scheme", [pytest.param("az", marks=pytest.mark.slow), "gs"])
def test_a_model_is_trained_and_evaluated(
    stack, scheme: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
):
    variables = request.getfixturevalue({"az": "azure", "gs": "google"}[scheme])
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    folder = f"{scheme}://mmtpp/t"
    publish_events(f"{folder}/raw")
    changes = {
        "source.uri": f"{folder}/raw",
        "store.uri": f"{folder}/store",
        "run.storage_uri": f"{folder}/runs",
        "run.name": f"base-{scheme}",
        "training.num_steps": 5,
        "training.num_workers": 1,
        "training.checkpoint_every": 2,
        "evaluation.max_sequences": 2,
    }
    with tempfile.TemporaryDirectory() as temp:  # the paths of Ray's sockets must be short
        environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
        process = subprocess.run(
            [sys.executable, "-c", JOBS, json.dumps(changes)],
            cwd=ROOT,
            env=environment | {"PYTHONPATH": str(ROOT), "RAY_TMPDIR": temp},
            capture_output=True,
            text=True,
            check=False,
            timeout=400,
        )
    assert process.returncode == 0, process.stderr[-3000:]
    jobs = json.loads(process.stdout.splitlines()[-1])
    report, trained, result = jobs["report"], jobs["trained"], jobs["result"]
    assert report["events_read"] == report["events_kept"] == NUM_SEQUENCES * NUM_EVENTS
    assert load_manifest(f"{folder}/store").events_kept == NUM_SEQUENCES * NUM_EVENTS
    assert (trained["steps"], trained["model_uri"]) == (5, f"{folder}/runs/base-{scheme}/model")
    assert exists(f"{trained['model_uri']}/model.safetensors")
    events = read_table(result["events_uri"])
    assert len(events) == result["events"] > 0
    assert len(events["sequence_id"].unique()) == 2 < report["sequences_by_split"]["test"]
    assert np.isfinite(events["interval_code_nll"].to_numpy()).all()
    manifest = read_bytes(f"{folder}/store/manifest.json").decode()
    secrets = [text for text in variables.values() if "AccountKey" in text]
    for text in (process.stdout, process.stderr, manifest):
        assert not any(secret in text for secret in secrets)
