"""Schemes, their packages, and the files of a remote filesystem, here in memory."""

import io
import pickle
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from mmtpp.core.errors import DataError, FileTooLargeError, MissingFileError, StorageError
from mmtpp.storage.client_errors import storage_errors
from mmtpp.storage.filesystems import EXTRAS, filesystem_of, is_remote
from mmtpp.storage.parquet import open_file, read_table, write_table
from mmtpp.storage.paths import (
    copy_file,
    copy_folder,
    exists,
    folder_bytes,
    list_files,
    read_bytes,
    remove_folder,
    split_file,
    write_bytes,
)
from mmtpp.storage.remote import RangeFile
from tests.helpers.paths import ROOT

FOLDER = "memory://bucket/folder"
SECRET = "planted-0123456789"


@pytest.fixture
def memory() -> Iterator[MemoryFileSystem]:
    """The files in memory, which all clients of this process share; empty before and after."""
    fs = MemoryFileSystem()
    fs.store.clear()
    yield fs
    fs.store.clear()


def test_remote_files_are_written_listed_read_copied_and_deleted(memory, tmp_path):
    assert not exists(FOLDER)
    write_bytes(f"{FOLDER}/a/one.bin", b"first")
    write_bytes(f"{FOLDER}/a/one.bin", pa.py_buffer(b"1234"))
    write_bytes(f"{FOLDER}/two [1]*.txt", b"56")
    assert read_bytes(f"{FOLDER}/a/one.bin") == b"1234"
    assert [(info.path, info.size) for info in list_files(FOLDER, "")] == [
        ("/bucket/folder/a/one.bin", 4),
        ("/bucket/folder/two [1]*.txt", 2),
    ]
    assert all(info.mtime_ns for info in list_files(FOLDER, ""))
    assert [info.base_name for info in list_files(FOLDER, ".bin")] == ["one.bin"]
    assert folder_bytes(FOLDER) == 6
    assert exists(FOLDER)
    assert exists(f"{FOLDER}/a")
    assert not exists(f"{FOLDER}/b")
    assert split_file(f"{FOLDER}/a/one.bin") == (f"{FOLDER}/a", "one.bin")
    copy_folder(FOLDER, str(tmp_path / "down"))
    assert (tmp_path / "down" / "a" / "one.bin").read_bytes() == b"1234"
    assert (tmp_path / "down" / "two [1]*.txt").read_bytes() == b"56"
    assert len(list(tmp_path.rglob("*.pending"))) == 0
    copy_folder(str(tmp_path / "down"), "memory://bucket/up")
    copy_folder("memory://bucket/up", "memory://bucket/across")
    copy_file(f"{FOLDER}/a/one.bin", "memory://bucket/across/three.bin")
    names = [
        info.path.rpartition("across/")[2] for info in list_files("memory://bucket/across", "")
    ]
    assert names == ["a/one.bin", "three.bin", "two [1]*.txt"]
    remove_folder(FOLDER)
    assert not exists(f"{FOLDER}/a/one.bin")
    assert exists("memory://bucket/up/a/one.bin")
    remove_folder(FOLDER)  # it does not exist


def test_deleting_a_folder_expands_no_pattern(memory):
    for name in ("run[1]", "run1", "run*", "running"):
        write_bytes(f"memory://bucket/{name}/x", b"")
    remove_folder("memory://bucket/run[1]")
    remove_folder("memory://bucket/run*")
    assert sorted(memory.find("/bucket")) == ["/bucket/run1/x", "/bucket/running/x"]


def test_missing_and_large_remote_files_are_errors(memory):
    write_bytes(f"{FOLDER}/file", b"12345")
    with pytest.raises(MissingFileError, match=r"(?s)cannot read.*does not exist.*folder/none"):
        read_bytes(f"{FOLDER}/none")
    with pytest.raises(MissingFileError, match="does not exist"):
        list_files("memory://bucket/none", "")
    with pytest.raises(FileTooLargeError, match=r"(?s)5 bytes.*folder/file"):
        read_bytes(f"{FOLDER}/file", max_bytes=4)
    assert read_bytes(f"{FOLDER}/file", max_bytes=5) == b"12345"


def test_a_table_is_read_in_parts(memory):
    table = pa.table({"value": np.arange(1000)})
    write_table(f"{FOLDER}/t.parquet", table, rows_per_group=100)
    assert read_table(f"{FOLDER}/t.parquet").equals(table)
    assert open_file(f"{FOLDER}/t.parquet").read_row_group(3)["value"].to_pylist() == list(
        range(300, 400)
    )


def test_ray_copies_folders_with_the_filesystem(memory, tmp_path):
    """As Ray Train does, after the filesystem was sent to another process."""
    filesystem, path = filesystem_of(FOLDER)
    sent = pickle.loads(pickle.dumps(filesystem))  # noqa: S301
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "deep" / "x").write_bytes(b"x" * 3000)
    pafs.copy_files(
        str(tmp_path / "in"),
        path,
        source_filesystem=pafs.LocalFileSystem(),
        destination_filesystem=sent,
    )
    pafs.copy_files(
        path,
        str(tmp_path / "out"),
        source_filesystem=sent,
        destination_filesystem=pafs.LocalFileSystem(),
    )
    assert (tmp_path / "out" / "deep" / "x").read_bytes() == b"x" * 3000
    kinds = {info.path: info.type for info in sent.get_file_info(pafs.FileSelector(path))}
    assert kinds == {"/bucket/folder/deep": pafs.FileType.Directory}


