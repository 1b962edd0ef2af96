"""A prepared store with what every job reads of it first."""

from dataclasses import dataclass

from mmtpp.data.settings import store_vocabulary
from mmtpp.model.vocabulary import Vocabulary
from mmtpp.storage.manifest import Manifest, load_manifest


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
