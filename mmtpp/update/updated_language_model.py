"""The update of a fine-tuned language model, which is compared by its forecasts."""

from collections.abc import Mapping
from dataclasses import replace

import pyarrow as pa

from mmtpp.config.load import with_values
from mmtpp.data.samples.sample_settings import NewTargets
from mmtpp.evaluate.check_model import check_model
from mmtpp.evaluate.context import EvaluationContext
from mmtpp.evaluate.evaluation_start import start_evaluation
from mmtpp.evaluate.kinds.evaluated_language_model import EvaluatedLanguageModel
from mmtpp.model.folders.record import TrainedTasks, load_trained_tasks
from mmtpp.train.launch.run_folder import identify_run
from mmtpp.update.language_model_checks import check_tasks, check_update_events, continue_config
from mmtpp.update.target_losses import target_losses
from mmtpp.update.updated_model import PresentModel, UpdatedModel

_COMPARED = {
    "evaluation.split": "test",
    "evaluation.max_sequences": 0,
    "evaluation.num_futures": 0,
    "evaluation.num_generated_texts": 0,
}


class UpdatedLanguageModel(UpdatedModel):
    """A language model, or its adapter, that is continued as by ``finetune``.

    With ``model.expert`` the mixtures with this expert are compared; expert and gate stay.
    """

    def __init__(self, present: PresentModel) -> None:
        self._present = present
        self.config = continue_config(present)
        self._compared = with_values(self.config, _COMPARED)
        self._description = check_model(self._compared, present.store)
        self.trained_tasks = check_tasks(self.config, self._description.trained_tasks)
        check_update_events(present, self.trained_tasks)
        self._context: EvaluationContext | None = None

    def read_new_events(self) -> None:
        store = self._present.store
        run = identify_run(self.config, "update", store_fingerprint=store.manifest.fingerprint)
        context = start_evaluation(self._compared, store, self._description, run)
        sample_settings = replace(
            context.held_out_sample_settings, new_targets=NewTargets(self._present.new_from)
        )
        self._context = replace(context, held_out_sample_settings=sample_settings)
        EvaluatedLanguageModel(self._context, self.trained_tasks).plan_targets()

    def updated_settings(self, result: Mapping[str, object]) -> dict[str, str]:
        """The model with the best validation; without several validations, the last one."""
        for kind, setting in (("adapter", "model.adapter"), ("model", "model.path")):
            if f"{kind}_uri" in result:
                uri = result.get(f"best_{kind}_uri", result[f"{kind}_uri"])
                return {"model.path": self.config.model.path, setting: str(uri)}
        raise AssertionError("the result of a training names a model or an adapter")

    def losses(self, updated: Mapping[str, str]) -> tuple[pa.Table, pa.Table]:
        context = self._context
        assert context is not None  # read_new_events was called
        tasks = load_trained_tasks(updated.get("model.adapter", updated["model.path"]))
        assert tasks is not None  # the training wrote it
        location = replace(
            context.location,
            model_uri=updated["model.path"],
            adapter_uri=updated.get("model.adapter", ""),
        )
        before = _forecast(context, self.trained_tasks)
        after = _forecast(replace(context, location=location), tasks)
        return before, after


def _forecast(context: EvaluationContext, tasks: TrainedTasks) -> pa.Table:
    targets = EvaluatedLanguageModel(context, tasks).forecast_targets()
    return target_losses(targets, tick=context.manifest.tick)
