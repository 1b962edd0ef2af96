"""Check that a URI is the folder of a model, before anything is read from it."""

import json
from pathlib import Path

from mmtpp.core.errors import ModelError
from mmtpp.storage.hub import is_hub
from mmtpp.storage.paths import exists, join, read_bytes, split_file

# a model or adapter has at least one of these files; config.json is not one: a run has it too
MODEL_FILES = (
    "tokenizer.json",
    "adapter_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
)
SOURCE_FILE = "model_source.json"  # origin of a model that ``mmtpp import`` wrote
_SUBFOLDERS = ("model", "adapter", "best_model", "best_adapter")  # of the folder of a run


def check_model_folder(uri: str, *, setting: str = "") -> None:
    """Check that a folder exists and has a model or adapter.

    Args:
        uri: A local path, s3:// or hf:// URI; models of the hub are not checked.
        setting: Setting of the URI, for the error.

    Raises:
        ModelError: The folder does not exist, is a file, or has no model.
        StorageError: The URI cannot be reached.
    """
    if is_hub(uri):
        return
    where = uri if "://" in uri else str(Path(uri).expanduser().absolute())
    if not uri or not exists(uri):
        raise ModelError(
            "this folder does not exist",
            where=where if uri else "an empty path",
            cause="the path is mistyped, or the run that writes the model has not finished; the "
            "URI of a hub model is hf://OWNER/NAME",
            setting=setting,
        )
    if split_file(uri)[1]:
        raise ModelError(
            "this is a file, but a model is a folder",
            where=where,
            cause=f"a GGUF file is imported once: mmtpp import {uri} FOLDER"
            if uri.lower().endswith(".gguf")
            else "",
            setting=setting,
        )
    if any(exists(join(uri, name)) for name in MODEL_FILES):
        return
    models = [join(uri, name) for name in _SUBFOLDERS if exists(join(uri, name))]
    raise ModelError(
        f"there is no model in this folder: it has none of {', '.join(MODEL_FILES)}",
        where=where,
        cause=f"the model is in {' or '.join(models)}"
        if models
        else "this is the wrong folder, or the run that writes the model has not finished",
        setting=setting,
    )


def source_tags(uri: str) -> dict[str, str]:
    """Tags of a run that name the file from which its base model was imported.

    Args:
        uri: Folder of the base model; empty for none.

    Returns:
        Name and SHA-256 of the file; empty for a model that was not imported. A hub model is
        identified by its commit instead.

    Raises:
        StorageError: The folder cannot be reached.
    """
    if not uri or is_hub(uri) or not exists(record := join(uri, SOURCE_FILE)):
        return {}
    source = json.loads(read_bytes(record))
    return {"mmtpp.model_file": source["file"], "mmtpp.model_file_sha256": source["sha256"]}
