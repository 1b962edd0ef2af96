"""Checkpoints: the training state, a part written by each rank, and the place in the run.

Training waits only until the parts are on the local disk. Ray merges and uploads them meanwhile and
only then calls the checkpoint complete, so a half-written one is never chosen.
"""

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import ray.train
from ray.train import Checkpoint, CheckpointUploadMode
from safetensors import SafetensorError

from mmtpp.core.errors import ModelError, StorageError
from mmtpp.storage.node_copy import node_copy
from mmtpp.storage.paths import join
from mmtpp.train.engine import Engine
from mmtpp.train.task import PROGRESS_FILE

logger = logging.getLogger(__name__)

BEST_BY = "validation/loss_per_token"


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands; with the plan this is its whole cursor.

    Attributes:
        step: updates made.
        plan_fingerprint: of the samples and their order.
        vocabulary_hash: of the model.
        best_step: of the best validation so far; 0 before the first.
        best_loss: of that validation, nats a token; 0 before the first.
    """

    step: int
    plan_fingerprint: str
    vocabulary_hash: str
    best_step: int = 0
    best_loss: float = 0.0

    def after_step(self) -> "Progress":
        """One update later."""
        return replace(self, step=self.step + 1)

    def with_scores(self, scores: dict[str, float]) -> "Progress":
        """The same after a validation: this step is the best one, or another still is."""
        loss = scores[BEST_BY]
        if self.best_step and self.best_loss <= loss:
            return self
        return replace(self, best_step=self.step, best_loss=loss)


def save(
    engine: Engine,
    progress: Progress,
    *,
    rank: int,
    run_uri: str,
    metrics: dict[str, float],
    patience_s: float,
    wait: bool = False,
) -> None:
    """Write and report a checkpoint; a call for all ranks.

    Args:
        engine: of this rank.
        progress: written by rank 0.
        rank: of this process.
        run_uri: the folder of the run, for ``remove_leftovers``.
        metrics: of the step.
        patience_s: how long the storage may be away before this fails.
        wait: for the upload too; else it goes on beside training.

    Raises:
        StorageError: no room on the local disk; in the upload, the storage stayed away.
    """
    folder = Path(tempfile.gettempdir())
    try:
        folder = Path(tempfile.mkdtemp(prefix=f"{_prefix(run_uri)}{os.getpid()}-"))
        engine.save(folder)
        if rank == 0:
            (folder / PROGRESS_FILE).write_text(json.dumps(asdict(progress)))
    except (OSError, SafetensorError) as error:
        if folder.name.startswith(_prefix(run_uri)):
            shutil.rmtree(folder, ignore_errors=True)  # its bytes are what is missing
        raise StorageError(
            f"the checkpoint of step {progress.step} cannot be written: {error}",
            where=str(folder),
            cause="the disk of this machine is full; TMPDIR chooses another",
        ) from error
    ray.train.report(
        metrics,
        checkpoint=Checkpoint.from_directory(str(folder)),
        checkpoint_upload_mode=CheckpointUploadMode.SYNC if wait else CheckpointUploadMode.ASYNC,
        delete_local_checkpoint_after_upload=True,
        checkpoint_upload_fn=_patient_upload(patience_s),
    )


def remove_leftovers(run_uri: str) -> None:
    """Delete the checkpoints that killed processes of a run left in the making on this machine."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_prefix(run_uri)}*"):
        if _is_alive(int(folder.name.removeprefix(_prefix(run_uri)).partition("-")[0])):
            continue
        logger.info("deleting %s, left by a process of this run that was killed", folder)
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


def _patient_upload(patience_s: float) -> Callable[[Checkpoint, str], Checkpoint]:
    """Ray's own upload, tried again while the storage is away."""
    storage: Any = ray.train.get_context().get_storage()  # here: the upload has its own thread
    deadline = time.monotonic() + patience_s  # here: Ray calls the upload up to three times

    def upload(checkpoint: Checkpoint, name: str) -> Checkpoint:
        pause_s = 1.0
        while True:
            try:
                return storage.persist_current_checkpoint(checkpoint, name)
            except (PermissionError, FileNotFoundError):
                raise  # waiting does not help
            except OSError as error:
                if time.monotonic() + pause_s > deadline:
                    raise StorageError(
                        f"the checkpoint cannot be uploaded: {error}",
                        where=f"{storage.experiment_fs_path}/{name}",
                        setting=f"training.upload_patience_s = {patience_s:g}",
                    ) from error
                logger.warning("upload of %s failed, again in %g s: %s", name, pause_s, error)
                time.sleep(pause_s)
                pause_s = min(60.0, 2 * pause_s)

    return upload


def saved_progress(checkpoint: Checkpoint | None, *, expected: Progress) -> Progress:
    """Where the run stood when a checkpoint was saved; ``expected`` without one.

    Args:
        checkpoint: the newest of the run, or None for a fresh one.
        expected: what the checkpoint must agree with; its step is ignored.

    Raises:
        ModelError: the checkpoint belongs to other data or another vocabulary.
    """
    if checkpoint is None:
        return expected
    path = f"{checkpoint.path}/{PROGRESS_FILE}"
    assert checkpoint.filesystem is not None
    with checkpoint.filesystem.open_input_stream(path) as stream:
        found = Progress(**json.loads(stream.read()))
    for name in ("plan_fingerprint", "vocabulary_hash"):
        saved, wanted = getattr(found, name), getattr(expected, name)
        if saved != wanted:
            raise ModelError(
                f"the checkpoint has {name} {saved}, this run has {wanted}",
                where=checkpoint.path,
                cause="the data or the template changed under the same run name; choose another "
                "run.name, or restore the setting",
            )
    return found


def restore(
    engine: Engine,
    checkpoint: Checkpoint | None,
    *,
    run_uri: str,
    step: int,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Load the state of a checkpoint, if there is one.

    Args:
        engine: of this rank.
        checkpoint: the newest of the run, or None for a fresh one.
        run_uri: the run's folder, in which the checkpoint is.
        step: after which it was saved.
        ready: called when this rank has its copy; waits for the others' without a timeout.
    """
    if checkpoint is None:
        return
    # Not `Checkpoint.as_directory`: of two ranks on a machine the later one may download again,
    # over the files which the other is reading.
    uri = join(run_uri, checkpoint.path.rpartition("/")[2])
    with (
        node_copy(uri, keep=False)
        if "://" in uri
        else nullcontext(Path(uri).expanduser()) as folder
    ):
        ready()
        engine.load(folder, num_updates=step)
