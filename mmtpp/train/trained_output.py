"""Writes the trained adapter or model: the result of a run, and the best model so far."""

import tempfile
from pathlib import Path

from mmtpp.model.event_model import save_trained
from mmtpp.model.folders.card import write_card
from mmtpp.model.folders.record import write_template
from mmtpp.soft.soft_folder import backbone_parameters, save_soft
from mmtpp.soft.soft_model import SoftModel
from mmtpp.storage.paths import copy_folder, join, list_files, remove_folder
from mmtpp.train.worker import Worker
from mmtpp.train.worker_inputs import WorkerInputs, best_uri


def save_output(worker: Worker, uri: str, *, steps: int) -> None:
    """Write the present adapter or model; all ranks must call this.

    Args:
        worker: This rank.
        uri: Folder to write.
        steps: Number of steps it was trained for.
    """
    parameters = worker.engine.whole_parameters()
    if worker.rank:
        return
    with tempfile.TemporaryDirectory() as folder:
        model = worker.engine.model
        if isinstance(model, SoftModel):
            save_soft(model, Path(folder), parameters)
            parameters = backbone_parameters(parameters)
        save_trained(
            model,
            worker.vocabulary,
            Path(folder),
            base=worker.provenance.model.path,
            parameters=parameters,
            companions=worker.companions,
        )
        write_template(worker.provenance.sections, Path(folder), worker.provenance.trained_tasks)
        write_card(worker.provenance, Path(folder), steps=steps)
        copy_folder(folder, uri)


def remove_other_bests(inputs: WorkerInputs, *, kept: int) -> None:
    """Delete former best models.

    Call this only at the end: an earlier checkpoint may still refer to one of them.

    Args:
        inputs: What the driver sent.
        kept: Step of the best model.
    """
    folder, _, name = best_uri(inputs.output_uri, kept).rpartition("/")
    prefix = name.removesuffix(f"{kept:06d}")
    names = {info.path.rpartition("/")[0].rpartition("/")[2] for info in list_files(folder, "")}
    for other in sorted(names):
        if other.startswith(prefix) and other != name:
            remove_folder(join(folder, other))
