"""Writes the trained adapter or model: the result of a run, and the best model so far."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from mmtpp.model.event_model import save_trained
from mmtpp.model.folders.card import ModelProvenance, write_card
from mmtpp.model.folders.record import write_template
from mmtpp.model.tokens.vocabulary import Vocabulary
from mmtpp.soft.soft_folder import backbone_parameters, save_soft
from mmtpp.soft.soft_model import SoftModel
from mmtpp.storage.paths import copy_folder, join, list_files, remove_folder
from mmtpp.train.engine.deepspeed_engine import DeepSpeedEngine
from mmtpp.train.worker_inputs import best_uri


@dataclass(frozen=True, slots=True)
class OutputWriter:
    """Writes the present adapter or model of a training.

    Attributes:
        engine: Engine of this rank.
        rank: Rank of this process. Rank 0 writes.
        vocabulary: Vocabulary of the model.
        provenance: Settings that the folder records.
        companions: Small files of the base model that belong to a whole model.
        uri: Folder of the last model or adapter.
    """

    engine: DeepSpeedEngine
    rank: int
    vocabulary: Vocabulary
    provenance: ModelProvenance
    companions: dict[str, bytes]
    uri: str

    def save(self, *, steps: int) -> None:
        """Write the last model; all ranks must call this.

        Args:
            steps: Number of steps it was trained for.
        """
        self._save(self.uri, steps=steps)

    def save_best(self, *, steps: int) -> None:
        """Write the best model so far next to the last one; all ranks must call this.

        Args:
            steps: Number of steps it was trained for.
        """
        self._save(best_uri(self.uri, steps), steps=steps)

    def _save(self, uri: str, *, steps: int) -> None:
        parameters = self.engine.whole_parameters()
        if self.rank == 0:
            _write_folder(self, parameters, uri, steps=steps)

    def remove_other_bests(self, *, kept: int) -> None:
        """Delete former best models.

        Call this only at the end: an earlier checkpoint may still refer to one of them.

        Args:
            kept: Step of the best model.
        """
        if self.rank:
            return
        folder, _, name = best_uri(self.uri, kept).rpartition("/")
        prefix = name.removesuffix(f"{kept:06d}")
        names = {info.path.rpartition("/")[0].rpartition("/")[2] for info in list_files(folder, "")}
        for other in sorted(names):
            if other.startswith(prefix) and other != name:
                remove_folder(join(folder, other))


def _write_folder(
    writer: OutputWriter, parameters: dict[str, torch.Tensor], uri: str, *, steps: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        model = writer.engine.model
        if isinstance(model, SoftModel):
            save_soft(model, Path(folder), parameters)
            parameters = backbone_parameters(parameters)
        save_trained(
            model,
            writer.vocabulary,
            Path(folder),
            base=writer.provenance.model.path,
            parameters=parameters,
            companions=writer.companions,
        )
        write_template(writer.provenance.sections, Path(folder), writer.provenance.trained_tasks)
        write_card(writer.provenance, Path(folder), steps=steps)
        copy_folder(folder, uri)
