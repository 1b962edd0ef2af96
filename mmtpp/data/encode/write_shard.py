"""Write the sequences of a shard: a finished shard, or one whose images are still to be decoded."""

import os

import numpy as np

from mmtpp.core.events import EventSequence
from mmtpp.core.split import BY_TIME
from mmtpp.data.encode.decoded_images import write_image_paths
from mmtpp.data.encode.encode_settings import EncodeSettings
from mmtpp.data.encode.parse_files import ParsedShard
from mmtpp.data.encode.shard_columns import ShardColumns
from mmtpp.data.encode.shard_output import (
    ShardReading,
    write_finished_shard,
    write_pending_sequences,
)
from mmtpp.data.encode.text_tokeniser import TextTokeniser
from mmtpp.data.sources.reader import ReadCounts
from mmtpp.model.tokens.vocabulary import TOKENIZER_FILE, Vocabulary
from mmtpp.storage.paths import join, read_bytes


class ShardWriter:
    """Tokenises the sequences of shards and writes them.

    Args:
        settings: Source and content of the store.
        folder: URI of the data folder, which holds the tokenizer.
    """

    def __init__(self, settings: EncodeSettings, folder: str) -> None:
        # many of these processes share a machine, so the tokenizer starts no threads
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        self._settings, self._folder = settings, folder
        self._tokenise: TextTokeniser | None = None

    def __call__(self, shard: int, content: ParsedShard) -> dict[str, str | int]:
        """Write a shard. A shard with images is left for the next steps.

        Args:
            shard: Number of the shard.
            content: Its sequences and rejected records.

        Returns:
            ``counts`` of a finished shard, or ``num_images`` of an unfinished one.

        Raises:
            StorageError: The shard cannot be written.
        """
        tokenise = self._load_tokeniser()
        num_replaced = tokenise.num_replaced
        columns, images = ShardColumns.from_sequences(
            content.sequences,
            paths=content.paths,
            splits=content.splits,
            cuts=self._time_cuts(content.sequences),
            tokenise=tokenise,
        )
        reading = ShardReading(
            paths=content.paths,
            rejected=content.rejected,
            counts=content.counts + ReadCounts(num_replaced=tokenise.num_replaced - num_replaced),
            num_images=len(images),
            seconds_per_unit=self._settings.seconds_per_unit,
            declared_splits=dict(content.declared_splits),
        )
        if not images:
            return {"counts": write_finished_shard(self._folder, shard, columns, reading, {})}
        write_image_paths(self._folder, shard, images)
        write_pending_sequences(self._folder, shard, columns)
        reading.save(self._folder, shard)
        return {"num_images": len(images)}

    def _load_tokeniser(self) -> TextTokeniser:
        # not in __init__, because only __call__ reports errors
        if self._tokenise is None:
            tokenizer = read_bytes(join(self._folder, TOKENIZER_FILE)).decode()
            self._tokenise = TextTokeniser(Vocabulary(tokenizer))
        return self._tokenise

    def _time_cuts(self, sequences: list[EventSequence]) -> np.ndarray | None:
        """(S, 2) times at which validation and test begin; None if sequences are not cut."""
        if self._settings.split_by != BY_TIME:
            return None
        split = self._settings.time_split
        cuts = [split.cuts(sequence.times) for sequence in sequences]
        return np.array(cuts, dtype=np.float64).reshape(-1, 2)
