"""Small files that a model copies from its base: processor, chat template, tokenizer, licence.

Only files with known names are read. None of them contains weights, a pickle or code.
"""

from collections.abc import Mapping
from pathlib import Path

from mmtpp.storage.hub import download_model, is_hub
from mmtpp.storage.model_folder import SOURCE_FILE
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
    SOURCE_FILE,
    CARD,
)
"""Files that are copied if the base has them; the base's card is renamed to ``BASE_CARD``."""


def read_companions(uri: str) -> dict[str, bytes]:
    """Read the small files of a base model.

    Args:
        uri: Folder of the base model: a local path, a remote URI or hf:// URI. Empty for no base.

    Raises:
        StorageError: The location cannot be reached.

    Returns:
        Contents of the files by their names in the new folder.
    """
    if not uri:
        return {}
    folder = str(download_model(uri, files=NAMES)) if is_hub(uri) else uri
    names = [name for name in NAMES if exists(join(folder, name))]
    return {BASE_CARD if name == CARD else name: read_bytes(join(folder, name)) for name in names}


def write_companions(files: Mapping[str, bytes], folder: Path) -> None:
    """Write the small files of a base model to a model folder.

    Args:
        files: Result of ``read_companions``.
        folder: Existing local folder. The base's ``generation_config.json`` replaces the file that
            transformers wrote there.
    """
    for name, content in files.items():
        (folder / name).write_bytes(content)
