"""Read model folders by URI: a local folder directly, a remote folder through a local copy."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mmtpp.core.errors import ModelError
from mmtpp.model.tokens.vocabulary import TOKENIZER_FILE, Vocabulary, check_same_vocabulary
from mmtpp.storage.hub import download_model, is_hub
from mmtpp.storage.model_folder import check_model_folder
from mmtpp.storage.node_copy import node_copy
from mmtpp.storage.paths import exists, join, read_bytes


@contextmanager
def local_folder(uri: str) -> Iterator[Path | None]:
    """A local folder with the files of a model or adapter; None for an empty URI.

    Raises:
        ModelError: The URI contains no model.
        StorageError: The location cannot be reached.
    """
    if not uri:
        yield None
        return
    if is_hub(uri):
        yield download_model(uri)
        return
    check_model_folder(uri, setting=f"model.path or model.adapter = {uri}")
    if "://" not in uri:
        yield Path(uri).expanduser()
        return
    with node_copy(uri) as folder:
        yield folder


def read_model_file(uri: str, name: str) -> bytes | None:
    """Read a small file of a local or remote model folder; None if the file does not exist."""
    if is_hub(uri):
        uri = str(download_model(uri, files=[name]))
    file_uri = join(uri, name)
    return read_bytes(file_uri) if exists(file_uri) else None


def load_model_vocabulary(model_uri: str) -> Vocabulary:
    """Load the vocabulary of a model without its weights.

    Raises:
        ModelError: The folder contains no usable tokenizer.
        StorageError: The location cannot be reached.
    """
    check_model_folder(model_uri, setting=f"model.path or model.adapter = {model_uri}")
    folder = model_uri
    if is_hub(model_uri):
        folder = str(download_model(model_uri, files=[TOKENIZER_FILE]))
    if not exists(join(folder, TOKENIZER_FILE)):
        raise ModelError(
            "there is no model here: tokenizer.json is missing",
            where=model_uri,
            cause="the training run that should have written it has not finished, or the URI is "
            "wrong; the URI of a model on the Hugging Face Hub is hf://OWNER/NAME",
        )
    return Vocabulary(read_bytes(join(folder, TOKENIZER_FILE)).decode())


def check_vocabularies(model_uris: Iterable[str], vocabulary: Vocabulary) -> None:
    """Check that models have the vocabulary of a store.

    Args:
        model_uris: Folders of a base model and its adapter; empty ones are left out.
        vocabulary: Vocabulary of the store.

    Raises:
        ModelError: A folder holds no model, or its vocabulary differs.
        StorageError: A folder cannot be reached.
    """
    for uri in filter(None, model_uris):
        check_same_vocabulary(load_model_vocabulary(uri).hash, vocabulary.hash, where=uri)
