"""Read the settings of a saved adapter without loading PEFT or a model."""

import json

from mmtpp.core.errors import ModelError
from mmtpp.model.folders.folder import read_model_file

CONFIG_FILE = "adapter_config.json"


def base_of_adapter(uri: str) -> str | None:
    """The model that an adapter names as its base; empty if it names none.

    Args:
        uri: Folder of a model or of an adapter.

    Returns:
        Location of the base; None if the folder holds no adapter.
    """
    content = read_model_file(uri, CONFIG_FILE)
    return None if content is None else str(json.loads(content)["base_model_name_or_path"] or "")


def check_adapter(uri: str, *, rank: int, alpha: int) -> None:
    """Check, before the training starts, that an adapter can be trained further.

    Args:
        uri: Folder of the adapter.
        rank: Rank of the training.
        alpha: Alpha of the training.

    Raises:
        ModelError: The folder holds no adapter, or one with another rank or alpha.
    """
    content = read_model_file(uri, CONFIG_FILE)
    if content is None:
        raise ModelError("this is not an adapter folder", where=uri)
    saved = json.loads(content)
    if (saved["r"], saved["lora_alpha"]) != (rank, alpha):
        raise ModelError(
            f"the adapter has rank {saved['r']} and alpha {saved['lora_alpha']}",
            where=uri,
            cause="an adapter is trained further only with its own rank and alpha",
            setting=f"lora.rank = {rank}, lora.alpha = {alpha}",
        )
