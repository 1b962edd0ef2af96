"""Check the settings of a saved adapter without loading PEFT or a model."""

import json

from mmtpp.core.errors import ModelError
from mmtpp.model.folders.folder import read_file

CONFIG_FILE = "adapter_config.json"


def check_adapter(uri: str, *, rank: int, alpha: int) -> None:
    """Check, before the training starts, that an adapter can be trained further.

    Args:
        uri: Folder of the adapter.
        rank: Rank of the training.
        alpha: Alpha of the training.

    Raises:
        ModelError: The folder holds no adapter, or one with another rank or alpha.
    """
    content = read_file(uri, CONFIG_FILE)
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
