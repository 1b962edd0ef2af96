"""Checkpoints: the training state, a part written by each rank, and the place in the run.

Ray merges the parts, uploads them and only then calls the checkpoint complete, so a half-written
one is never chosen.
"""

import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import ray.train

from mmtpp.core.errors import ModelError
from mmtpp.train.engine import Engine

PROGRESS_FILE = "progress.json"


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands; with the plan this is its whole cursor.

    Attributes:
        step: updates made.
        plan_fingerprint: of the samples and their order.
        vocabulary_hash: of the model.
    """

    step: int
    plan_fingerprint: str
    vocabulary_hash: str


def save(engine: Engine, progress: Progress, *, rank: int, metrics: dict[str, float]) -> None:
    """Write and report a checkpoint; a barrier for all ranks."""
    with tempfile.TemporaryDirectory() as folder:
        engine.save(Path(folder))
        if rank == 0:
            (Path(folder) / PROGRESS_FILE).write_text(json.dumps(asdict(progress)))
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))


def saved_step(checkpoint: ray.train.Checkpoint | None, *, expected: Progress) -> int:
    """Updates made when a checkpoint of this run was saved; 0 without one.

    Args:
        checkpoint: the newest of the run, or None for a fresh one.
        expected: what the checkpoint must agree with; its step is ignored.

    Raises:
        ModelError: the checkpoint belongs to other data or another vocabulary.
    """
    if checkpoint is None:
        return 0
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
    return found.step


def restore(engine: Engine, checkpoint: ray.train.Checkpoint | None, *, step: int) -> None:
    """Load the state of a checkpoint, if there is one, whose ``saved_step`` is known."""
    if checkpoint is None:
        return
    # A folder of this rank's own. `Checkpoint.as_directory` shares one among the processes of a
    # node, but a rank that arrives after the first download downloads again, over the files
    # which the other is reading.
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.to_directory(folder)
        engine.load(Path(folder), num_updates=step)
