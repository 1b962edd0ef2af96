"""Whether a URI is the folder of a model, before anything is read from it."""

from pathlib import Path

from mmtpp.core.errors import ModelError
from mmtpp.storage.hub import is_hub
from mmtpp.storage.paths import exists, join, split_file

# a model or adapter has one of them at least; a run's folder has a config.json of its own
MARKS = (
    "tokenizer.json",
    "adapter_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
)
_BELOW = ("model", "adapter", "best_model", "best_adapter")  # names that runs give


def check_model_folder(uri: str, *, setting: str = "") -> None:
    """Check that the folder of a model or adapter is there and holds one.

    Args:
        uri: a local path, s3:// or hf://; what the hub holds is not checked.
        setting: the setting that names it, for the error.

    Raises:
        ModelError: the folder is not there, is a file, or holds no model.
        StorageError: the place cannot be reached.
    """
    if is_hub(uri):
        return
    where = uri if "://" in uri else str(Path(uri).expanduser().absolute())
    if not uri or not exists(uri):
        raise ModelError(
            "this folder does not exist",
            where=where if uri else "an empty path",
            cause="the path is mistyped, or the run that writes the model has not finished; a "
            "model of the hub is hf://OWNER/NAME",
            setting=setting,
        )
    if split_file(uri)[1]:
        raise ModelError("this is a file, a model is a folder", where=where, setting=setting)
    if any(exists(join(uri, name)) for name in MARKS):
        return
    below = [join(uri, name) for name in _BELOW if exists(join(uri, name))]
    raise ModelError(
        f"there is no model in this folder: it has none of {', '.join(MARKS)}",
        where=where,
        cause=f"the model is in {' or '.join(below)}"
        if below
        else "the folder is another one, or the run that writes the model has not finished",
        setting=setting,
    )
