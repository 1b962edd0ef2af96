"""Pieces that a joined store keeps when its source gets more files: copied, not read again.

Only the new files are read. A partition without a piece of them is copied as it is; the others are
joined again, from the pieces.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from mmtpp.core.errors import MmtppError, error_to_json
from mmtpp.data.encode.pieces import PartitionedShard, PartitionRange, partitioned_uri, pieces_uri
from mmtpp.data.encode.reused_shards import ShardInputs, copy_items, unchanged_shards
from mmtpp.data.encode.shards import FileShard, Partition, build_partition, build_shards
from mmtpp.data.store.layout import PIECES
from mmtpp.storage.paths import (
    READS_IN_FLIGHT,
    copy_file,
    exists,
    join,
    list_files,
    prefetch,
    read_bytes,
)

MAX_PARTITIONS = 4096
_MAX_GROWTH = 2  # with more shards for a partition, the source is divided into more partitions


@dataclass(frozen=True, slots=True)
class ReusablePieces:
    """Pieces of the present store that the new one copies.

    Attributes:
        old_folder: Data folder of the present store.
        before: What the present store depends on.
        now: What the new one depends on.
        shards: Number in the present store of each unchanged shard of files, by the new one.
        old_ranges: Ranges of each partition of the present store.
    """

    old_folder: str
    before: ShardInputs
    now: ShardInputs
    shards: dict[int, int]
    old_ranges: list[list[PartitionRange]]

    @classmethod
    def find(
        cls, old_folder: str, now: ShardInputs, shards: Sequence[FileShard]
    ) -> "ReusablePieces | None":
        """The reusable pieces; None if the present store has none, or too few partitions.

        Args:
            old_folder: Data folder of the present store.
            now: Inputs of the new one.
            shards: All shards of files of the new one.
        """
        before = ShardInputs.load(old_folder)
        if before is None:
            return None
        if min(len(shards), MAX_PARTITIONS) > _MAX_GROWTH * before.num_partitions:
            return None
        unchanged = unchanged_shards(before, now, shards)
        if not unchanged or not _has_all_pieces(old_folder, before):
            return None
        old_shards = _load_partitioned(old_folder, before)
        has_same_types = now.type_names == before.type_names
        kept = {
            shard: old
            for shard, old in unchanged.items()
            if has_same_types or not old_shards[old].depends_on_types
        }
        by_partition = zip(*(shard.ranges for shard in old_shards), strict=True)
        old_ranges = [build_partition(0, ranges).ranges for ranges in by_partition]
        return cls(old_folder, before, now, kept, old_ranges)

    @property
    def copy_tasks(self) -> list[dict[str, int]]:
        """Inputs of ``CopyPieces``."""
        return [{"shard": shard, "old_shard": old} for shard, old in self.shards.items()]

    def partition_tasks(self, partitions: Sequence[Partition]) -> list[dict[str, object]]:
        """Inputs of ``CopyShard``, for the partitions whose pieces are those of the present store.

        Args:
            partitions: All partitions of the new store.
        """
        unchanged = {
            partition.index: partition.index
            for partition, ranges in zip(partitions, self.old_ranges, strict=True)
            if list(self._in_old_store(partition)) == ranges
        }
        return copy_items(self.old_folder, self.before, self.now, unchanged)

    def _in_old_store(self, partition: Partition) -> Iterator[PartitionRange | None]:
        """The ranges under the numbers of the present store; None in a shard that it lacks."""
        for bounds in partition.ranges:
            old_shard = self.shards.get(bounds.shard)
            yield None if old_shard is None else replace(bounds, shard=old_shard)


def _has_all_pieces(folder: str, inputs: ShardInputs) -> bool:
    """Whether nobody deleted a file of pieces."""
    uri = join(folder, PIECES)
    names = {info.base_name for info in list_files(uri, "")} if exists(uri) else set()
    uris = (
        uri_of(folder, shard)
        for shard in range(_num_shards(inputs))
        for uri_of in (pieces_uri, partitioned_uri)
    )
    return names.issuperset(uri.rpartition("/")[2] for uri in uris)


def _load_partitioned(folder: str, inputs: ShardInputs) -> list[PartitionedShard]:
    """What each shard of files of a finished store has for each partition."""
    uris = [partitioned_uri(folder, shard) for shard in range(_num_shards(inputs))]
    with ThreadPoolExecutor(READS_IN_FLIGHT) as pool:
        texts = prefetch(pool, read_bytes, uris, depth=READS_IN_FLIGHT)
        return [PartitionedShard.from_json(text) for text in texts]


def _num_shards(inputs: ShardInputs) -> int:
    return len(build_shards(inputs.files.event_files()))


def num_partitions_of(shards: Sequence[FileShard], reusable: ReusablePieces | None) -> int:
    """Number of partitions of a source: one for a shard of files, or that of the present store.

    Args:
        shards: All shards of files.
        reusable: Pieces of the present store, which are divided already.
    """
    return reusable.before.num_partitions if reusable else min(len(shards), MAX_PARTITIONS)


class CopyPieces:
    """Copies the pieces of a shard of files. One call is the work of a Ray Data task.

    Args:
        old_folder: URI of the data folder of the present store.
        folder: URI of the new data folder.
    """

    def __init__(self, old_folder: str, folder: str) -> None:
        self._old_folder, self._folder = old_folder, folder

    def __call__(self, row: dict) -> dict:
        """Copy the pieces of ``row["old_shard"]`` as ``row["shard"]``.

        Returns:
            ``problem``, not empty on failure.
        """
        old, new = int(row["old_shard"]), int(row["shard"])
        try:
            copy_file(pieces_uri(self._old_folder, old), pieces_uri(self._folder, new))
            text = read_bytes(partitioned_uri(self._old_folder, old))
            PartitionedShard.from_json(text).save(self._folder, new)  # marks it as done
        except MmtppError as error:
            return {"problem": error_to_json(error)}
        return {"problem": ""}
