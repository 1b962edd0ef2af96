"""The upload of a checkpoint while its storage is away."""

from pathlib import Path
from types import SimpleNamespace

import pyarrow.fs as pafs
import pytest
from ray.train import Checkpoint

from mmtpp.core.errors import StorageError
from mmtpp.storage.filesystems import filesystem_of
from mmtpp.train.checkpoints import upload


def _storage(uri: str, attempts: list[str]) -> SimpleNamespace:
    """A stand-in for Ray's storage, which copies the files as Ray does."""

    def persist(checkpoint: Checkpoint, name: str) -> Checkpoint:
        attempts.append(name)
        filesystem, path = filesystem_of(f"{uri}/{name}")
        filesystem.create_dir(path)
        pafs.copy_files(
            checkpoint.path,
            path,
            source_filesystem=pafs.LocalFileSystem(),
            destination_filesystem=filesystem,
        )
        return Checkpoint(path, filesystem)

    return SimpleNamespace(persist_current_checkpoint=persist, experiment_fs_path="b/runs/r")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "progress.json").write_text("{}")
    return Checkpoint(str(tmp_path / "checkpoint"))


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses of the upload, which take no time."""
    pauses: list[float] = []
    clock = SimpleNamespace(monotonic=lambda: sum(pauses), sleep=pauses.append)
    monkeypatch.setattr(upload, "time", clock)
    return pauses


def test_a_storage_that_refuses_connections_is_tried_again(
    checkpoint: Checkpoint, seconds: list[float], monkeypatch: pytest.MonkeyPatch
):
    """The client of S3 has errors of its own for it, which are no OSError."""
    monkeypatch.setattr("mmtpp.storage.s3.S3_ATTEMPTS", 1)
    for name, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "planted",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    attempts: list[str] = []
    monkeypatch.setattr(upload, "train_storage", lambda: _storage("s3://b/runs/r", attempts))
    with pytest.raises(StorageError, match=r"(?s)cannot be uploaded.*upload_timeout_s = 4") as info:
        upload.retrying_upload(4.0)(checkpoint, "checkpoint_1")
    assert (len(attempts), seconds) == (3, [1.0, 2.0])
    assert "planted" not in str(info.value)


def test_a_storage_that_returns_gets_the_checkpoint(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "runs").write_text("a file in the place of the folder")
    attempts: list[str] = []
    monkeypatch.setattr(upload, "train_storage", lambda: _storage(f"{tmp_path}/runs", attempts))
    monkeypatch.setattr("time.sleep", lambda seconds: (tmp_path / "runs").unlink())
    uploaded = upload.retrying_upload(60.0)(checkpoint, "checkpoint_1")
    assert uploaded.path == f"{tmp_path}/runs/checkpoint_1"
    assert attempts == ["checkpoint_1"] * 2
    assert (tmp_path / "runs" / "checkpoint_1" / "progress.json").exists()