def test_an_object_whose_name_leaves_the_target_is_not_copied(memory, tmp_path):
    memory.pipe_file("/bucket/folder/good", b"good")
    memory.store["/bucket/folder/../../outside"] = memory.store["/bucket/folder/good"]
    with pytest.raises(DataError, match="leaves the target folder"):
        copy_folder(FOLDER, str(tmp_path / "deep" / "target"))
    assert list(tmp_path.rglob("*")) == []


def test_a_read_of_a_range_is_one_request_for_exactly_its_bytes():
    requests: list[tuple[int, int]] = []
    content = bytes(range(200))

    def read_range(start: int, end: int) -> bytes:
        requests.append((start, end))
        return content[start:end]

    file = RangeFile(read_range, len(content))
    file.seek(-50, io.SEEK_END)
    assert file.read(10) == content[150:160]
    assert file.tell() == 160
    file.seek(0)
    assert file.read() == content
    assert file.read(5) == b""
    assert requests == [(150, 160), (0, 200)]


@pytest.mark.parametrize("scheme", ["gopher", "http", "https", "data", "local", "simplecache::s3"])
def test_other_schemes_are_refused(scheme: str):
    with pytest.raises(StorageError, match=r"(?s)not supported.*s3://, gs://, az://"):
        filesystem_of(f"{scheme}://host/x")


@pytest.mark.parametrize(
    "uri", ["az://c/a?b.png", "abfs://c/x?versionid=1", "s3://b/x?versionId=1"]
)
def test_a_path_that_a_client_would_cut_is_refused(uri: str):
    with pytest.raises(StorageError, match="would cut the path"):
        filesystem_of(uri)


def test_remote_uris_are_known():
    assert [is_remote(uri) for uri in ("a/b", "file:///a", "s3://b/x", "az://c")] == [
        False,
        False,
        True,
        True,
    ]


def test_a_password_in_a_uri_is_refused_and_not_repeated():
    with pytest.raises(StorageError, match="holds a password") as caught:
        filesystem_of(f"sftp://user:{SECRET}@host/x")
    assert SECRET not in str(caught.value)


MISSING = """
import sys
sys.modules.update(dict.fromkeys(["s3fs", "gcsfs", "adlfs"]))
from mmtpp.core.errors import StorageError
from mmtpp.storage.paths import read_bytes
for scheme in sys.argv[1:]:
    try:
        read_bytes(f"{scheme}://bucket/x")
    except StorageError as error:
        print(error.cause)
"""


def test_a_scheme_without_its_package_names_the_extra():
    """A name that is None in ``sys.modules`` cannot be imported, as if it were not installed."""
    done = subprocess.run(
        [sys.executable, "-c", MISSING, *EXTRAS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [
        f"pip install 'mmtpp[{extra}]'" for extra in EXTRAS.values()
    ]


def test_a_filesystem_that_is_sent_holds_no_credentials(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", SECRET)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", SECRET)
    for uri, module in (("s3://bucket/x", "s3fs"), ("az://container/x", "adlfs")):
        pytest.importorskip(module, reason="pip install 'mmtpp[aws,azure]'")
        filesystem, path = filesystem_of(uri)
        sent = pickle.dumps(filesystem)
        assert SECRET.encode() not in sent
        assert SECRET not in repr(filesystem)
        assert path == uri.partition("://")[2]


@pytest.mark.parametrize(
    ("uri", "error", "expected"),
    [
        ("s3://b/x", PermissionError("no"), "access denied.*AWS_PROFILE"),
        ("gs://b/x", PermissionError("no"), "access denied.*GOOGLE_APPLICATION_CREDENTIALS"),
        ("az://c/x", PermissionError("no"), "access denied.*AZURE_STORAGE_CONNECTION_STRING"),
        ("az://c/x", OSError("HTTP 403: AuthenticationFailed"), "AZURE_STORAGE_ACCOUNT_KEY"),
        ("gs://b/x", ConnectionError("refused"), "the endpoint does not answer"),
        ("s3://b/x", TimeoutError(), "the endpoint does not answer.*AWS_ENDPOINT_URL"),
        ("s3://b/x", OSError("NoSuchBucket"), "the bucket does not exist; create it"),
        ("/a -> s3://b/x", PermissionError("no"), "access denied.*AWS_ACCESS_KEY_ID"),
        ("/a", PermissionError("no"), "access denied.*the permissions of the file"),
    ],
)
def test_the_cause_of_an_error_fits_the_storage(uri: str, error: Exception, expected: str):
    with pytest.raises(StorageError, match=f"(?s){expected}"), storage_errors(uri, "read the file"):
        raise error


def test_signatures_in_the_urls_of_errors_are_removed():
    """A shared access signature of Azure is in the query of the URL."""
    message = f"cannot get https://account.blob.core.windows.net/c/x?sv=2024&sig={SECRET} (404)"
    with pytest.raises(StorageError) as caught, storage_errors("az://c/x", "read the file"):
        raise OSError(message)
    assert SECRET not in str(caught.value)
    assert "https://account.blob.core.windows.net/c/x (404)" in str(caught.value)
