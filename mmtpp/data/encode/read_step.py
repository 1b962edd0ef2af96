"""First step of ``encode``: read the event files of a shard to checked, tokenised sequences."""

import json

from mmtpp.core.errors import MmtppError, error_to_json
from mmtpp.data.encode.encode_settings import EncodeSettings
from mmtpp.data.encode.parse_files import ShardParser
from mmtpp.data.encode.repeated_ids import sample_ids
from mmtpp.data.encode.write_shard import ShardWriter


class ReadShard:
    """Reads the event files of a shard. One call is the work of a Ray Data task.

    A shard without images is finished here. A shard with images is left for the next steps.

    Args:
        settings: Source and content of the store.
        folder: URI of the data folder, which holds the tokenizer.
    """

    def __init__(self, settings: EncodeSettings, folder: str) -> None:
        self._parse = ShardParser(settings)
        self._write = ShardWriter(settings, folder)

    def __call__(self, row: dict) -> dict:
        """Read the files ``row["paths"]`` of ``row["shard"]``.

        Returns:
            ``problem``, not empty on failure; ``shard``; ``events``, the number read; ``counts``
            of a finished shard; ``num_images`` of an unfinished shard; ``id_sample``, JSON of
            ``sample_ids``.
        """
        shard = int(row["shard"])
        result = {
            "problem": "",
            "shard": shard,
            "events": 0,
            "counts": "",
            "num_images": 0,
            "id_sample": "",
        }
        try:
            content = self._parse([str(path) for path in row["paths"]])
            ids = [sequence.sequence_id for sequence in content.sequences]
            result |= {"events": content.counts.num_read, "id_sample": json.dumps(sample_ids(ids))}
            return result | self._write(shard, content)
        except MmtppError as error:
            return result | {"problem": error_to_json(error)}
