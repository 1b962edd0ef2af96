"""Division of a source into the units of work of ``encode``: shards of files, or partitions."""

import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass

from mmtpp.data.encode.pieces import PartitionRange

FILES_PER_SHARD = 128
BYTES_PER_SHARD = 16 * 2**20


@dataclass(frozen=True, slots=True)
class FileShard:
    """Event files that one task reads.

    Attributes:
        index: Number of the shard, from 0.
        paths: Paths of the files, relative to the source.
        num_bytes: Total size of the files.
    """

    index: int
    paths: list[str]
    num_bytes: int

    @property
    def task(self) -> dict:
        """Input of the step that reads the files."""
        return {"shard": self.index, "paths": self.paths}


@dataclass(frozen=True, slots=True)
class Partition:
    """A part of the sequences, whose pieces one task joins to a shard of the store.

    Attributes:
        index: Number of the partition and of its shard in the store, from 0.
        ranges: Its ranges in the pieces of the shards of files, in the order of the files.
        num_bytes: Total size of its pieces.
    """

    index: int
    ranges: list[PartitionRange]
    num_bytes: int

    @property
    def task(self) -> dict:
        """Input of the step that joins the pieces."""
        return {"shard": self.index, "ranges": json.dumps([astuple(part) for part in self.ranges])}


def build_shards(files: Sequence[tuple[str, int]]) -> list[FileShard]:
    """Group files in their order into shards of bounded number and size.

    Args:
        files: Paths and sizes in bytes, at least one.
    """
    shards: list[FileShard] = []
    paths: list[str] = []
    size = 0
    for path, num_bytes in files:
        if paths and (len(paths) >= FILES_PER_SHARD or size + num_bytes > BYTES_PER_SHARD):
            shards.append(FileShard(len(shards), paths, size))
            paths, size = [], 0
        paths.append(path)
        size += num_bytes
    return [*shards, FileShard(len(shards), paths, size)]


def build_partition(index: int, ranges: Sequence[PartitionRange]) -> Partition:
    """The partition of these ranges; ranges without a byte are left out.

    Args:
        index: Number of the partition.
        ranges: Its ranges in the pieces of all shards, in the order of the files.
    """
    kept = [part for part in ranges if part.end > part.start]
    return Partition(index, kept, sum(part.end - part.start for part in kept))
