"""Checkpoints: the training state, one file per rank, and the progress of the run.

Training waits only until the files are on the local disk. Ray merges and uploads them in the
background and calls the checkpoint complete only then, so a partial one is never chosen.
"""

import json
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import ray.train
from ray.train import Checkpoint

from mmtpp.core.errors import ModelError
from mmtpp.core.training.training_metrics import VALIDATION_WEIGHTED_LOSS
from mmtpp.storage.node_copy import node_copy
from mmtpp.storage.paths import join
from mmtpp.train.checkpoints.local_checkpoint import report_checkpoint, write_local_checkpoint
from mmtpp.train.engine.deepspeed_engine import DeepSpeedEngine
from mmtpp.train.worker_inputs import PROGRESS_FILE

BEST_BY = VALIDATION_WEIGHTED_LOSS


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """Progress of a run. Together with the plan it determines all later steps.

    Attributes:
        step: Number of updates made.
        plan_fingerprint: Fingerprint of the samples and their order.
        vocabulary_hash: Hash of the model's vocabulary.
        best_step: Step of the best validation so far; 0 before the first validation.
        best_loss: Value of ``best_by`` at the best validation; 0 before the first validation.
        best_by: Metric that chose the best step; empty before the first validation. An earlier
            version chose by another one, and did not record it.
    """

    step: int
    plan_fingerprint: str
    vocabulary_hash: str
    best_step: int = 0
    best_loss: float = 0.0
    best_by: str = ""

    def after_step(self) -> "TrainingProgress":
        """The progress after one more update."""
        return replace(self, step=self.step + 1)

    def with_validation(self, validation: dict[str, float]) -> "TrainingProgress":
        """The progress after a validation, which may make this step the best one.

        Without a validation label of positive weight, no step is the best; a loss that is not
        finite makes no step the best.
        """
        loss = validation.get(BEST_BY, math.nan)
        is_comparable = self.best_step > 0 and self.best_by == BEST_BY
        if not math.isfinite(loss) or (is_comparable and self.best_loss <= loss):
            return self
        return replace(self, best_step=self.step, best_loss=loss, best_by=BEST_BY)


@dataclass(frozen=True, slots=True)
class CheckpointWriter:
    """Reports to Ray Train, with the checkpoints of a rank or without one.

    Attributes:
        engine: Engine of this rank.
        rank: Rank of this process. Rank 0 writes the progress of the run.
        run_uri: Folder of the run.
        patience_s: Seconds to retry an upload while the storage is unreachable.
    """

    engine: DeepSpeedEngine
    rank: int
    run_uri: str
    patience_s: float

    def save(
        self, progress: TrainingProgress, metrics: dict[str, float], *, wait: bool = False
    ) -> None:
        """Write and report a checkpoint; all ranks must call this.

        Args:
            progress: Progress of the run.
            metrics: Metrics to report with the checkpoint.
            wait: Whether to wait for the upload; otherwise it runs in the background.

        Raises:
            StorageError: The local disk is full, or the storage stayed unreachable.
        """

        def write(folder: Path) -> None:
            self.engine.save(folder)
            if self.rank == 0:
                (folder / PROGRESS_FILE).write_text(json.dumps(asdict(progress)))

        checkpoint = write_local_checkpoint(write, run_uri=self.run_uri, step=progress.step)
        report_checkpoint(metrics, checkpoint, patience_s=self.patience_s, wait=wait)

    def report(self, metrics: dict[str, float]) -> None:
        """Report metrics without a checkpoint; all ranks must call this."""
        ray.train.report(metrics)


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
        engine.load(folder, num_steps=step)
