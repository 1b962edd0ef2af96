"""Builds the model of a rank and the DeepSpeed engine that trains it, from the configuration."""

from dataclasses import dataclass

import ray.train.collective

from mmtpp.config.schema import (
    LoraSection,
    ModelSection,
    OptimizerPrecisionSection,
    OptimizerSection,
    TrainingSection,
    ZeroSection,
)
from mmtpp.model.event_model import EventModel, EventModelSettings, build_event_model
from mmtpp.model.folders.folder import local_folder
from mmtpp.model.tokens.vocabulary import Vocabulary
from mmtpp.soft.build_soft_model import build_soft_model
from mmtpp.soft.soft_start import SoftStart
from mmtpp.train.engine.deepspeed_engine import DeepSpeedEngine
from mmtpp.train.engine.zero import build_deepspeed_config, zero_stage
from mmtpp.train.engine.zero3_loading import Zero3Sharding
from mmtpp.train.ranks.rank_group import RankGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSections:
    """The sections of the configuration that shape model and optimiser.

    Attributes:
        model: Model to train.
        lora: Adapter to train; rank 0 trains the model's own parameters.
        training: Size of a step, learning rate and clipping.
        optimizer: Settings of the optimiser.
        optimizer_precision: Number formats of weights and states.
        zero: Sharding.
        trains_vision: Whether the vision tower is trained.
        soft: The model of soft tokens; None for another template.
    """

    model: ModelSection
    lora: LoraSection
    training: TrainingSection
    optimizer: OptimizerSection
    optimizer_precision: OptimizerPrecisionSection
    zero: ZeroSection
    trains_vision: bool
    soft: SoftStart | None


def build_engine(
    sections: EngineSections, vocabulary: Vocabulary, group: RankGroup, precision: str
) -> DeepSpeedEngine:
    """Build the engine that trains the model of a rank; all ranks must call this.

    Args:
        sections: Sections of the configuration.
        vocabulary: Vocabulary of the store.
        group: Place of this rank.
        precision: ``float32`` or ``bfloat16``.
    """
    deepspeed_config = build_deepspeed_config(
        sections.training,
        sections.zero,
        sections.optimizer,
        num_ranks=group.num_ranks,
        precision=precision,
        on_gpu=group.device.type == "cuda",
    )
    model = _build_model(sections, vocabulary, deepspeed_config, group)
    return DeepSpeedEngine(
        model,
        deepspeed_config,
        training=sections.training,
        optimizer_settings=sections.optimizer,
        optimizer_precision=sections.optimizer_precision,
        rank=group.rank,
        num_ranks=group.num_ranks,
    )


def _build_model(
    sections: EngineSections,
    vocabulary: Vocabulary,
    deepspeed_config: dict[str, object],
    group: RankGroup,
) -> EventModel:
    model, lora, training = sections.model, sections.lora, sections.training
    with local_folder(model.path) as folder, local_folder(model.adapter) as adapter:
        # Machines that must copy the model first take minutes, longer than a collective waits.
        ray.train.collective.barrier()
        is_sharded = zero_stage(deepspeed_config) == 3
        event_model = build_event_model(
            EventModelSettings(
                lora_rank=lora.rank,
                lora_alpha=lora.alpha,
                lora_dropout=lora.dropout,
                freeze_vision=not sections.trains_vision,
                activation_checkpointing=training.activation_checkpointing,
                seed=training.seed,
                dtype=group.dtype,
                tiny_width=model.tiny_width,
                tiny_layers=model.tiny_layers,
            ),
            vocabulary,
            path=folder,
            adapter=adapter,
            sharding=Zero3Sharding(deepspeed_config) if is_sharded else None,
        )
        if sections.soft is not None:
            event_model = build_soft_model(
                event_model, sections.soft, seed=training.seed, folder=adapter or folder
            )
        return event_model.to(group.device)
