"""Shards that a store keeps when its source gets more files: they are copied, not read again.

A shard depends on its event files, on the images of their events, on the settings and on the
vocabulary. Where all of these are those of the present store, its files are copied into the new
data folder. The jobs that read the present store keep reading its folder.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from mmtpp.core.errors import MmtppError, error_to_json
from mmtpp.data.encode.encode_settings import EncodeSettings
from mmtpp.data.encode.shards import FileShard, build_shards
from mmtpp.data.encode.source_files import SourceFiles
from mmtpp.data.encode.totals import json_digest
from mmtpp.data.sources.type_codes import TypeCodes
from mmtpp.data.store.layout import (
    COUNTS,
    FRAMES,
    REJECTED,
    SEQUENCES,
    SOURCE_FILES,
    SOURCE_SETTINGS,
    block_file,
    shard_file,
)
from mmtpp.storage.paths import copy_file, exists, join, list_files, read_bytes, write_bytes

# with these causes, a shard may be another one when images or type names are added
_DEPENDS_ON_IMAGES, _DEPENDS_ON_TYPES = "unreadable_image", "unknown_type"


@dataclass(frozen=True, slots=True)
class ShardInputs:
    """What the shards of a data folder depend on.

    Attributes:
        files: All files of the source.
        digest: Hash of the settings without the type names, of the vocabulary, and of the division
            into shards.
        type_names: Accepted type names by code.
        has_outside_images: Whether events may name images outside the source, whose changes
            ``files`` does not show.
        num_partitions: Number of partitions of joined sequences; 0 where a shard of the store has
            the sequences of whole files.
    """

    files: SourceFiles
    digest: str
    type_names: tuple[str, ...]
    has_outside_images: bool = False
    num_partitions: int = 0

    @classmethod
    def from_settings(
        cls,
        files: SourceFiles,
        settings: EncodeSettings,
        vocabulary_hash: str,
        division: Sequence[int],
    ) -> "ShardInputs":
        """The inputs of a call of ``encode``.

        Args:
            files: All files of the source.
            settings: Source and content of the store, with the names of its types.
            vocabulary_hash: Hash of the vocabulary.
            division: Version of the steps, and sizes of shards, parts and blocks.
        """
        tree = asdict(replace(settings, type_names=()))
        return cls(
            files,
            json_digest([tree, vocabulary_hash, list(division)]),
            settings.type_names,
            has_outside_images=bool(settings.image_roots),
        )

    @classmethod
    def load(cls, folder: str) -> "ShardInputs | None":
        """The inputs of a finished data folder; None where it does not record them."""
        if not exists(join(folder, SOURCE_SETTINGS)):
            return None
        record = json.loads(read_bytes(join(folder, SOURCE_SETTINGS)))
        files = SourceFiles.from_bytes(read_bytes(join(folder, SOURCE_FILES)))
        names, partitions = tuple(record["type_names"]), record.get("num_partitions", 0)
        return cls(files, record["digest"], names, num_partitions=partitions)

    def save(self, folder: str) -> None:
        """Record the inputs in a data folder whose shards are all finished."""
        write_bytes(join(folder, SOURCE_FILES), self.files.as_bytes())
        record = {
            "digest": self.digest,
            "type_names": self.type_names,
            "num_partitions": self.num_partitions,
        }
        write_bytes(join(folder, SOURCE_SETTINGS), json.dumps(record).encode())


def find_reusable(
    old_folder: str, now: ShardInputs, shards: Sequence[FileShard]
) -> list[dict[str, object]]:
    """The shards of whole files that may be copied, as inputs of ``CopyShard``.

    Args:
        old_folder: Data folder of the present store.
        now: Inputs of the new one.
        shards: All shards of the new one.
    """
    before = ShardInputs.load(old_folder)
    if before is None or before.num_partitions:
        return []
    return copy_items(old_folder, before, now, unchanged_shards(before, now, shards))


def unchanged_shards(
    before: ShardInputs, now: ShardInputs, shards: Sequence[FileShard]
) -> dict[int, int]:
    """Number in the present store of each shard of files that reading again would not change.

    Args:
        before: Inputs of the present store.
        now: Inputs of the new one.
        shards: All shards of the new one.

    Returns:
        The old number by the new one; empty where all shards depend on something that changed.
    """
    if before.digest != now.digest or not _keep_codes(before.type_names, now.type_names):
        return {}
    unchanged = before.files.unchanged_in(now.files)
    old_shards = {
        tuple(shard.paths): shard.index for shard in build_shards(before.files.event_files())
    }
    return {
        shard.index: old_shard
        for shard in shards
        if (old_shard := old_shards.get(tuple(shard.paths))) is not None
        and unchanged.issuperset(shard.paths)
    }


def copy_items(
    old_folder: str, before: ShardInputs, now: ShardInputs, shards: Mapping[int, int]
) -> list[dict[str, object]]:
    """Inputs of ``CopyShard``.

    Args:
        old_folder: Data folder of the present store.
        before: Inputs of the present store.
        now: Inputs of the new one.
        shards: Number of each shard of the present store, by the new one.
    """
    is_unchanged = before.files.others_are_unchanged_in(now.files)
    has_same_images = is_unchanged and not now.has_outside_images
    frames = _list_frames(old_folder)
    return [
        {
            "shard": shard,
            "old_shard": old_shard,
            "frame_files": frames.get(_block_prefix(old_shard), []),
            "has_same_images": has_same_images,
            "has_same_types": now.type_names == before.type_names,
        }
        for shard, old_shard in shards.items()
    ]


def _keep_codes(before: tuple[str, ...], now: tuple[str, ...]) -> bool:
    """Whether every type that had a code has the same one with more names.

    A type that is a number is a name with some names, and the code itself with others or without
    names.
    """
    reads_numbers = [(bool(names), TypeCodes(names, False).are_numbers) for names in (before, now)]
    return now[: len(before)] == before and reads_numbers[0] == reads_numbers[1]


class CopyShard:
    """Copies a shard of another data folder. One call is the work of a Ray Data task.

    Args:
        old_folder: URI of the data folder of the present store.
        folder: URI of the new data folder.
    """

    def __init__(self, old_folder: str, folder: str) -> None:
        self._old_folder, self._folder = old_folder, folder

    def __call__(self, row: dict) -> dict:
        """Copy the shard ``row["old_shard"]`` as ``row["shard"]``, if it is the same now.

        Returns:
            ``problem``, not empty on failure, and ``copied``.
        """
        try:
            return {"problem": "", "copied": self._copy(row)}
        except MmtppError as error:
            return {"problem": error_to_json(error), "copied": False}

    def _copy(self, row: dict) -> bool:
        old, new = int(row["old_shard"]), int(row["shard"])
        counts = read_bytes(join(self._old_folder, COUNTS, shard_file(old, ".json")))
        if not _is_the_same(json.loads(counts), row):
            return False
        for folder in (SEQUENCES, REJECTED):
            self._copy_file(folder, shard_file(old), shard_file(new))
        for name in row["frame_files"]:
            block = name.removeprefix(_block_prefix(old))
            self._copy_file(FRAMES, name, f"{_block_prefix(new)}{block}")
        write_bytes(join(self._folder, COUNTS, shard_file(new, ".json")), counts)  # marks it done
        return True

    def _copy_file(self, folder: str, old_name: str, name: str) -> None:
        copy_file(join(self._old_folder, folder, old_name), join(self._folder, folder, name))


def _block_prefix(shard: int) -> str:
    """Start of the names of a shard's files of frames."""
    return block_file(shard_file(shard), 0).removesuffix("000000.parquet")


def _list_frames(folder: str) -> dict[str, list[str]]:
    """Names of the files of frames in a data folder, by their start."""
    uri = join(folder, FRAMES)
    names = [info.base_name for info in list_files(uri, ".parquet")] if exists(uri) else []
    by_start: dict[str, list[str]] = {}
    for name in names:
        by_start.setdefault(name[: len(_block_prefix(0))], []).append(name)
    return by_start


def _is_the_same(counts: dict, row: dict) -> bool:
    """Whether reading the files of a shard again would give the same shard."""
    rejected = counts["rejected"]
    if rejected.get(_DEPENDS_ON_IMAGES) or (counts["frames"] and not row["has_same_images"]):
        return False
    if counts["frames"] and not row["frame_files"]:  # somebody deleted them
        return False
    depends_on_types = rejected.get(_DEPENDS_ON_TYPES) or counts["events_folded"]
    return bool(row["has_same_types"]) or not depends_on_types
