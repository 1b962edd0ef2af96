"""What the steps of one evaluation share: settings, model, events and the folder of the results."""

from collections.abc import Mapping
from dataclasses import dataclass

from mmtpp.config.schema import EvaluationSection, RunConfig
from mmtpp.data.prepared_store import PreparedStore
from mmtpp.data.samples.actors import ActorPool
from mmtpp.data.samples.sample_settings import SampleSettings
from mmtpp.inference.model_sections import build_generation_settings, build_model_location
from mmtpp.model.decoding.generation import GenerationSettings
from mmtpp.model.folders.record import TrainedTasks
from mmtpp.model.loaded_model import ModelLocation
from mmtpp.model.tokens.vocabulary import Vocabulary
from mmtpp.runtime.hardware import Hardware
from mmtpp.storage.manifest import Manifest
from mmtpp.storage.paths import join


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationContext:
    """One evaluation: which model is scored on which events, and where the results go.

    Attributes:
        evaluation: Section ``evaluation`` of the settings.
        held_out_sample_settings: Settings of the held-out samples, without questions.
        training_sample_settings: Settings of the training samples; events before
            ``window.time_from`` are included, because baselines may know them, as models do.
        location: Where the model is loaded from.
        manifest: Manifest of the store.
        vocabulary: Vocabulary of the store and of the model.
        generation: Settings of written texts.
        actors: Number and resources of the actors that hold the model.
        task_labels: Ray labels of the machines that fit the baselines.
        store_uri: Path of the store.
        run_uri: Folder of the results.
    """

    evaluation: EvaluationSection
    held_out_sample_settings: SampleSettings
    training_sample_settings: SampleSettings
    location: ModelLocation
    manifest: Manifest
    vocabulary: Vocabulary
    generation: GenerationSettings
    actors: ActorPool
    task_labels: Mapping[str, str]
    store_uri: str
    run_uri: str

    @classmethod
    def from_config(
        cls,
        config: RunConfig,
        store: PreparedStore,
        *,
        held_out_sample_settings: SampleSettings,
        training_sample_settings: SampleSettings,
        hardware: Hardware,
        run_uri: str,
    ) -> "EvaluationContext":
        """Gather what an evaluation needs from the settings of the job.

        Args:
            config: The whole configuration.
            store: The store.
            held_out_sample_settings: Settings of the held-out samples, without questions.
            training_sample_settings: Settings of the training samples.
            hardware: Device and precision of the model.
            run_uri: Folder of the results.
        """
        return cls(
            evaluation=config.evaluation,
            held_out_sample_settings=held_out_sample_settings,
            training_sample_settings=training_sample_settings,
            location=build_model_location(
                config.model, store.manifest.vocabulary_hash, precision=hardware.precision
            ),
            manifest=store.manifest,
            vocabulary=store.vocabulary,
            generation=build_generation_settings(config.generation),
            actors=ActorPool.from_settings(
                config.training,
                hardware,
                windows_per_batch=config.evaluation.windows_per_batch,
                patience_s=config.run.wait_for_machines_s,
            ),
            task_labels=config.store.machine_labels,
            store_uri=store.uri,
            run_uri=run_uri,
        )

    @property
    def seed(self) -> int:
        """Seed of the bootstrap and of all random draws."""
        return self.held_out_sample_settings.seed

    def all_types(self, trained_tasks: TrainedTasks) -> tuple[int, ...]:
        """Codes of the types that occur in the store or that the model was trained on, in order."""
        return tuple(sorted({*trained_tasks.type_codes, *self.manifest.occurring_types}))

    def path(self, name: str) -> str:
        """Path of a file or folder among the results."""
        return join(self.run_uri, name)
