"""The configuration of a job: one frozen tree. The text below a setting is its help."""

from dataclasses import dataclass

from pydantic import model_validator

from mmtpp.config.data_settings import (
    ColumnsSection,
    CompressionSection,
    SourceSection,
    SplitSection,
    StoreSection,
    TaxiSection,
    TemplateSection,
    WindowSection,
)
from mmtpp.config.evaluation_settings import EvaluationSection, GenerationSection, PredictionSection
from mmtpp.config.expert_settings import ExpertSection
from mmtpp.config.model_settings import LoraSection, ModelSection
from mmtpp.config.optimizer_settings import (
    OptimizerPrecisionSection,
    OptimizerSection,
    RoundingSection,
)
from mmtpp.config.run_settings import RunSection, TrackingSection
from mmtpp.config.section import Section
from mmtpp.config.stream_settings import StreamSection
from mmtpp.config.training_settings import LossWeights, TaskWeights, TrainingSection, ZeroSection
from mmtpp.config.update_settings import PrequentialSection, UpdateSection
from mmtpp.core.model_kind import ModelKind
from mmtpp.core.representation.style_layout import SOFT

__all__ = [
    "ColumnsSection",
    "CompressionSection",
    "EvaluationSection",
    "ExpertSection",
    "GenerationSection",
    "LoraSection",
    "LossWeights",
    "ModelSection",
    "OptimizerPrecisionSection",
    "OptimizerSection",
    "PredictionSection",
    "PrequentialSection",
    "RoundingSection",
    "RunConfig",
    "RunSection",
    "SampleSections",
    "Section",
    "SourceSection",
    "SplitSection",
    "StoreSection",
    "StreamSection",
    "TaskWeights",
    "TaxiSection",
    "TemplateSection",
    "TrackingSection",
    "TrainingSection",
    "UpdateSection",
    "WindowSection",
    "ZeroSection",
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

    store: StoreSection
    compression: CompressionSection
    template: TemplateSection
    window: WindowSection
    evaluation: EvaluationSection
    seed: int


class RunConfig(Section):
    """The whole configuration of one job."""

    run: RunSection = RunSection()
    source: SourceSection = SourceSection()
    store: StoreSection = StoreSection()
    split: SplitSection = SplitSection()
    compression: CompressionSection = CompressionSection()
    template: TemplateSection = TemplateSection()
    window: WindowSection = WindowSection()
    model: ModelSection = ModelSection()
    lora: LoraSection = LoraSection()
    expert: ExpertSection = ExpertSection()
    update: UpdateSection = UpdateSection()
    prequential: PrequentialSection = PrequentialSection()
    tasks: TaskWeights = TaskWeights()
    training: TrainingSection = TrainingSection()
    optimizer: OptimizerSection = OptimizerSection()
    optimizer_precision: OptimizerPrecisionSection = OptimizerPrecisionSection()
    zero: ZeroSection = ZeroSection()
    evaluation: EvaluationSection = EvaluationSection()
    generation: GenerationSection = GenerationSection()
    prediction: PredictionSection = PredictionSection()
    stream: StreamSection = StreamSection()
    tracking: TrackingSection = TrackingSection()

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
    def model_kind(self) -> ModelKind:
        """Kind of the model that a training makes.

        For a model that exists, ask ``mmtpp.model.folders.description``.
        """
        if self.model.preset == "expert":
            return ModelKind.EXPERT
        return ModelKind.SOFT if self.template.style == SOFT else ModelKind.LANGUAGE_MODEL

    @property
    def is_trained_by_pretrain(self) -> bool:
        """Whether ``pretrain`` alone trains a model that forecasts: an expert, or soft tokens."""
        return self.model_kind != ModelKind.LANGUAGE_MODEL

    @property
    def trains_vision(self) -> bool:
        """Whether the vision tower is trained.

        Without images it has no gradient: it stays unchanged, and neither the optimiser nor a
        checkpoint contains it.
        """
        return self.shows_images and not (self.lora.rank or self.training.freeze_vision)

    @property
    def shows_blank_frame(self) -> bool:
        """Whether a row without frames gets a black frame.

        A trained tower needs a gradient from every rank, and with ZeRO-3 all ranks run the same
        modules, because each of them holds a shard of the weights.
        """
        return self.trains_vision or (self.shows_images and self.zero.stage == 3)

    @model_validator(mode="after")
    def _optimizer_fits_sharding(self) -> "RunConfig":
        optimizer, zero = self.optimizer, self.zero
        named = f"optimizer.name = {optimizer.name}"
        if optimizer.rule.needs_matrices and (zero.stage == 3 or zero.offload):
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
        is_short = self.optimizer_precision.stored_states == "bfloat16"
        if optimizer.rule.has_moments and is_short and optimizer.beta2 > MAX_BETA2_IN_BFLOAT16:
            raise ValueError(
                "optimizer_precision.stored_states = bfloat16 has 8 bits of precision, too few "
                f"to change a second moment at optimizer.beta2 = {optimizer.beta2:g}: set "
                f"optimizer.beta2 to at most {MAX_BETA2_IN_BFLOAT16:g}, or "
                "optimizer_precision.stored_states = float32"
            )
        return self
