"""The files that a soft model adds to the folder of its backbone or its adapter."""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from mmtpp.core.errors import ModelError
from mmtpp.model.event_model import EventModel
from mmtpp.model.folders.folder import local_folder
from mmtpp.model.loaded_model import LoadedModel, ModelLocation
from mmtpp.soft.soft_model import SOFT_PREFIXES, SoftModel
from mmtpp.soft.soft_rollout import SoftDistributions
from mmtpp.soft.soft_settings import SETTINGS_FILE, load_soft_settings

WEIGHTS_FILE = "soft.safetensors"


def save_soft(
    model: SoftModel, folder: Path, parameters: dict[str, torch.Tensor] | None = None
) -> None:
    """Write settings and weights into an existing local folder.

    Args:
        model: The model.
        folder: Folder of its backbone or adapter.
        parameters: Whole parameters by name, when ``model`` holds shards; None when it is whole.
    """
    whole = dict(model.saved_parameters()) if parameters is None else parameters
    tensors = {name: value for name, value in whole.items() if name.startswith(SOFT_PREFIXES)}
    tensors |= model.soft_buffers()
    save_file(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
        folder / WEIGHTS_FILE,
    )
    text = json.dumps(asdict(model.settings), indent=2)
    (folder / SETTINGS_FILE).write_text(text, encoding="utf-8")


def backbone_parameters(parameters: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The parameters of the backbone or its adapter among those of a soft model."""
    return {
        name: tensor for name, tensor in parameters.items() if not name.startswith(SOFT_PREFIXES)
    }


def load_soft_weights(model: SoftModel, folder: Path) -> None:
    """Copy saved weights into a model; the model is whole.

    Args:
        model: Model with the settings of the folder.
        folder: Local folder.

    Raises:
        ModelError: The weights are missing or damaged, or they are those of another model.
    """
    try:
        tensors = load_file(folder / WEIGHTS_FILE)
        expected = dict(model.named_parameters()) | dict(model.named_buffers())
        names = {name for name in model.state_dict() if name.startswith(SOFT_PREFIXES)}
        if names != set(tensors):
            difference = sorted(names ^ set(tensors))
            raise ValueError(f"missing or unexpected: {', '.join(difference[:3])}")
        with torch.no_grad():
            for name, tensor in tensors.items():
                expected[name].copy_(tensor)
    except (OSError, SafetensorError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"the weights of the soft tokens cannot be loaded: {error}",
            where=str(folder / WEIGHTS_FILE),
            cause="the folder was copied incompletely, or its files are of different models",
        ) from error


def load_soft_distributions(location: ModelLocation, loaded: LoadedModel) -> SoftDistributions:
    """Load the distributions of a soft model.

    Args:
        location: Location of the model.
        loaded: The backbone with its adapter, on its device.

    Raises:
        ModelError: The folder holds no soft model, or its files are damaged.
    """
    with local_folder(location.scored_uri) as folder:
        assert folder is not None
        model = load_soft_model(loaded.model, folder)
    model = model.to(loaded.batcher.device)
    type_ids = loaded.vocabulary.type_ids(model.settings.type_codes)
    return SoftDistributions(model, type_ids)


def load_soft_model(event_model: EventModel, folder: Path) -> SoftModel:
    """Build a soft model from a loaded backbone and the folder that holds the other weights.

    Args:
        event_model: The backbone with its adapter, in evaluation mode.
        folder: Local folder of the adapter, or of the whole model.

    Raises:
        ModelError: The folder holds no soft model, or its files are damaged.
    """
    settings = load_soft_settings(str(folder))
    if settings is None:
        raise ModelError(
            "the model has no soft tokens",
            where=str(folder),
            cause=f"{SETTINGS_FILE} is missing; only a training with template.style = soft "
            "writes it",
        )
    model = SoftModel(event_model.backbone, settings)
    load_soft_weights(model, folder)
    return model.to(event_model.head.weight.dtype).eval()
