"""The settings of a saved adapter, read without loading PEFT or a model."""

import json

from mmtpp.core.errors import ModelError
from mmtpp.model.folder import read_file

CONFIG_FILE = "adapter_config.json"


def check_adapter(uri: str, *, rank: int, alpha: int) -> None:
    """Check, before anything starts, that training can go on from an adapter.

    Args:
        uri: its folder.
        rank: to train with.
        alpha: to train with.

    Raises:
        ModelError: no adapter there, or one of another rank or scale.
    """
    content = read_file(uri, CONFIG_FILE)
    if content is None:
        raise ModelError("this is not an adapter folder", where=uri)
    saved = json.loads(content)
    if (saved["r"], saved["lora_alpha"]) != (rank, alpha):
        raise ModelError(
            f"the adapter has rank {saved['r']} and alpha {saved['lora_alpha']}",
            where=uri,
            cause="training goes on with the adapter's own rank and scale",
            setting=f"lora.rank = {rank}, lora.alpha = {alpha}",
        )
