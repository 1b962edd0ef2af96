"""First step of ``encode``: event files to checked and tokenised sequences, a shard at a time."""

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mmtpp.core.errors import DataError, MmtppError, error_to_json
from mmtpp.core.events import EventSequence, Rejected
from mmtpp.core.split import BY_TIME, split_from_key
from mmtpp.data.encode.encode_settings import EncodeSettings
from mmtpp.data.encode.finish_shard import Reading, finish_shard
from mmtpp.data.encode.frames import write_image_paths
from mmtpp.data.encode.given_parts import given_parts
from mmtpp.data.encode.shard_columns import ShardColumns
from mmtpp.data.encode.text_tokeniser import TextTokeniser
from mmtpp.data.encode.type_names import types_in, unnamed_types
from mmtpp.data.sources.checking import read_file, warn_of_dates
from mmtpp.data.sources.reader import ParsedFile, ReadCounts
from mmtpp.data.sources.tables import MalformedFileError
from mmtpp.data.store.layout import PENDING, shard_file
from mmtpp.model.vocabulary import TOKENIZER_FILE, Vocabulary
from mmtpp.storage.paths import ahead, join, read_bytes

FILES_IN_FLIGHT = 8
KINDS_WITHOUT_DATES = ("mmtpp", "easytpp")


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
        self._types = settings.types()
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
            return result | {"problem": error_to_json(error)}

    def _read(self, shard: int, paths: list[str]) -> dict[str, str | int]:
        sequences: list[EventSequence] = []
        files: list[str] = []
        splits: list[str] = []
        parts: Counter[str] = Counter()
        rejected: list[Rejected] = []
        counts = ReadCounts()
        contents = ahead(self._pool, self._content, paths, depth=FILES_IN_FLIGHT)
        for path, content in zip(paths, contents, strict=True):
            parsed = self._parse(path, content)
            counts += parsed.counts
            rejected += parsed.rejected
            parts.update(filter(None, parsed.parts))
            kept, of_kept = self._in_parts(path, parsed)
            sequences += kept
            splits += of_kept
            files += [path] * len(kept)
        self._check_types(paths, rejected, counts.num_read)
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
            counts=counts,
            num_images=len(images),
            seconds_per_unit=self._settings.seconds_per_unit,
            parts=dict(parts),
        )
        if not images:
            finished = finish_shard(self._folder, shard, columns, reading, {})
            return {"events": counts.num_read, "counts": finished}
        write_image_paths(self._folder, shard, images)
        columns.write(join(self._folder, PENDING, shard_file(shard)))
        reading.save(self._folder, shard)
        return {"events": counts.num_read, "num_images": len(images)}

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
            parsed = read_file(self._reader, path, content, types=self._types)
        except MalformedFileError as error:
            if settings.malformed_file == "fail":
                raise DataError(
                    str(error),
                    where=settings.source_uri,
                    cause="the file is damaged or of another kind",
                    setting="source.malformed_file = fail; set it to reject to count such files "
                    "and continue",
                ) from error
            if error.num_events is None:
                raise DataError(
                    f"{error}; the number of events that are lost with it is unknown",
                    where=settings.source_uri,
                    cause="the file is damaged or of another kind; repair it, or move it out of "
                    "the folder",
                    setting="source.malformed_file = reject, which counts lost events",
                ) from error
            lost = max(1, error.num_events)
            rejected = Rejected(path, -1, "malformed_file", str(error), "", events=lost)
            return ParsedFile([], [rejected], ReadCounts(lost))
        if settings.source_kind in KINDS_WITHOUT_DATES:
            warn_of_dates(parsed, path, seconds_per_unit=settings.seconds_per_unit)
        return parsed

    def _check_types(self, paths: list[str], rejected: list[Rejected], num_read: int) -> None:
        """Stop where most events are rejected because types are names and none is set.

        Raises:
            DataError: with the setting to paste.
        """
        unnamed = sum(record.cause == "unnamed_type" for record in rejected)
        if 2 * unnamed <= num_read:
            return
        names = self._count_types(paths)
        raise unnamed_types(names, where=self._settings.source_uri)

    def _count_types(self, paths: list[str]) -> Counter[str]:
        """Events of each type in files that can be read."""
        names: Counter[str] = Counter()
        contents = ahead(self._pool, self._content, paths, depth=FILES_IN_FLIGHT)
        for path, content in zip(paths, contents, strict=True):
            names += types_in(self._reader, path, content)
        return names

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
        return split_from_key(
            split_by(sequence) if split_by else sequence.sequence_id,
            validation_fraction=self._settings.validation_fraction,
            test_fraction=self._settings.test_fraction,
        )
