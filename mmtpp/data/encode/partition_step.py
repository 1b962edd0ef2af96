"""First two steps of ``encode`` where sequences lie in several files: partition, then join.

A task of ``PartitionShard`` reads the files of a shard and writes what they have of each partition
of sequences. A task of ``JoinPartition`` joins the sequences of a partition, which then is a shard
of the store like one of whole files.
"""

import json

from mmtpp.core.errors import MmtppError, error_to_json
from mmtpp.data.encode.encode_settings import EncodeSettings
from mmtpp.data.encode.parse_files import ShardParser
from mmtpp.data.encode.pieces import PartitionRange, read_partition, write_pieces
from mmtpp.data.encode.write_shard import ShardWriter


class PartitionShard:
    """Reads the event files of a shard and writes their pieces by partition.

    Args:
        settings: Source and content of the store.
        folder: URI of the data folder.
        num_partitions: Number of partitions.
    """

    def __init__(self, settings: EncodeSettings, folder: str, num_partitions: int) -> None:
        self._parse = ShardParser(settings)
        self._folder, self._num_partitions = folder, num_partitions

    def __call__(self, row: dict) -> dict:
        """Read the files ``row["paths"]`` of ``row["shard"]``.

        Returns:
            ``problem``, not empty on failure; ``shard``; ``events``, the number read.
        """
        shard = int(row["shard"])
        try:
            content = self._parse([str(path) for path in row["paths"]])
            write_pieces(self._folder, shard, content, num_partitions=self._num_partitions)
        except MmtppError as error:
            return {"problem": error_to_json(error), "shard": shard, "events": 0}
        return {"problem": "", "shard": shard, "events": content.counts.num_read}


class JoinPartition:
    """Joins the sequences of a partition. One call is the work of a Ray Data task.

    Args:
        settings: Source and content of the store.
        folder: URI of the data folder, which holds the tokenizer.
    """

    def __init__(self, settings: EncodeSettings, folder: str) -> None:
        self._folder = folder
        self._write = ShardWriter(settings, folder)

    def __call__(self, row: dict) -> dict:
        """Join the pieces of the partition ``row["shard"]`` in ``row["ranges"]``.

        Returns:
            As ``ReadShard``.
        """
        shard = int(row["shard"])
        result = {"problem": "", "shard": shard, "events": 0, "counts": "", "num_images": 0}
        try:
            ranges = [PartitionRange(*bounds) for bounds in json.loads(row["ranges"])]
            content = read_partition(self._folder, ranges)
            events = sum(map(len, content.sequences))
            return result | {"events": events} | self._write(shard, content)
        except MmtppError as error:
            return result | {"problem": error_to_json(error)}
