"""How many steps a number of operations allows, before a model is built."""

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
from mmtpp.model.event_model import EventModel
from mmtpp.model.flops import FlopCounter
from mmtpp.model.qwen_vl import tiny_config
from mmtpp.model.vocabulary import Vocabulary

COUNTED = 64  # samples, of which the mean is taken


def steps_within(
    config: RunConfig, settings: AssembleSettings, plan: Plan, vocabulary: Vocabulary
) -> int:
    """Updates of a fresh ``tiny`` that ``training.max_flops`` allows.

    Args:
        config: of the run.
        settings: of its training samples.
        plan: of the same.
        vocabulary: of the store.

    Raises:
        ConfigError: the model is not a fresh ``tiny``, or not one update is allowed.
    """
    if config.model.path or config.lora.rank:
        raise ConfigError(
            "training.max_flops compares fresh models",
            setting=f"model.path = {config.model.path!r}, lora.rank = {config.lora.rank}; "
            "leave them empty and 0, or say training.num_steps",
        )
    sizes = {"width": config.model.tiny_width, "layers": config.model.tiny_layers}
    with torch.device("meta"):
        model = Qwen2_5_VLForConditionalGeneration(tiny_config(vocabulary, **sizes))
    model.model.visual.requires_grad_(config.trains_vision)
    count = FlopCounter(
        EventModel(model), image_px=settings.image_px, blank_frame=config.shows_images
    )
    drawn = np.random.default_rng(seed_from("flops") % 2**63).permutation(len(plan.samples))
    assembled = Assembler(settings, vocabulary.token_ids())(samples_table(plan, drawn[:COUNTED]))
    rows = [
        row_from_arrow(assembled, index, image_px=settings.image_px)
        for index in range(len(assembled))
    ]
    passes = 2 if config.optimizer.variance_reduction else 1
    per_row = float(np.mean([count(row).total for row in rows]))
    per_step = passes * config.training.samples_per_step * per_row
    steps = int(config.training.max_flops / per_step)
    if not steps:
        raise ConfigError(
            f"training.max_flops = {config.training.max_flops:.3g} is less than one update takes",
            cause=f"an update of {config.training.samples_per_step} samples takes {per_step:.3g}",
            setting="more of them, or fewer training.samples_per_step",
        )
    return steps
