"""The configuration of a job: one frozen tree. The text below a setting is its help."""

from dataclasses import dataclass

from pydantic import model_validator

from mmtpp.config.data_settings import (
    Columns,
    Compression,
    Source,
    Split,
    Store,
    Taxi,
    Template,
    Window,
)
from mmtpp.config.evaluation_settings import Evaluation, Generation, Prediction
from mmtpp.config.model_settings import Lora, Model
from mmtpp.config.optimizer_settings import Optimizer, OptimizerPrecision, Rounding
from mmtpp.config.run_settings import Run, Tracking
from mmtpp.config.section import Section
from mmtpp.config.training_settings import LossWeights, TaskWeights, Training, Zero

__all__ = [
    "Columns",
    "Compression",
    "Evaluation",
    "Generation",
    "Lora",
    "LossWeights",
    "Model",
    "Optimizer",
    "OptimizerPrecision",
    "Prediction",
    "Rounding",
    "Run",
    "RunConfig",
    "SampleSections",
    "Section",
    "Source",
    "Split",
    "Store",
    "TaskWeights",
    "Taxi",
    "Template",
    "Tracking",
    "Training",
    "Window",
    "Zero",
]


MAX_BETA2_IN_BFLOAT16 = 1 - 2.0**-8


@dataclass(frozen=True, slots=True)
class SampleSections:
    """The sections that shape the samples of a store.

    Attributes:
        store: Location and cache of the store.
        compression: Compression of similar events.
        template: Template of an event.
        window: Windows that sequences are cut into.
        evaluation: Windows and targets of scored sequences.
        seed: Seed of the run, ``training.seed``.
    """

    store: Store
    compression: Compression
    template: Template
    window: Window
    evaluation: Evaluation
    seed: int


class RunConfig(Section):
    """The whole configuration of one job."""

    run: Run = Run()
    source: Source = Source()
    store: Store = Store()
    split: Split = Split()
    compression: Compression = Compression()
    template: Template = Template()
    window: Window = Window()
    model: Model = Model()
    lora: Lora = Lora()
    tasks: TaskWeights = TaskWeights()
    training: Training = Training()
    optimizer: Optimizer = Optimizer()
    optimizer_precision: OptimizerPrecision = OptimizerPrecision()
    zero: Zero = Zero()
    evaluation: Evaluation = Evaluation()
    generation: Generation = Generation()
    prediction: Prediction = Prediction()
    tracking: Tracking = Tracking()

    @property
    def sample_sections(self) -> SampleSections:
        """The sections that shape samples."""
        return SampleSections(
            store=self.store,
            compression=self.compression,
            template=self.template,
            window=self.window,
            evaluation=self.evaluation,
            seed=self.training.seed,
        )

    @property
    def shows_images(self) -> bool:
        """Whether the model may see images. If not, no rank runs the vision tower."""
        return self.template.images != "none"

    @property
    def trains_vision(self) -> bool:
        """Whether the vision tower is trained.

        Without images it has no gradient: it stays unchanged, and neither the optimiser nor a
        checkpoint contains it.
        """
        return self.shows_images and not (self.lora.rank or self.training.freeze_vision)

    @model_validator(mode="after")
    def _optimizer_fits_sharding(self) -> "RunConfig":
        optimizer, zero = self.optimizer, self.zero
        named = f"optimizer.name = {optimizer.name}"
        if optimizer.needs_matrices and (zero.stage == 3 or zero.offload):
            raise ValueError(
                f"{named} needs whole matrices on the device: set zero.stage to at most 2 and "
                f"zero.offload = false; here {zero.stage} and {str(zero.offload).lower()}"
            )
        if optimizer.variance_reduction and zero.stage == 3:
            raise ValueError(
                "optimizer.variance_reduction keeps a whole copy of the previous weights: "
                "zero.stage must be at most 2; here 3"
            )
        return self

    @model_validator(mode="after")
    def _second_moments_can_change(self) -> "RunConfig":
        optimizer = self.optimizer
        has_moments = optimizer.name in ("adamw", "muon") or (
            optimizer.name == "steepest" and optimizer.geometry == "schatten"
        )
        is_short = self.optimizer_precision.stored_states == "bfloat16"
        if has_moments and is_short and optimizer.beta2 > MAX_BETA2_IN_BFLOAT16:
            raise ValueError(
                "optimizer_precision.stored_states = bfloat16 has 8 bits of precision, too few "
                f"to change a second moment at optimizer.beta2 = {optimizer.beta2:g}: set "
                f"optimizer.beta2 to at most {MAX_BETA2_IN_BFLOAT16:g}, or "
                "optimizer_precision.stored_states = float32"
            )
        return self
