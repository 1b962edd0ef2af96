"""Checkpoints on the local disk: write, report to Ray Train, and clean up after killed jobs."""

import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import ray.train
from ray.train import Checkpoint, CheckpointUploadMode
from safetensors import SafetensorError

from mmtpp.core.errors import StorageError
from mmtpp.train.checkpoints.upload import retrying_upload

logger = logging.getLogger(__name__)


def write_local_checkpoint(write: Callable[[Path], None], *, run_uri: str, step: int) -> Checkpoint:
    """Write the files of a checkpoint into a new temporary folder.

    Args:
        write: Writes this rank's files into a folder.
        run_uri: Folder of the run, which gives the temporary folder its name.
        step: Step that the checkpoint is saved after.

    Raises:
        StorageError: The local disk is full. The partial files are removed.
    """
    folder = Path(tempfile.gettempdir())
    try:
        folder = Path(tempfile.mkdtemp(prefix=f"{_prefix(run_uri)}{os.getpid()}-"))
        write(folder)
    except (OSError, SafetensorError) as error:
        if folder.name.startswith(_prefix(run_uri)):
            shutil.rmtree(folder, ignore_errors=True)  # frees the space it took
        raise StorageError(
            f"the checkpoint of step {step} cannot be written: {error}",
            where=str(folder),
            cause="the disk of this machine is full",
            setting=f"TMPDIR in the environment, now {tempfile.gettempdir()}",
        ) from error
    return Checkpoint.from_directory(str(folder))


def report_checkpoint(
    metrics: dict[str, float], checkpoint: Checkpoint | None, *, patience_s: float, wait: bool
) -> None:
    """Report a checkpoint to Ray Train, which uploads it; all ranks must call this.

    Args:
        metrics: Metrics to report with the checkpoint.
        checkpoint: This rank's files, deleted after the upload; None if this rank has none.
        patience_s: Seconds to retry the upload while the storage is unreachable.
        wait: Whether to wait for the upload; otherwise it runs in the background.

    Raises:
        StorageError: With ``wait``, the storage stayed unreachable.
    """
    ray.train.report(
        metrics,
        checkpoint=checkpoint,
        checkpoint_upload_mode=CheckpointUploadMode.SYNC if wait else CheckpointUploadMode.ASYNC,
        delete_local_checkpoint_after_upload=True,
        checkpoint_upload_fn=retrying_upload(patience_s),
    )


def remove_leftovers(run_uri: str) -> None:
    """Delete partial checkpoints that killed processes of a run left on this machine."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_prefix(run_uri)}*"):
        if _is_alive(int(folder.name.removeprefix(_prefix(run_uri)).partition("-")[0])):
            continue
        logger.info("deleting %s, left by a killed process of this run", folder)
        shutil.rmtree(folder, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _prefix(run_uri: str) -> str:
    return f"mmtpp-checkpoint-{hashlib.sha256(run_uri.encode()).hexdigest()[:16]}-"
