"""Model folders by URI: a local folder itself, or this machine's copy of another."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmtpp.storage.hub import hub_folder, is_hub
from mmtpp.storage.model_folder import check_model_folder
from mmtpp.storage.node_copy import node_copy
from mmtpp.storage.paths import exists, join, read_bytes


@contextmanager
def local_folder(uri: str) -> Iterator[Path | None]:
    """The folder of a model or adapter on this machine; None for an empty URI.

    Raises:
        ModelError: nothing is there.
        StorageError: the place cannot be reached.
    """
    if not uri:
        yield None
        return
    if is_hub(uri):
        yield hub_folder(uri)
        return
    check_model_folder(uri, setting=f"model.path or model.adapter = {uri}")
    if "://" not in uri:
        yield Path(uri).expanduser()
        return
    with node_copy(uri) as folder:
        yield folder


def read_file(uri: str, name: str) -> bytes | None:
    """A small file of a model folder, wherever that lies; None if it is not there."""
    if is_hub(uri):
        uri = str(hub_folder(uri, files=[name]))
    place = join(uri, name)
    return read_bytes(place) if exists(place) else None
