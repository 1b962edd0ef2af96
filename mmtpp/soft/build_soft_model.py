"""Builds the soft model that is trained."""

from pathlib import Path

import torch

from mmtpp.model.event_model import EventModel
from mmtpp.soft.soft_folder import load_soft_weights
from mmtpp.soft.soft_model import SoftModel
from mmtpp.soft.soft_start import SoftStart


def build_soft_model(
    event_model: EventModel, start: SoftStart, *, seed: int, folder: Path | None
) -> SoftModel:
    """Build a soft model on a backbone.

    Args:
        event_model: The backbone, with or without LoRA.
        start: From what the model starts.
        seed: Seed of the random weights.
        folder: Local folder of the soft model that is continued; not read for a new one.

    Raises:
        ModelError: The weights of the folder cannot be used.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SoftModel(event_model.backbone, start.settings)
    if start.statistics is not None:
        model.start_from(start.statistics)
    elif folder is not None:
        load_soft_weights(model, folder)
    return model.to(event_model.head.weight.dtype).train()
