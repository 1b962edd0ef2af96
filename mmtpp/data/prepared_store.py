"""A prepared store with what every job reads of it first."""

from dataclasses import dataclass

from mmtpp.model.tokens.vocabulary import TOKENIZER_FILE, Vocabulary, check_same_vocabulary
from mmtpp.storage.manifest import Manifest, load_manifest
from mmtpp.storage.paths import join, read_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedStore:
    """A store with its manifest and vocabulary.

    Attributes:
        uri: Path of the store.
        manifest: Its manifest.
        vocabulary: Vocabulary that tokenised its texts.
    """

    uri: str
    manifest: Manifest
    vocabulary: Vocabulary


def load_store(uri: str) -> PreparedStore:
    """Load manifest and vocabulary of a store.

    Raises:
        StorageError: There is no store, or it cannot be read.
        ModelError: The manifest records another vocabulary.
    """
    manifest = load_manifest(uri)
    return PreparedStore(uri=uri, manifest=manifest, vocabulary=store_vocabulary(uri, manifest))


def store_vocabulary(store_uri: str, manifest: Manifest) -> Vocabulary:
    """The vocabulary that tokenised the texts of a store.

    Raises:
        ModelError: The manifest records another vocabulary.
    """
    uri = join(store_uri, manifest.data_folder, TOKENIZER_FILE)
    vocabulary = Vocabulary(read_bytes(uri).decode())
    check_same_vocabulary(vocabulary.hash, manifest.vocabulary_hash, where=uri)
    return vocabulary
