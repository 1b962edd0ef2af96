"""Checkpoints of an expert's training: all weights, the optimiser and the progress."""

import json
import logging
from pathlib import Path

import ray.train
from safetensors.torch import load, save_file

from mmtpp.core.errors import ModelError
from mmtpp.expert.fit import ExpertFit
from mmtpp.expert.fit_state import FitProgress
from mmtpp.train.checkpoints.local_checkpoint import report_checkpoint, write_local_checkpoint
from mmtpp.train.expert_inputs import ExpertInputs
from mmtpp.train.worker_inputs import PROGRESS_FILE

logger = logging.getLogger(__name__)

STATE_FILE = "expert_state.safetensors"


def save_expert_checkpoint(
    fit: ExpertFit,
    inputs: ExpertInputs,
    rank: int,
    metrics: dict[str, float],
    *,
    wait: bool = False,
) -> None:
    """Report a checkpoint; rank 0 writes it. All ranks must call this.

    Raises:
        StorageError: The local disk is full, or the storage stayed unreachable.
    """
    checkpoint = None
    if rank == 0:
        checkpoint = write_local_checkpoint(
            lambda folder: _write_state(fit, inputs, folder),
            run_uri=inputs.run.run_uri,
            step=fit.total_steps,
        )
    report_checkpoint(metrics, checkpoint, patience_s=inputs.upload_timeout_s, wait=wait)


def _write_state(fit: ExpertFit, inputs: ExpertInputs, folder: Path) -> None:
    save_file(fit.tensors(), folder / STATE_FILE)
    record = {"data_fingerprint": inputs.data_fingerprint, "fit": fit.progress.as_record()}
    (folder / PROGRESS_FILE).write_text(json.dumps(record))


def restore_expert_checkpoint(fit: ExpertFit, inputs: ExpertInputs) -> None:
    """Continue from the newest checkpoint of the run, if there is one.

    Raises:
        ModelError: The checkpoint belongs to other data, or to another version of this program.
    """
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return
    filesystem = checkpoint.filesystem
    assert filesystem is not None

    def read(name: str) -> bytes:
        with filesystem.open_input_stream(f"{checkpoint.path}/{name}") as stream:
            return stream.read()

    record = json.loads(read(PROGRESS_FILE))
    if record["data_fingerprint"] != inputs.data_fingerprint:
        raise ModelError(
            f"the checkpoint was trained on the data {record['data_fingerprint'][:16]}, the store "
            f"has {inputs.data_fingerprint[:16]}",
            where=checkpoint.path,
            cause="the store changed under the same run name; choose another run.name",
        )
    other_version = ModelError(
        "the checkpoint is of another version of this program",
        where=checkpoint.path,
        cause="an expert trains in minutes: start it again under another run.name",
    )
    if record["fit"].keys() != FitProgress().as_record().keys():
        raise other_version
    try:
        fit.restore(FitProgress.from_record(record["fit"]), load(read(STATE_FILE)))
    except (KeyError, RuntimeError) as error:  # the networks have other weights
        raise other_version from error
    logger.info("continuing after step %d", fit.total_steps)
