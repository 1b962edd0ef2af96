"""Files that the steps of ``encode`` write for a shard: a finished shard, or one still pending."""

import json
from dataclasses import asdict, dataclass

import pyarrow as pa

from mmtpp.core.events import Rejected
from mmtpp.data.encode.shard_columns import ShardColumns
from mmtpp.data.encode.totals import shard_counts
from mmtpp.data.sources.reader import ReadCounts
from mmtpp.data.store.layout import (
    COUNTS,
    PENDING,
    REJECTED,
    REJECTED_SCHEMA,
    SEQUENCES,
    shard_file,
)
from mmtpp.storage.parquet import write_table
from mmtpp.storage.paths import join, read_bytes, write_bytes


@dataclass(frozen=True, slots=True)
class ShardReading:
    """What reading found in a shard, besides its sequences.

    Attributes:
        paths: File of each sequence.
        rejected: Records that were read but not kept.
        counts: Counts of the events.
        num_images: Number of distinct image paths.
        seconds_per_unit: Seconds in one unit of the times.
        declared_splits: Number of sequences of each split, according to the records of the files.
    """

    paths: list[str]
    rejected: list[Rejected]
    counts: ReadCounts
    num_images: int
    seconds_per_unit: float
    declared_splits: dict[str, int]

    def save(self, folder: str, shard: int) -> None:
        """Write the results for ``FinishShard``. The shard then counts as read: write this last."""
        write_bytes(_reading_uri(folder, shard), json.dumps(asdict(self)).encode())

    @classmethod
    def load(cls, folder: str, shard: int) -> "ShardReading":
        """Load the results that ``save`` wrote."""
        return cls.from_json(read_bytes(_reading_uri(folder, shard)))

    @classmethod
    def from_json(cls, text: str | bytes) -> "ShardReading":
        """Parse the content of the file that ``save`` wrote."""
        tree = json.loads(text)
        rejected = [Rejected(**record) for record in tree["rejected"]]
        return cls(**{**tree, "rejected": rejected, "counts": ReadCounts(**tree["counts"])})


def write_pending_sequences(folder: str, shard: int, columns: ShardColumns) -> None:
    """Write the sequences of a shard whose images are not decoded yet."""
    columns.write(join(folder, PENDING, shard_file(shard)))


def read_pending_sequences(folder: str, shard: int, paths: list[str]) -> ShardColumns:
    """Read the sequences that ``write_pending_sequences`` wrote.

    Args:
        folder: URI of the data folder.
        shard: Number of the shard.
        paths: File of each sequence, which the pending sequences do not contain.
    """
    return ShardColumns.read(join(folder, PENDING, shard_file(shard)), paths=paths)


def write_finished_shard(
    folder: str,
    shard: int,
    columns: ShardColumns,
    reading: ShardReading,
    frame_digests: dict[int, bytes],
) -> str:
    """Write the sequences, rejected records and counts of a shard to the store.

    The counts are written last; the shard then counts as finished.

    Args:
        folder: URI of the data folder.
        shard: Number of the shard.
        columns: Sequences of the shard.
        reading: What reading found.
        frame_digests: Hash of the image for each frame number.

    Returns:
        The counts, as JSON of ``totals.shard_counts``.
    """
    columns.write(join(folder, SEQUENCES, shard_file(shard)))
    rows = [asdict(record) for record in reading.rejected]
    table = pa.Table.from_pylist(rows, REJECTED_SCHEMA)
    write_table(join(folder, REJECTED, shard_file(shard)), table)
    counts = shard_counts(
        columns,
        reading.rejected,
        reading.counts,
        frame_digests=frame_digests,
        seconds_per_unit=reading.seconds_per_unit,
    )
    text = json.dumps(counts | {"declared_splits": reading.declared_splits})
    write_bytes(join(folder, COUNTS, shard_file(shard, ".json")), text.encode())
    return text


def _reading_uri(folder: str, shard: int) -> str:
    return join(folder, PENDING, shard_file(shard, ".json"))
