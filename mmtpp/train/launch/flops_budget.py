"""The number of steps that a budget of operations allows, before a model is built."""

import numpy as np

from mmtpp.config.schema import ModelSection, OptimizerSection, TrainingSection
from mmtpp.core.errors import ConfigError
from mmtpp.core.seeds import seed_from
from mmtpp.data.samples.assemble import Assembler
from mmtpp.data.samples.plan import Plan, samples_table
from mmtpp.data.samples.row_table import row_from_arrow
from mmtpp.data.samples.sample_settings import SampleSettings
from mmtpp.experiments.variance_reduction import num_gradient_passes
from mmtpp.model.base_folder import tiny_without_weights
from mmtpp.model.event_model import EventModel
from mmtpp.model.flops import FlopCounter
from mmtpp.model.tokens.vocabulary import Vocabulary

NUM_COUNTED = 64  # samples whose operations are averaged


def num_steps_within(
    settings: SampleSettings,
    plan: Plan,
    vocabulary: Vocabulary,
    *,
    training: TrainingSection,
    optimizer: OptimizerSection,
    model: ModelSection,
    trains_vision: bool,
    blank_frame: bool,
) -> int:
    """Number of updates of a fresh ``tiny`` that ``training.max_flops`` allows.

    Args:
        settings: Settings of the training samples.
        plan: Plan of the training samples.
        vocabulary: Vocabulary of the store.
        training: Budget and size of a step.
        optimizer: Settings of the optimiser.
        model: Sizes of the model.
        trains_vision: Whether the vision tower is trained.
        blank_frame: Whether a row without frames gets a black frame, see ``Batcher``.

    Raises:
        ConfigError: The budget allows no update.
    """
    counter = _flop_counter(
        settings, vocabulary, model, trains_vision=trains_vision, blank_frame=blank_frame
    )
    order = np.random.default_rng(seed_from("flops") % 2**63).permutation(plan.num_samples)
    counted = samples_table(plan, order[:NUM_COUNTED])
    assembled = Assembler(settings, vocabulary.token_ids())(counted)
    rows = [
        row_from_arrow(assembled, index, image_px=settings.image_px)
        for index in range(len(assembled))
    ]
    num_passes = num_gradient_passes(optimizer)
    per_row = float(np.mean([counter(row).total for row in rows]))
    per_step = num_passes * training.samples_per_step * per_row
    num_steps = int(training.max_flops / per_step)
    if not num_steps:
        raise ConfigError(
            "training.max_flops allows no update",
            cause=f"one update of {training.samples_per_step} samples takes {per_step:.3g} "
            "operations",
            setting=f"training.max_flops = {training.max_flops:.3g}: raise it, or lower "
            f"training.samples_per_step = {training.samples_per_step}",
        )
    return num_steps


def _flop_counter(
    settings: SampleSettings,
    vocabulary: Vocabulary,
    model: ModelSection,
    *,
    trains_vision: bool,
    blank_frame: bool,
) -> FlopCounter:
    tiny = tiny_without_weights(vocabulary, width=model.tiny_width, layers=model.tiny_layers)
    tiny.model.visual.requires_grad_(trains_vision)
    return FlopCounter(EventModel(tiny), image_px=settings.image_px, blank_frame=blank_frame)
