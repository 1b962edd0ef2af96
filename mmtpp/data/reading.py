"""First step of ``encode``: event files to checked and tokenised sequences, a shard at a time."""

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mmtpp.core.errors import DataError, MmtppError, as_record
from mmtpp.core.events import EventSequence, Rejected
from mmtpp.core.split import BY_TIME, split_of
from mmtpp.data.finishing import Reading, finish_shard
from mmtpp.data.frames import write_image_paths
from mmtpp.data.layout import PENDING, EncodeSettings, shard_file
from mmtpp.data.parts import given_parts
from mmtpp.data.shard import ShardColumns
from mmtpp.data.sources.reader import MalformedFileError, ParsedFile, read_file
from mmtpp.data.texts import TextTokeniser
from mmtpp.model.vocabulary import TOKENIZER_FILE, Vocabulary
from mmtpp.storage.paths import ahead, join, read_bytes

FILES_IN_FLIGHT = 8


class ReadShard:
    """Reads the event files of a shard, the work of a Ray Data task.

    A shard without images is finished here; any other is left for the next steps.

    Args:
        settings: what to do.
        folder: URI of the data folder, with the tokenizer in it.
    """

    def __init__(self, settings: EncodeSettings, folder: str) -> None:
        # one process of many on its machine: no threads of its own for computing
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        self._settings = settings
        self._folder = folder
        self._reader = settings.reader()
        self._tokenise: TextTokeniser | None = None
        self._pool = ThreadPoolExecutor(FILES_IN_FLIGHT, thread_name_prefix="files")

    def __call__(self, row: dict) -> dict:
        """Read the files ``row["paths"]`` of ``row["shard"]``.

        Returns:
            ``problem``, not empty on failure; ``shard``; events read; ``counts`` of a finished
            shard; ``num_images`` of any other.
        """
        shard = int(row["shard"])
        result = {"problem": "", "shard": shard, "events": 0, "counts": "", "num_images": 0}
        try:
            return result | self._read(shard, [str(path) for path in row["paths"]])
        except MmtppError as error:
            return result | {"problem": as_record(error)}

    def _read(self, shard: int, paths: list[str]) -> dict[str, str | int]:
        sequences: list[EventSequence] = []
        files: list[str] = []
        splits: list[str] = []
        parts: Counter[str] = Counter()
        rejected: list[Rejected] = []
        num_read = num_reordered = num_disagreeing = 0
        contents = ahead(self._pool, self._content, paths, depth=FILES_IN_FLIGHT)
        for path, content in zip(paths, contents, strict=True):
            parsed = self._parse(path, content)
            num_read += parsed.num_read
            num_reordered += parsed.num_reordered
            num_disagreeing += parsed.num_disagreeing
            rejected += parsed.rejected
            parts.update(filter(None, parsed.parts))
            kept, of_kept = self._in_parts(path, parsed)
            sequences += kept
            splits += of_kept
            files += [path] * len(kept)
        columns, images = ShardColumns.of(
            sequences,
            paths=files,
            splits=splits,
            cuts=self._cuts(sequences),
            tokenise=self._tokeniser(),
        )
        reading = Reading(
            paths=files,
            rejected=rejected,
            num_read=num_read,
            num_reordered=num_reordered,
            num_disagreeing=num_disagreeing,
            num_images=len(images),
            seconds_per_unit=self._settings.seconds_per_unit,
            parts=dict(parts),
        )
        if not images:
            counts = finish_shard(self._folder, shard, columns, reading, {})
            return {"events": num_read, "counts": counts}
        write_image_paths(self._folder, shard, images)
        columns.write(join(self._folder, PENDING, shard_file(shard)))
        reading.save(self._folder, shard)
        return {"events": num_read, "num_images": len(images)}

    def _tokeniser(self) -> TextTokeniser:
        # not in __init__: __call__ reports what fails
        if self._tokenise is None:
            tokenizer = read_bytes(join(self._folder, TOKENIZER_FILE)).decode()
            self._tokenise = TextTokeniser(Vocabulary(tokenizer))
        return self._tokenise

    def _content(self, path: str) -> bytes:
        return read_bytes(join(self._settings.source_uri, path))

    def _parse(self, path: str, content: bytes) -> ParsedFile:
        settings = self._settings
        try:
            if not content:
                raise MalformedFileError(f"{path}: the file is empty")
            return read_file(self._reader, path, content, type_names=settings.type_names)
        except MalformedFileError as error:
            if settings.malformed_file == "fail":
                raise DataError(
                    str(error),
                    where=settings.source_uri,
                    cause="the file is damaged or of another kind",
                    setting="source.malformed_file = fail; set it to reject to count such files "
                    "and continue",
                ) from error
            # its events cannot be counted: the file counts as one
            return ParsedFile([], [Rejected(path, -1, "malformed_file", str(error), "")], 1, 0, 0)

    def _in_parts(self, path: str, parsed: ParsedFile) -> tuple[list[EventSequence], list[str]]:
        """The sequences of a file, and the part of each."""
        settings = self._settings
        if settings.split_by == "given":
            return given_parts(path, parsed, where=settings.source_uri)
        if settings.split_by == BY_TIME:
            return parsed.sequences, [BY_TIME] * len(parsed.sequences)
        return parsed.sequences, [self._by_hash(sequence) for sequence in parsed.sequences]

    def _cuts(self, sequences: list[EventSequence]) -> np.ndarray | None:
        """(S, 2) instants at which sequences are cut in time; None where they are not."""
        if self._settings.split_by != BY_TIME:
            return None
        split = self._settings.time_split
        cuts = [split.cuts(sequence.times) for sequence in sequences]
        return np.array(cuts, dtype=np.float64).reshape(-1, 2)

    def _by_hash(self, sequence: EventSequence) -> str:
        split_by = self._reader.split_by
        return split_of(
            split_by(sequence) if split_by else sequence.sequence_id,
            validation_fraction=self._settings.validation_fraction,
            test_fraction=self._settings.test_fraction,
        )
