"""Pieces of sequences between two steps: the events of one shard of files, by partition.

A partition is a subset of the sequences, chosen by a hash of their ids. A file of pieces has two
Arrow streams for each partition, its pieces and its rejected records, one partition after the
other, so that the next step reads its partition in one request. The store keeps the pieces, so that
more files can be joined without reading the present ones again.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace

import numpy as np
import pyarrow as pa

from mmtpp.core.events import EventSequence, Rejected
from mmtpp.core.join import join_pieces
from mmtpp.data.encode.parse_files import ParsedShard
from mmtpp.data.encode.repeated_ids import hash_of_id
from mmtpp.data.sources.reader import ReadCounts
from mmtpp.data.store.layout import PIECES, REJECTED_SCHEMA, shard_file
from mmtpp.storage.paths import READS_IN_FLIGHT, join, prefetch, read_range, write_bytes

DONE = ".pieces.json"  # suffix of the file that marks a shard of files as partitioned
PIECE_SCHEMA = pa.schema(
    [
        ("sequence_id", pa.string()),
        ("split", pa.string()),
        ("path", pa.string()),
        ("times", pa.list_(pa.float64())),
        ("types", pa.list_(pa.int16())),
        ("texts", pa.list_(pa.string())),
        ("images", pa.list_(pa.string())),
    ]
)
_OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4")


@dataclass(frozen=True, slots=True)
class PartitionRange:
    """Bytes of a partition in the file of a shard's pieces.

    Attributes:
        shard: Number of the shard.
        start: First byte of the pieces.
        middle: First byte of the rejected records.
        end: Byte after them.
    """

    shard: int
    start: int
    middle: int
    end: int


@dataclass(frozen=True, slots=True)
class PartitionedShard:
    """What a shard of files has for each partition.

    Attributes:
        ranges: Range of each partition.
        counts: Counts of reading the files.
        declared_splits: Number of pieces of each split, according to the records of the files.
        has_unknown_types: Whether a record was rejected because its type has no code.
    """

    ranges: list[PartitionRange]
    counts: ReadCounts
    declared_splits: dict[str, int]
    has_unknown_types: bool

    @classmethod
    def from_json(cls, text: str | bytes) -> "PartitionedShard":
        """Parse the content of the file that ``write_pieces`` writes last."""
        tree = json.loads(text)
        ranges = [PartitionRange(**bounds) for bounds in tree["ranges"]]
        return cls(**{**tree, "ranges": ranges, "counts": ReadCounts(**tree["counts"])})

    @property
    def depends_on_types(self) -> bool:
        """Whether other names of types may change the pieces."""
        return self.has_unknown_types or self.counts.num_folded > 0

    def save(self, folder: str, shard: int) -> None:
        """Write the file that marks a shard as partitioned, under a number of this folder."""
        ranges = [replace(bounds, shard=shard) for bounds in self.ranges]
        text = json.dumps(asdict(replace(self, ranges=ranges)))
        write_bytes(partitioned_uri(folder, shard), text.encode())


def write_pieces(folder: str, shard: int, content: ParsedShard, *, num_partitions: int) -> None:
    """Write the pieces of a shard by partition, and last the file that marks it as done.

    Args:
        folder: URI of the data folder.
        shard: Number of the shard.
        content: Content of the shard's files.
        num_partitions: Number of partitions.
    """
    pieces = _pieces_table(content)
    rejected = pa.Table.from_pylist(
        [asdict(record) for record in content.rejected], REJECTED_SCHEMA
    )
    divided = [_by_partition(table, num_partitions) for table in (pieces, rejected)]
    streams: list[bytes] = []
    ranges: list[PartitionRange] = []
    start = 0
    for partition_pieces, partition_rejected in zip(*divided, strict=True):
        both = _stream(partition_pieces), _stream(partition_rejected)
        middle = start + len(both[0])
        end = middle + len(both[1])
        ranges.append(PartitionRange(shard, start, middle, end))
        streams += both
        start = end
    write_bytes(pieces_uri(folder, shard), b"".join(streams))
    has_unknown_types = any(record.cause == "unknown_type" for record in content.rejected)
    partitioned = PartitionedShard(
        ranges, content.counts, dict(content.declared_splits), has_unknown_types
    )
    partitioned.save(folder, shard)


def read_partition(folder: str, ranges: Sequence[PartitionRange]) -> ParsedShard:
    """Read a partition, and join the pieces of each sequence.

    Args:
        folder: URI of the data folder.
        ranges: Ranges of the partition in all shards, in the order of their files.
    """
    pieces: dict[str, list[EventSequence]] = {}
    paths: dict[str, list[str]] = {}
    splits: dict[str, str] = {}
    rejected: list[Rejected] = []
    for table, records in _load_tables(folder, ranges):
        rejected += [Rejected(**record) for record in records.to_pylist()]
        for path, split, piece in _sequences(table):
            pieces.setdefault(piece.sequence_id, []).append(piece)
            paths.setdefault(piece.sequence_id, []).append(path)
            splits[piece.sequence_id] = split
    # the last piece is from the last file that has a kept event of the sequence
    last_path = {name: names[-1] for name, names in paths.items()}
    num_joined = sum(len(set(names)) > 1 for names in paths.values())
    return ParsedShard(
        counts=ReadCounts(num_joined=num_joined),
        sequences=[join_pieces(of_sequence) for of_sequence in pieces.values()],
        paths=[_describe(names) for names in paths.values()],
        splits=list(splits.values()),
        rejected=[
            replace(record, is_last=record.path >= last_path.get(record.sequence_id, ""))
            if record.is_last
            else record
            for record in rejected
        ],
    )


def partitioned_uri(folder: str, shard: int) -> str:
    """The file that marks a shard of files as partitioned."""
    return join(folder, PIECES, shard_file(shard, DONE))


def pieces_uri(folder: str, shard: int) -> str:
    """The file of the pieces of a shard of files."""
    return join(folder, PIECES, shard_file(shard, ".arrow"))


def _partition_of(sequence_id: str, num_partitions: int) -> int:
    return int.from_bytes(hash_of_id(sequence_id)[:8]) % num_partitions


def _pieces_table(content: ParsedShard) -> pa.Table:
    sequences = content.sequences
    offsets = np.append(0, np.cumsum([len(sequence) for sequence in sequences])).astype(np.int32)
    lists = {
        "times": np.concatenate([np.zeros(0), *(sequence.times for sequence in sequences)]),
        "types": np.concatenate(
            [np.zeros(0, np.int16), *(sequence.types for sequence in sequences)]
        ),
        "texts": pa.array([text for sequence in sequences for text in sequence.texts], pa.string()),
        "images": pa.array(
            [image for sequence in sequences for image in sequence.images], pa.string()
        ),
    }
    columns = {
        "sequence_id": [sequence.sequence_id for sequence in sequences],
        "split": content.splits,
        "path": content.paths,
        **{
            name: pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))
            for name, values in lists.items()
        },
    }
    return pa.table(columns, schema=PIECE_SCHEMA)


def _by_partition(table: pa.Table, num_partitions: int) -> Iterator[pa.Table]:
    """The rows of each partition, in their order."""
    partitions = np.array(
        [_partition_of(name, num_partitions) for name in table["sequence_id"].to_pylist()],
        dtype=np.int64,
    )
    ordered = table.take(pa.array(np.argsort(partitions, kind="stable")))
    edges = np.searchsorted(np.sort(partitions), np.arange(num_partitions + 1))
    for start, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        yield ordered.slice(start, end - start)


def _stream(table: pa.Table) -> bytes:
    """A table as an Arrow stream; no bytes for no rows."""
    if not len(table):
        return b""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=_OPTIONS) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _load_tables(
    folder: str, ranges: Iterable[PartitionRange]
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Pieces and rejected records of each range."""

    def load(bounds: PartitionRange) -> tuple[pa.Table, pa.Table]:
        data = pa.py_buffer(read_range(pieces_uri(folder, bounds.shard), bounds.start, bounds.end))
        size = bounds.middle - bounds.start
        return _table(data[:size], PIECE_SCHEMA), _table(data[size:], REJECTED_SCHEMA)

    with ThreadPoolExecutor(READS_IN_FLIGHT) as pool:
        yield from prefetch(pool, load, ranges, depth=READS_IN_FLIGHT)


