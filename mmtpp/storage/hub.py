"""Models of the Hugging Face hub: ``hf://OWNER/NAME`` or ``hf://OWNER/NAME@REVISION``.

Only safetensors, JSON, chat templates and licences are downloaded: no file that could run code. The
hub's own environment variables (``HF_ENDPOINT``, ``HF_TOKEN``, ``HF_HOME``) set the endpoint, the
token and the cache folder.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from mmtpp.core.errors import StorageError, first_line

logger = logging.getLogger(__name__)

SCHEME = "hf://"
FILES = ("*.safetensors", "*.json", "*.jinja", "merges.txt", "LICENSE*", "NOTICE*", "README.md")


def is_hub(uri: str) -> bool:
    """Whether a URI is a model of the hub."""
    return uri.startswith(SCHEME)


def download_model(uri: str, *, files: Sequence[str] = FILES) -> Path:
    """Download a model once for all processes of this machine, and return its folder.

    Args:
        uri: URI of the model.
        files: Patterns of the files to download.

    Raises:
        StorageError: The hub cannot be reached, or refuses the model.
    """
    name, _, revision = uri.removeprefix(SCHEME).partition("@")
    try:
        folder = Path(
            snapshot_download(name, revision=revision or None, allow_patterns=list(files))
        )
    except (OSError, HfHubHTTPError, LocalEntryNotFoundError, HFValidationError) as error:
        raise StorageError(
            f"cannot download this model from the hub: {first_line(error)}",
            where=uri,
            cause="there is no network (HF_ENDPOINT), the model does not exist, it needs a token "
            "(HF_TOKEN), or the disk is full (HF_HOME)",
        ) from error
    return folder


def pin_revision(uri: str) -> str:
    """Add the current commit to the URI of a hub model, so that every process gets the same one."""
    if not is_hub(uri) or "@" in uri:
        return uri
    commit = download_model(uri, files=["config.json"]).name
    logger.warning(
        "%s is at commit %s now; use %s@%s to get the same model later", uri, commit, uri, commit
    )
    return f"{uri}@{commit}"
