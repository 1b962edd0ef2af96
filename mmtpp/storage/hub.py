"""Models of the Hugging Face hub, ``hf://OWNER/NAME`` or ``hf://OWNER/NAME@REVISION``.

Weights in safetensors, JSON, chat templates and licences only: nothing that could run. Endpoint,
token and cache folder come from the hub's own environment variables (``HF_ENDPOINT``, ``HF_TOKEN``,
``HF_HOME``).
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from mmtpp.core.errors import StorageError

logger = logging.getLogger(__name__)

SCHEME = "hf://"
FILES = ("*.safetensors", "*.json", "*.jinja", "merges.txt", "LICENSE*", "NOTICE*", "README.md")


def is_hub(uri: str) -> bool:
    """Whether a URI names a model of the hub."""
    return uri.startswith(SCHEME)


def hub_folder(uri: str, *, files: Sequence[str] = FILES) -> Path:
    """This machine's copy of a model, downloaded once for all its processes.

    Args:
        uri: of the model.
        files: patterns of those that are wanted.

    Raises:
        StorageError: the hub cannot be reached, or does not give it.
    """
    name, _, revision = uri.removeprefix(SCHEME).partition("@")
    try:
        folder = Path(
            snapshot_download(name, revision=revision or None, allow_patterns=list(files))
        )
    except (OSError, HfHubHTTPError, LocalEntryNotFoundError, HFValidationError) as error:
        raise StorageError(
            f"the hub does not give this model: {str(error).splitlines()[0]}",
            where=uri,
            cause="no network (HF_ENDPOINT), a name that is not there, a model that asks for a "
            "token (HF_TOKEN), or no room (HF_HOME)",
        ) from error
    return folder


def pinned(uri: str) -> str:
    """The same model at the commit it has now, so that no process ever gets another one."""
    if not is_hub(uri) or "@" in uri:
        return uri
    commit = hub_folder(uri, files=["config.json"]).name
    logger.warning("%s is at %s today; name it so to get the same one later", uri, commit)
    return f"{uri}@{commit}"
