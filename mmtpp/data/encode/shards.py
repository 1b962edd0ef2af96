"""Division of a source's event files into shards, the units of work of ``encode``."""

from collections.abc import Sequence
from dataclasses import dataclass

FILES_PER_SHARD = 128
BYTES_PER_SHARD = 16 * 2**20


@dataclass(frozen=True, slots=True)
class Shard:
    """Event files that one task reads.

    Attributes:
        index: Number of the shard, from 0.
        paths: Paths of the files, relative to the source.
        num_bytes: Total size of the files.
    """

    index: int
    paths: list[str]
    num_bytes: int


def build_shards(files: Sequence[tuple[str, int]]) -> list[Shard]:
    """Group files in their order into shards of bounded number and size.

    Args:
        files: Paths and sizes in bytes, at least one.
    """
    shards: list[Shard] = []
    paths: list[str] = []
    size = 0
    for path, num_bytes in files:
        if paths and (len(paths) >= FILES_PER_SHARD or size + num_bytes > BYTES_PER_SHARD):
            shards.append(Shard(len(shards), paths, size))
            paths, size = [], 0
        paths.append(path)
        size += num_bytes
    return [*shards, Shard(len(shards), paths, size)]
