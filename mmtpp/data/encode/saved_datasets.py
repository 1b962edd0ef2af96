"""Folders that Hugging Face's ``save_to_disk`` writes: which of their files hold events.

    events/dataset_dict.json
    events/train/{state.json, dataset_info.json, data-00000-of-00001.arrow}
    events/test/...

``state.json`` lists the data files. Other Arrow files in the folder are older ones, or caches.
"""

import json
from collections.abc import Iterable

from mmtpp.core.errors import DataError
from mmtpp.storage.paths import join, read_bytes

STATE = "state.json"
_DESCRIPTIONS = (STATE, "dataset_info.json")
_SPLITS = "dataset_dict.json"  # next to the folders of the splits


def files_without_events(uri: str, paths: Iterable[str]) -> tuple[set[str], set[str]]:
    """The files in saved data sets that hold no events.

    Args:
        uri: URI of the source.
        paths: Paths of all its files, relative to the source.

    Returns:
        Paths of the descriptions, and paths of the Arrow files that are not part of the data set.

    Raises:
        DataError: A ``state.json`` is damaged, or a file that it lists is missing.
        StorageError: A ``state.json`` cannot be read.
    """
    names: dict[str, set[str]] = {}  # names of files by folder
    for path in paths:
        folder, separator, name = path.rpartition("/")
        names.setdefault(folder + separator, set()).add(name)
    descriptions: set[str] = set()
    strays: set[str] = set()
    for folder, in_folder in names.items():
        arrow_files = {name for name in in_folder if name.lower().endswith(".arrow")}
        if not arrow_files:
            continue
        if STATE in in_folder:
            listed = _listed_files(uri, folder + STATE)
            if listed is None:
                continue
            if listed - in_folder:
                raise DataError(
                    f"{sorted(listed - in_folder)[0]} is missing",
                    where=join(uri, folder),
                    cause=f"{STATE} lists it; the data set was not copied or saved completely",
                    setting=f"source.uri = {uri}",
                )
            strays |= {folder + name for name in arrow_files - listed}
        descriptions |= {folder + name for name in in_folder.intersection(_DESCRIPTIONS)}
        parent = folder.rstrip("/").rpartition("/")
        if _SPLITS in names.get(parent[0] + parent[1], ()):
            descriptions.add(parent[0] + parent[1] + _SPLITS)
    return descriptions, strays


def _listed_files(uri: str, path: str) -> set[str] | None:
    """The data files that a ``state.json`` lists; None if the file is of another program."""
    try:
        tree = json.loads(read_bytes(join(uri, path)))
        if not isinstance(tree, dict) or "_data_files" not in tree:
            return None
        return {str(entry["filename"]) for entry in tree["_data_files"]}
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"not the description of a saved data set: {error}",
            where=join(uri, path),
            cause="the file is damaged; save the data set again with save_to_disk",
            setting=f"source.uri = {uri}",
        ) from error
