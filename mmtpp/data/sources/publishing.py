"""Write a built-in data set as raw files, which are then read like any user's data."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from mmtpp.core.errors import DataError
from mmtpp.storage.paths import exists, join, list_files, write_bytes

_MARK = ".complete"


def is_published(uri: str, name: str, *, setting: str) -> bool:
    """Whether the data set is already complete in its folder.

    Args:
        uri: Folder of the data set, local or remote.
        name: Name of the data set, which identifies its inputs.
        setting: Setting that chooses the data set, for the error.

    Raises:
        DataError: The folder holds another data set.
    """
    marks = list_files(uri, _MARK) if exists(uri) else []
    published = [info.base_name.removesuffix(_MARK) for info in marks]
    conflicting = [other for other in published if other != name]
    if conflicting:
        raise DataError(
            f"{uri} already holds {conflicting[0]}, not {name}",
            cause="two data sets in one folder would be read as one; choose another folder",
            setting=f"{setting}, source.uri = {uri}",
        )
    return name in published


def publish_files(uri: str, name: str, files: Iterable[tuple[str, bytes]]) -> None:
    """Write files below a folder, and last the mark that the data set is complete.

    Args:
        uri: Folder of the data set.
        name: Name of the data set.
        files: Paths relative to the folder, and contents.

    Raises:
        StorageError: The folder is not writable.
    """
    with ThreadPoolExecutor(max_workers=16) as pool:
        list(pool.map(lambda file: write_bytes(join(uri, file[0]), file[1]), files))
    write_bytes(join(uri, name + _MARK), b"")
