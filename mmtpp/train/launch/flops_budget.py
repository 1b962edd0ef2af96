"""The number of steps that a budget of operations allows, before a model is built."""

import numpy as np
import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import ConfigError
from mmtpp.core.seeds import seed_from
from mmtpp.data.samples.assemble import Assembler
from mmtpp.data.samples.assemble_settings import AssembleSettings
from mmtpp.data.samples.plan import Plan, samples_table
from mmtpp.data.samples.row_table import row_from_arrow
from mmtpp.experiments.variance_reduction import gradient_passes
from mmtpp.model.event_model import EventModel
from mmtpp.model.flops import FlopCounter
from mmtpp.model.qwen_vl import tiny_config
from mmtpp.model.vocabulary import Vocabulary

NUM_COUNTED = 64  # samples whose operations are averaged


def num_steps_within(
    config: RunConfig, settings: AssembleSettings, plan: Plan, vocabulary: Vocabulary
) -> int:
    """Number of updates of a fresh ``tiny`` that ``training.max_flops`` allows.

    Args:
        config: Configuration of the run.
        settings: Settings of its training samples.
        plan: Plan of its training samples.
        vocabulary: Vocabulary of the store.

    Raises:
        ConfigError: The model is not a fresh ``tiny``, or the budget allows no update.
    """
    if config.model.path or config.lora.rank:
        raise ConfigError(
            "training.max_flops compares fresh models",
            cause="a loaded model or an adapter has no budget of its own; set training.num_steps",
            setting=f"model.path = {config.model.path!r}, lora.rank = {config.lora.rank}",
        )
    counter = _flop_counter(config, vocabulary, settings.image_px)
    order = np.random.default_rng(seed_from("flops") % 2**63).permutation(len(plan.samples))
    counted = samples_table(plan, order[:NUM_COUNTED])
    assembled = Assembler(settings, vocabulary.token_ids())(counted)
    rows = [
        row_from_arrow(assembled, index, image_px=settings.image_px)
        for index in range(len(assembled))
    ]
    num_passes = len(gradient_passes(config.optimizer))
    per_row = float(np.mean([counter(row).total for row in rows]))
    per_step = num_passes * config.training.samples_per_step * per_row
    num_steps = int(config.training.max_flops / per_step)
    if not num_steps:
        raise ConfigError(
            "training.max_flops allows no update",
            cause=f"one update of {config.training.samples_per_step} samples takes {per_step:.3g} "
            "operations",
            setting=f"training.max_flops = {config.training.max_flops:.3g}: raise it, or lower "
            f"training.samples_per_step = {config.training.samples_per_step}",
        )
    return num_steps


def _flop_counter(config: RunConfig, vocabulary: Vocabulary, image_px: int) -> FlopCounter:
    sizes = {"width": config.model.tiny_width, "layers": config.model.tiny_layers}
    with torch.device("meta"):
        model = Qwen2_5_VLForConditionalGeneration(tiny_config(vocabulary, **sizes))
    model.model.visual.requires_grad_(config.trains_vision)
    return FlopCounter(EventModel(model), image_px=image_px, blank_frame=config.shows_images)
