"""What evaluation and prediction take from the sections of the settings to run a model."""

from mmtpp.config.schema import GenerationSection, ModelSection
from mmtpp.model.decoding.generation import GenerationSettings
from mmtpp.model.loaded_model import ModelLocation


def build_model_location(
    model: ModelSection, vocabulary_hash: str, *, precision: str
) -> ModelLocation:
    """Where the model of a job is loaded from.

    Args:
        model: Section ``model`` of the settings.
        vocabulary_hash: Hash of the store's vocabulary.
        precision: Type of the weights, ``float32`` or ``bfloat16``.
    """
    return ModelLocation(
        model_uri=model.path,
        adapter_uri=model.adapter,
        vocabulary_hash=vocabulary_hash,
        precision=precision,
        expert_uri=model.expert,
    )


def build_generation_settings(generation: GenerationSection) -> GenerationSettings:
    """Settings of written texts, from the section ``generation``."""
    return GenerationSettings(**generation.model_dump())
