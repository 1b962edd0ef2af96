"""Checkpoints on a full disk and after a killed process, of a language model and of an expert."""

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from safetensors.torch import save_file

from mmtpp.core.errors import StorageError
from mmtpp.train import expert_loop
from mmtpp.train.checkpoints.checkpoint import CheckpointWriter, TrainingProgress
from mmtpp.train.checkpoints.expert_checkpoint import save_expert_checkpoint
from mmtpp.train.checkpoints.local_checkpoint import remove_leftovers
from mmtpp.train.engine.deepspeed_engine import DeepSpeedEngine
from mmtpp.train.expert_inputs import ExpertInputs

Tensors = Callable[[], dict[str, torch.Tensor]]


def _save_language_model(tensors: Tensors, run_uri: str) -> None:
    """Save a checkpoint of step 7."""

    def save(folder: Path) -> None:
        (folder / "first_part").write_bytes(b"half")
        save_file(tensors(), folder / "state.safetensors")

    engine = cast(DeepSpeedEngine, SimpleNamespace(save=save))
    writer = CheckpointWriter(engine, rank=0, run_uri=run_uri, patience_s=1.0)
    writer.save(TrainingProgress(7, "p", "v"), {})


def _expert_inputs(run_uri: str) -> ExpertInputs:
    run = SimpleNamespace(run_uri=run_uri)
    values = SimpleNamespace(run=run, tracking=None, data_fingerprint="d", upload_timeout_s=1.0)
    return cast(ExpertInputs, values)


def _save_expert(tensors: Tensors, run_uri: str) -> None:
    """Save a checkpoint of update 7."""
    fit: Any = SimpleNamespace(total_steps=7, is_finished=False, tensors=tensors)
    save_expert_checkpoint(fit, _expert_inputs(run_uri), 0, {})


SAVE = pytest.mark.parametrize("save", [_save_language_model, _save_expert])


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A real file system of 256 KiB with the temporary folders of this process."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(small)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"this user may not mount a file system: {mounted.stderr.strip()}")
    monkeypatch.setattr("tempfile.tempdir", str(small))
    yield small
    subprocess.run(["umount", str(small)], check=True)


@SAVE
def test_a_full_disk_is_reported_and_its_partial_files_are_removed(
    save: Callable[[Tensors, str], None], small_disk: Path
):
    with pytest.raises(StorageError, match=r"(?s)step 7 cannot be written.*No space.*TMPDIR"):
        save(lambda: {"weight": torch.zeros(10**6)}, "run")
    assert list(small_disk.iterdir()) == []


def _killed() -> dict[str, torch.Tensor]:
    raise KeyboardInterrupt


@dataclass(frozen=True, slots=True)
class Leftovers:
    """Partial checkpoints of a process that has ended.

    Attributes:
        folder: Folder with the temporary folders of all processes.
        pid: Id of the ended process.
    """

    folder: Path
    pid: int

    def add(
        self, save: Callable[[Tensors, str], None], run_uri: str, patch: pytest.MonkeyPatch
    ) -> None:
        """Leave the partial checkpoint of a run."""
        with patch.context() as context:
            context.setattr(os, "getpid", lambda: self.pid)
            with pytest.raises(KeyboardInterrupt):
                save(_killed, run_uri)

    def count(self) -> int:
        """Number of folders that are left."""
        return len(list(self.folder.iterdir()))


@pytest.fixture
def leftovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Leftovers:
    """No partial checkpoints, and an ended process."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ended = subprocess.Popen(["true"])
    ended.wait()
    return Leftovers(tmp_path, ended.pid)


@SAVE
def test_files_of_a_killed_process_are_removed_only_for_its_run(
    save: Callable[[Tensors, str], None], leftovers: Leftovers, monkeypatch: pytest.MonkeyPatch
):
    for run in ("one", "two"):
        leftovers.add(save, run, monkeypatch)
    assert leftovers.count() == 2
    remove_leftovers("one")
    assert leftovers.count() == 1
    remove_leftovers("two")
    assert leftovers.count() == 0


@SAVE
def test_files_of_a_living_process_are_kept(
    save: Callable[[Tensors, str], None], leftovers: Leftovers
):
    with pytest.raises(KeyboardInterrupt):
        save(_killed, "run")
    remove_leftovers("run")
    assert leftovers.count() == 1


@pytest.mark.parametrize(("local_rank", "num_left"), [(0, 1), (1, 2)])
def test_one_rank_of_a_machine_removes_the_files_of_its_expert(
    local_rank: int, num_left: int, leftovers: Leftovers, monkeypatch: pytest.MonkeyPatch
):
    """The other folder belongs to a run that the machine trains at the same time."""

    def stop(*_: object) -> None:
        raise InterruptedError

    for run in ("run", "another run"):
        leftovers.add(_save_expert, run, monkeypatch)
    ranks = SimpleNamespace(
        get_world_rank=lambda: local_rank,
        get_world_size=lambda: 2,
        get_local_rank=lambda: local_rank,
    )
    monkeypatch.setattr("ray.train.get_context", lambda: ranks)
    monkeypatch.setattr(expert_loop, "start_logging", lambda _: None)
    monkeypatch.setattr(expert_loop, "build_fit", stop)
    with pytest.raises(InterruptedError):
        expert_loop.train_expert(_expert_inputs("run"), None)
    assert leftovers.count() == num_left
