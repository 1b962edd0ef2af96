"""Names of the event types that occur in a source, for ``source.types = "auto"``."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from mmtpp.core.errors import DataError, MmtppError, error_to_json
from mmtpp.core.events import MAX_TYPES
from mmtpp.data.encode.encode_settings import EncodeSettings
from mmtpp.data.sources.checking import raw_items
from mmtpp.data.sources.reader import RawEvent, SourceReader
from mmtpp.data.sources.tables import MalformedFileError
from mmtpp.data.sources.types import AUTO, OTHER, are_named, count_names, listed, most_frequent
from mmtpp.storage.paths import ahead, join, read_bytes

FILES_IN_FLIGHT = 8


class CountTypes:
    """Counts the types of a shard's files, the work of a Ray Data task.

    Args:
        settings: The source.
    """

    def __init__(self, settings: EncodeSettings) -> None:
        self._settings = settings
        self._reader = settings.reader()

    def __call__(self, row: dict) -> dict:
        """Count the types of the files ``row["paths"]``; ``problem`` is not empty on failure."""
        uris = [join(self._settings.source_uri, str(path)) for path in row["paths"]]
        counts: Counter[str] = Counter()
        try:
            with ThreadPoolExecutor(FILES_IN_FLIGHT) as pool:
                contents = ahead(pool, read_bytes, uris, depth=FILES_IN_FLIGHT)
                for path, content in zip(row["paths"], contents, strict=True):
                    counts += types_in(self._reader, str(path), content)
        except MmtppError as error:
            return {"problem": error_to_json(error), "shard": row["shard"], "types": ""}
        return {"problem": "", "shard": row["shard"], "types": json.dumps(counts)}


def types_in(reader: SourceReader, path: str, content: bytes) -> Counter[str]:
    """Events of each type in a file; none where it cannot be read, which is reported later."""
    try:
        items = raw_items(reader, path, content)
        return count_names(
            item.type for item in items if isinstance(item, RawEvent) and not item.problem
        )
    except MalformedFileError:
        return Counter()


def chosen_types(
    counts: Mapping[str, int], *, known: Sequence[str], folds_rare: bool, where: str
) -> tuple[str, ...]:
    """The names that ``source.types = "auto"`` stands for, in the order of their codes.

    Args:
        counts: Events of each name in the source.
        known: Names that the store has already; they keep their codes.
        folds_rare: Whether rare types may become ``other``.
        where: The source, for messages.

    Returns:
        At most 256 names.

    Raises:
        DataError: More names than codes, and rare types are not folded.
    """
    names = most_frequent(counts, known=known, folds_rare=folds_rare)
    if len(names) > MAX_TYPES:
        raise too_many_types(counts, where=where)
    return names


def too_many_types(counts: Mapping[str, int], *, where: str) -> DataError:
    """The error that more types occur than there are codes."""
    order = most_frequent(counts)
    rare = sum(counts[name] for name in order[MAX_TYPES - 1 :])
    share = rare / sum(counts.values())
    return DataError(
        f"{len(counts):,} event types, {listed(order)}; {MAX_TYPES} are possible",
        where=where,
        cause=f"a type is written as one byte. Keeping the {MAX_TYPES - 1} most frequent and "
        f"folding the others into one leaves {share:.1%} of the events in it",
        setting=f'source.rare_types = "reject"; set it to "{OTHER}" with source.types = "{AUTO}" '
        "to fold them, or map source.columns.type to a coarser column",
    )


def unnamed_types(counts: Mapping[str, int], *, where: str) -> DataError:
    """The error that types are names while ``source.types`` is empty, with the line to paste."""
    if len(counts) > MAX_TYPES:
        return too_many_types(counts, where=where)
    return DataError(
        f"types are names, {listed(most_frequent(counts))}, and source.types is empty",
        where=where,
        setting=f'source.types = "{AUTO}" takes the names that occur, the most frequent first; or '
        f"paste: {types_line(most_frequent(counts))}",
    )


def types_line(names: Sequence[str]) -> str:
    """The setting that lists these names, to be pasted."""
    return f"source.types = {json.dumps(list(names), ensure_ascii=False)}"


def names_of(counts: Mapping[str, int]) -> tuple[str, ...]:
    """Names that occur, the most frequent first; none where types are numbers from 0 to 255."""
    if not are_named(counts) and all(int(name) < MAX_TYPES for name in counts):
        return ()
    return most_frequent(counts)
