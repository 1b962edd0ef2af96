"""The update of a temporal expert, which is compared by its densities of the new events."""

from collections.abc import Mapping, Sequence

import pyarrow as pa

from mmtpp.config.load import with_values
from mmtpp.core.errors import DataError, ModelError
from mmtpp.data.from_config import build_sample_settings
from mmtpp.evaluate.check_model import check_model
from mmtpp.expert.expert_folder import load_expert
from mmtpp.expert.new_events import targets_between
from mmtpp.expert.next_events import ScoredSequence
from mmtpp.expert.read_sequences import SequenceSettings, read_sequences
from mmtpp.runtime.block_tasks import map_blocks
from mmtpp.update.sequence_losses import sequence_losses
from mmtpp.update.updated_model import PresentModel, UpdatedModel


class UpdatedExpert(UpdatedModel):
    """An expert that is continued."""

    def __init__(self, present: PresentModel) -> None:
        self._present = present
        self.config = with_values(present.config, {"model.preset": "expert", "model.path": ""})
        checked = with_values(self.config, {"model.path": present.folder})
        tasks = check_model(checked, present.store).trained_tasks
        if tasks is None:
            raise ModelError(
                "the folder has no record of the types of the expert", where=present.folder
            )
        self.trained_tasks = tasks
        self._held_out: list[ScoredSequence] = []

    def read_new_events(self) -> None:
        present = self._present
        expert = load_expert(present.folder)
        sample_settings = build_sample_settings(
            self.config.sample_sections, present.store.manifest, split="test", reads_template=False
        )
        settings = SequenceSettings(
            sample_settings, self.trained_tasks.type_codes, expert.texts, expert.reads_images
        )
        self._held_out = targets_between(read_sequences(settings), present.new_from, None)
        if not self._held_out:
            raise DataError(
                "no test event is new, so the updated expert could not be compared",
                where=present.store.uri,
                cause="the store ends before the time from which events are new, or it has no test "
                "split",
                setting=f"update.new_from = {self.config.update.new_from}, "
                f"window.time_to = {self.config.window.time_to}",
            )

    def updated_settings(self, result: Mapping[str, object]) -> dict[str, str]:
        return {"model.path": str(result["model_uri"])}

    def losses(self, updated: Mapping[str, str]) -> tuple[pa.Table, pa.Table]:
        before, after = map_blocks(
            _score,
            self._held_out,
            [self._present.folder, updated["model.path"]],
            machine_labels=self.config.store.machine_labels,
            title="compare",
        )
        return before, after


def _score(held_out: Sequence[ScoredSequence], model_uri: str) -> pa.Table:
    return sequence_losses(load_expert(model_uri), held_out)
