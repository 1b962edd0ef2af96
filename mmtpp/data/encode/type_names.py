"""Names of the event types that occur in a source, for ``source.types = "auto"``."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from mmtpp.core.errors import DataError, MmtppError, error_to_json
from mmtpp.core.events import MAX_TYPES
from mmtpp.data.encode.encode_settings import EncodeSettings
from mmtpp.data.sources.checking import raw_items
from mmtpp.data.sources.event_files import MalformedFileError
from mmtpp.data.sources.reader import RawEvent, SourceReader
from mmtpp.data.sources.type_codes import (
    AUTO,
    OTHER,
    are_named,
    count_names,
    list_some,
    order_names,
)
from mmtpp.storage.paths import join, prefetch, read_bytes

FILES_IN_FLIGHT = 8


class CountTypes:
    """Counts the types in the files of a shard. One call is the work of a Ray Data task.

    Args:
        settings: Location and kind of the source.
    """

    def __init__(self, settings: EncodeSettings) -> None:
        self._settings = settings
        self._reader = settings.build_reader()

    def __call__(self, row: dict) -> dict:
        """Count the types of the files ``row["paths"]``; ``problem`` is not empty on failure."""
        uris = [join(self._settings.source_uri, str(path)) for path in row["paths"]]
        counts: Counter[str] = Counter()
        try:
            with ThreadPoolExecutor(FILES_IN_FLIGHT) as pool:
                contents = prefetch(pool, read_bytes, uris, depth=FILES_IN_FLIGHT)
                for path, content in zip(row["paths"], contents, strict=True):
                    counts += count_types_in_file(self._reader, str(path), content)
        except MmtppError as error:
            return {"problem": error_to_json(error), "shard": row["shard"], "types": ""}
        return {"problem": "", "shard": row["shard"], "types": json.dumps(counts)}


def count_types_in_file(reader: SourceReader, path: str, content: bytes) -> Counter[str]:
    """Number of events of each type in a file; empty if the file is malformed.

    The first step of ``encode`` reports malformed files.
    """
    try:
        items = raw_items(reader, path, content)
        return count_names(
            item.type for item in items if isinstance(item, RawEvent) and not item.problem
        )
    except MalformedFileError:
        return Counter()


def choose_type_names(
    counts: Mapping[str, int], *, known: Sequence[str], folds_rare: bool, where: str
) -> tuple[str, ...]:
    """Choose the type names for ``source.types = "auto"``, in the order of their codes.

    Args:
        counts: Number of events of each name in the source.
        known: Names of the existing store; they keep their codes.
        folds_rare: Whether rare types may become ``other``.
        where: Location of the source, for messages.

    Returns:
        At most 256 names.

    Raises:
        DataError: There are more names than codes, and rare types are not folded.
    """
    names = order_names(counts, known=known, folds_rare=folds_rare)
    if len(names) > MAX_TYPES:
        raise _too_many_types_error(counts, where=where)
    return names


def _too_many_types_error(counts: Mapping[str, int], *, where: str) -> DataError:
    """The error of a source with more types than codes."""
    names = order_names(counts)
    rare = sum(counts[name] for name in names[MAX_TYPES - 1 :])
    share = rare / sum(counts.values())
    return DataError(
        f"{len(counts):,} event types, {list_some(names)}; at most {MAX_TYPES} are possible",
        where=where,
        cause=f"a type is stored as one byte; with the {MAX_TYPES - 1} most frequent types, one "
        f"folded type would hold {share:.1%} of the events",
        setting=f'source.rare_types = "reject"; set it to "{OTHER}" with source.types = "{AUTO}" '
        "to fold rare types, or map source.columns.type to a coarser column",
    )


def unnamed_types_error(counts: Mapping[str, int], *, where: str) -> DataError:
    """The error of types that are names while ``source.types`` is empty.

    Args:
        counts: Number of events of each name.
        where: Location of the source.
    """
    if len(counts) > MAX_TYPES:
        return _too_many_types_error(counts, where=where)
    names = order_names(counts)
    return DataError(
        f"types are names, {list_some(names)}, and source.types is empty",
        where=where,
        setting=f'source.types = "{AUTO}" takes the names that occur, the most frequent first; or '
        f"paste: {types_setting(names)}",
    )


def types_setting(names: Sequence[str]) -> str:
    """The setting that lists these names, to be pasted."""
    return f"source.types = {json.dumps(list(names), ensure_ascii=False)}"


def names_unless_numbers(counts: Mapping[str, int]) -> tuple[str, ...]:
    """The names that occur, the most frequent first; empty if all are numbers from 0 to 255."""
    if not are_named(counts) and all(int(name) < MAX_TYPES for name in counts):
        return ()
    return order_names(counts)
