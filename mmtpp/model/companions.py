"""Small files that a model takes over from its base: processor, chat template, tokenizer, licence.

Only files of known names are read. None of them holds weights, a pickle or code.
"""

from collections.abc import Mapping
from pathlib import Path

from mmtpp.storage.hub import download_model, is_hub
from mmtpp.storage.paths import exists, join, read_bytes

CARD, BASE_CARD = "README.md", "README.base.md"
NAMES = (
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "processor_config.json",
    "chat_template.json",
    "chat_template.jinja",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "generation_config.json",
    "LICENSE",
    "LICENSE.md",
    "LICENSE.txt",
    "NOTICE",
    "NOTICE.md",
    "NOTICE.txt",
    CARD,
)
"""Files that are taken over where the base has them; the base's card becomes ``BASE_CARD``."""


def read_companions(uri: str) -> dict[str, bytes]:
    """Contents of the base's small files by the names they get in the new folder.

    Args:
        uri: Folder of the base model: a local path, s3:// or hf:// URI. Empty for no base.

    Raises:
        StorageError: The place cannot be reached.
    """
    if not uri:
        return {}
    folder = str(download_model(uri, files=NAMES)) if is_hub(uri) else uri
    names = [name for name in NAMES if exists(join(folder, name))]
    return {BASE_CARD if name == CARD else name: read_bytes(join(folder, name)) for name in names}


def write_companions(files: Mapping[str, bytes], folder: Path) -> None:
    """Write what ``read_companions`` returned.

    Args:
        files: Contents by name.
        folder: Existing and local. The base's ``generation_config.json`` replaces the one that
            transformers wrote there.
    """
    for name, content in files.items():
        (folder / name).write_bytes(content)
