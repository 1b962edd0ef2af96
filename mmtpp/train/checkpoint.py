"""Checkpoints: the training state, one part per rank, and the progress of the run.

Training waits only until the parts are on the local disk. Ray merges and uploads them in the
background and calls the checkpoint complete only then, so a partial one is never chosen.
"""

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import ray.train
from ray.train import Checkpoint, CheckpointUploadMode
from safetensors import SafetensorError

from mmtpp.core.errors import ModelError, StorageError
from mmtpp.core.training.training_metrics import VALIDATION_LOSS
from mmtpp.storage.node_copy import node_copy
from mmtpp.storage.paths import join
from mmtpp.train.engine import DeepSpeedEngine
from mmtpp.train.upload import retrying_upload
from mmtpp.train.worker_inputs import PROGRESS_FILE

logger = logging.getLogger(__name__)

BEST_BY = VALIDATION_LOSS


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """Progress of a run. Together with the plan it determines all later steps.

    Attributes:
        step: Number of updates made.
        plan_fingerprint: Fingerprint of the samples and their order.
        vocabulary_hash: Hash of the model's vocabulary.
        best_step: Step of the best validation so far; 0 before the first validation.
        best_loss: Loss of the best validation in nats per token; 0 before the first validation.
    """

    step: int
    plan_fingerprint: str
    vocabulary_hash: str
    best_step: int = 0
    best_loss: float = 0.0

    def after_step(self) -> "TrainingProgress":
        """The progress after one more update."""
        return replace(self, step=self.step + 1)

    def with_scores(self, scores: dict[str, float]) -> "TrainingProgress":
        """The progress after a validation, which may make this step the best one."""
        loss = scores[BEST_BY]
        if self.best_step and self.best_loss <= loss:
            return self
        return replace(self, best_step=self.step, best_loss=loss)


def save_checkpoint(
    engine: DeepSpeedEngine,
    progress: TrainingProgress,
    *,
    rank: int,
    run_uri: str,
    metrics: dict[str, float],
    patience_s: float,
    wait: bool = False,
) -> None:
    """Write and report a checkpoint; all ranks must call this.

    Args:
        engine: Engine of this rank.
        progress: Progress of the run, written by rank 0.
        rank: Rank of this process.
        run_uri: Folder of the run.
        metrics: Metrics to report with the checkpoint.
        patience_s: Seconds to retry the upload while the storage is unreachable.
        wait: Whether to wait for the upload; otherwise it runs in the background.

    Raises:
        StorageError: The local disk is full, or the storage stayed unreachable.
    """
    folder = Path(tempfile.gettempdir())
    try:
        folder = Path(tempfile.mkdtemp(prefix=f"{_prefix(run_uri)}{os.getpid()}-"))
        engine.save(folder)
        if rank == 0:
            (folder / PROGRESS_FILE).write_text(json.dumps(asdict(progress)))
    except (OSError, SafetensorError) as error:
        if folder.name.startswith(_prefix(run_uri)):
            shutil.rmtree(folder, ignore_errors=True)  # frees the space it took
        raise StorageError(
            f"the checkpoint of step {progress.step} cannot be written: {error}",
            where=str(folder),
            cause="the disk of this machine is full",
            setting=f"TMPDIR in the environment, now {tempfile.gettempdir()}",
        ) from error
    ray.train.report(
        metrics,
        checkpoint=Checkpoint.from_directory(str(folder)),
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


def load_progress(checkpoint: Checkpoint | None, *, fresh: TrainingProgress) -> TrainingProgress:
    """The progress that a checkpoint was saved with.

    Args:
        checkpoint: Newest checkpoint of the run; None for a fresh run.
        fresh: Progress of a new run, returned if there is no checkpoint. The checkpoint must have
            its fingerprint and its hash.

    Raises:
        ModelError: The checkpoint belongs to other data or another vocabulary.
    """
    if checkpoint is None:
        return fresh
    path = f"{checkpoint.path}/{PROGRESS_FILE}"
    assert checkpoint.filesystem is not None
    with checkpoint.filesystem.open_input_stream(path) as stream:
        progress = TrainingProgress(**json.loads(stream.read()))
    for name in ("plan_fingerprint", "vocabulary_hash"):
        saved, present = getattr(progress, name), getattr(fresh, name)
        if saved != present:
            raise ModelError(
                f"the checkpoint has {name} {saved}, this run has {present}",
                where=checkpoint.path,
                cause="the data or the template changed under the same run name; choose another "
                "run.name, or restore the setting",
            )
    return progress


def restore_checkpoint(
    engine: DeepSpeedEngine,
    checkpoint: Checkpoint | None,
    *,
    run_uri: str,
    step: int,
    wait_for_ranks: Callable[[], None] = lambda: None,
) -> None:
    """Load the state of a checkpoint; does nothing for a fresh run.

    Args:
        engine: Engine of this rank.
        checkpoint: Newest checkpoint of the run; None for a fresh run.
        run_uri: Folder that contains the checkpoint.
        step: Step after which it was saved.
        wait_for_ranks: Called after this rank has copied the checkpoint; it waits for all ranks.
    """
    if checkpoint is None:
        return
    # Not `Checkpoint.as_directory`: of two ranks on one machine, the later one may download again,
    # over files that the other rank is reading.
    uri = join(run_uri, checkpoint.path.rpartition("/")[2])
    with (
        node_copy(uri, keep=False)
        if "://" in uri
        else nullcontext(Path(uri).expanduser()) as folder
    ):
        wait_for_ranks()
        engine.load(folder, num_updates=step)
