"""Untrained models as forecasters of live sequences: random weights, but every part is real."""

from collections.abc import Mapping

import numpy as np
import torch

from mmtpp.api.forecaster import Forecaster
from mmtpp.config.load import with_values
from mmtpp.config.schema import RunConfig
from mmtpp.core.forecasting.interval_forecasts import IntervalRange
from mmtpp.core.past.event_memory import MemorySettings
from mmtpp.core.past.past_events import PastEvents
from mmtpp.expert.expert_folder import Expert
from mmtpp.expert.interval_density import IntervalScale
from mmtpp.expert.network import ExpertNetwork, NetworkSize
from mmtpp.model.event_model import EventModel
from mmtpp.model.folders.record import TrainedTasks
from mmtpp.model.loaded_model import LoadedModel
from tests.helpers.tiny_models import batcher, tiny_backbone, tiny_vocabulary

TYPES = ("alarm", "repair", "unseen", "check")
KNOWN = (0, 1, 3)
"""Codes of the types that the models know."""
BOTH = ("time", "type")


def expert_forecaster(*, seed: int = 0, num_words: int = 50, images: bool = False) -> Forecaster:
    """An expert of two random networks that reads types, texts and perhaps images."""
    rng = np.random.default_rng(seed)
    size = 300
    past = PastEvents.from_sequence(
        np.cumsum(rng.choice([0.0, 0.5, 4.0], size)),
        rng.integers(0, len(KNOWN), size),
        rng.integers(0, 5, size),
    )
    memory = MemorySettings.fit(past, tick=0.5, seconds_per_unit=1.0)
    torch.manual_seed(seed)
    sizes = NetworkSize(
        num_columns=len(memory.column_names),
        num_types=len(KNOWN),
        width=16,
        num_components=4,
        num_words=num_words,
        reads_images=images,
    )
    scale = IntervalScale.from_memory(memory, tick=0.5)
    networks = tuple(ExpertNetwork(sizes, scale).eval() for _ in range(2))
    trained_tasks = TrainedTasks(
        tasks=("time", "type"),
        interval_range=IntervalRange(0.5, 64.0, 0.5),
        type_codes=KNOWN,
        type_names=TYPES,
        seconds_per_unit=1.0,
        trains_history=False,
    )
    return Forecaster(
        "expert",
        RunConfig(),
        trained_tasks,
        Expert(memory, 0.5, networks),
        vocabulary=tiny_vocabulary(),
    )


def language_forecaster(
    values: Mapping[str, object] | None = None, *, seed: int = 0, tasks: tuple[str, ...] = BOTH
) -> Forecaster:
    """A tiny language model with random weights that answers questions, in float32.

    Args:
        values: Settings of template, compression and context that replace those of this function.
        seed: Seed of the weights.
        tasks: Tasks that the model answers.
    """
    vocabulary = tiny_vocabulary()
    config = with_values(
        RunConfig(),
        {"template.style": "compact", "template.images": "none", "compression.strategy": "none"}
        | dict(values or {}),
    )
    trained_tasks = TrainedTasks(
        tasks=tasks,
        interval_range=IntervalRange(0.5, 64.0, 0.5),
        type_codes=KNOWN,
        type_names=TYPES,
        seconds_per_unit=1.0,
        trains_history=False,
    )
    loaded = LoadedModel(
        EventModel(tiny_backbone(vocabulary, seed)).eval(),
        vocabulary,
        vocabulary.token_ids(),
        batcher(vocabulary, blank_frame=False),
    )
    return Forecaster("language", config, trained_tasks, loaded)