def _table(stream: pa.Buffer, schema: pa.Schema) -> pa.Table:
    if not stream.size:
        return schema.empty_table()
    return pa.ipc.open_stream(stream).read_all()


def _sequences(table: pa.Table) -> Iterator[tuple[str, str, EventSequence]]:
    """Path, split and events of each piece."""
    if not len(table):
        return
    chunk = table.combine_chunks()
    flat = {name: chunk[name].combine_chunks().flatten() for name in ("times", "types")}
    times, types = (values.to_numpy(zero_copy_only=False) for values in flat.values())
    texts, images = (
        chunk[name].combine_chunks().flatten().to_pylist() for name in ("texts", "images")
    )
    edges = chunk["times"].combine_chunks().offsets.to_numpy()
    edges = (edges - edges[0]).tolist()
    heads = zip(
        *(chunk[name].to_pylist() for name in ("sequence_id", "split", "path")), strict=True
    )
    for index, (sequence_id, split, path) in enumerate(heads):
        part = slice(edges[index], edges[index + 1])
        piece = EventSequence(
            sequence_id, times[part], types[part], tuple(texts[part]), tuple(images[part])
        )
        yield path, split, piece


def _describe(paths: list[str]) -> str:
    """The files of a sequence as one text."""
    distinct = list(dict.fromkeys(paths))
    if len(distinct) == 1:
        return distinct[0]
    return f"{distinct[0]} to {distinct[-1]} ({len(distinct)} files)"
