"""Writing a built data set as raw files, so that it is read like any user's data."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from mmtpp.core.errors import DataError
from mmtpp.storage.paths import exists, join, list_files, write_bytes

_MARK = ".complete"


def is_published(uri: str, name: str, *, setting: str) -> bool:
    """Whether this data set is there already, whole.

    Args:
        uri: its folder, local or s3://.
        name: of the data set and what it was built from.
        setting: what chose it, for the error text.

    Raises:
        DataError: another one is there.
    """
    marks = list_files(uri, _MARK) if exists(uri) else []
    found = [info.base_name.removesuffix(_MARK) for info in marks]
    others = [other for other in found if other != name]
    if others:
        raise DataError(
            f"{uri} already holds {others[0]}, not {name}",
            cause="two data sets in one folder would be read as one; choose another folder",
            setting=f"{setting}, source.uri = {uri}",
        )
    return name in found


def publish_files(uri: str, name: str, files: Iterable[tuple[str, bytes]]) -> None:
    """Write files below ``uri``, and last the mark that they are all there.

    Raises:
        StorageError: not writable.
    """
    with ThreadPoolExecutor(max_workers=16) as pool:
        list(pool.map(lambda file: write_bytes(join(uri, file[0]), file[1]), files))
    write_bytes(join(uri, name + _MARK), b"")
