"""First step of ``encode``: read the event files of a shard to checked, tokenised sequences."""

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mmtpp.core.errors import DataError, MmtppError, error_to_json
from mmtpp.core.events import EventSequence, Rejected
from mmtpp.core.split import BY_TIME, split_from_key
from mmtpp.data.encode.decoded_images import write_image_paths
from mmtpp.data.encode.encode_settings import EncodeSettings
from mmtpp.data.encode.given_splits import assign_given_splits
from mmtpp.data.encode.shard_columns import ShardColumns
from mmtpp.data.encode.shard_output import (
    ShardReading,
    write_finished_shard,
    write_pending_sequences,
)
from mmtpp.data.encode.text_tokeniser import TextTokeniser
from mmtpp.data.encode.type_names import count_types_in_file, unnamed_types_error
from mmtpp.data.sources.checking import read_file, warn_of_dates
from mmtpp.data.sources.event_files import MalformedFileError
from mmtpp.data.sources.reader import ParsedFile, ReadCounts
from mmtpp.model.vocabulary import TOKENIZER_FILE, Vocabulary
from mmtpp.storage.paths import join, prefetch, read_bytes

FILES_IN_FLIGHT = 8
KINDS_WITHOUT_DATES = ("mmtpp", "easytpp")


class ReadShard:
    """Reads the event files of a shard. One call is the work of a Ray Data task.

    A shard without images is finished here. A shard with images is left for the next steps.

    Args:
        settings: Source and content of the store.
        folder: URI of the data folder, which holds the tokenizer.
    """

    def __init__(self, settings: EncodeSettings, folder: str) -> None:
        # many of these processes share a machine, so the tokenizer starts no threads
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        self._settings = settings
        self._folder = folder
        self._reader = settings.build_reader()
        self._types = settings.build_type_codes()
        self._tokenise: TextTokeniser | None = None
        self._pool = ThreadPoolExecutor(FILES_IN_FLIGHT, thread_name_prefix="files")

    def __call__(self, row: dict) -> dict:
        """Read the files ``row["paths"]`` of ``row["shard"]``.

        Returns:
            ``problem``, not empty on failure; ``shard``; ``events``, the number read; ``counts``
            of a finished shard; ``num_images`` of an unfinished shard.
        """
        shard = int(row["shard"])
        result = {"problem": "", "shard": shard, "events": 0, "counts": "", "num_images": 0}
        try:
            return result | self._read(shard, [str(path) for path in row["paths"]])
        except MmtppError as error:
            return result | {"problem": error_to_json(error)}

    def _read(self, shard: int, paths: list[str]) -> dict[str, str | int]:
        sequences: list[EventSequence] = []
        sequence_paths: list[str] = []
        splits: list[str] = []
        declared_splits: Counter[str] = Counter()
        rejected: list[Rejected] = []
        counts = ReadCounts()
        contents = prefetch(self._pool, self._load, paths, depth=FILES_IN_FLIGHT)
        for path, content in zip(paths, contents, strict=True):
            parsed = self._parse(path, content)
            counts += parsed.counts
            rejected += parsed.rejected
            declared_splits.update(filter(None, parsed.splits))
            file_sequences, file_splits = self._assign_splits(path, parsed)
            sequences += file_sequences
            splits += file_splits
            sequence_paths += [path] * len(file_sequences)
        self._check_types(paths, rejected, counts.num_read)
        tokenise = self._load_tokeniser()
        num_replaced = tokenise.num_replaced
        columns, images = ShardColumns.from_sequences(
            sequences,
            paths=sequence_paths,
            splits=splits,
            cuts=self._time_cuts(sequences),
            tokenise=tokenise,
        )
        reading = ShardReading(
            paths=sequence_paths,
            rejected=rejected,
            counts=counts + ReadCounts(num_replaced=tokenise.num_replaced - num_replaced),
            num_images=len(images),
            seconds_per_unit=self._settings.seconds_per_unit,
            parts=dict(declared_splits),
        )
        if not images:
            finished = write_finished_shard(self._folder, shard, columns, reading, {})
            return {"events": counts.num_read, "counts": finished}
        write_image_paths(self._folder, shard, images)
        write_pending_sequences(self._folder, shard, columns)
        reading.save(self._folder, shard)
        return {"events": counts.num_read, "num_images": len(images)}

    def _load_tokeniser(self) -> TextTokeniser:
        # not in __init__, because only __call__ reports errors
        if self._tokenise is None:
            tokenizer = read_bytes(join(self._folder, TOKENIZER_FILE)).decode()
            self._tokenise = TextTokeniser(Vocabulary(tokenizer))
        return self._tokenise

    def _load(self, path: str) -> bytes:
        return read_bytes(join(self._settings.source_uri, path))

    def _parse(self, path: str, content: bytes) -> ParsedFile:
        settings = self._settings
        try:
            parsed = read_file(self._reader, path, content, types=self._types)
        except MalformedFileError as error:
            return ParsedFile([], *self._reject_file(path, error))
        if settings.source_kind in KINDS_WITHOUT_DATES:
            warn_of_dates(parsed, path, seconds_per_unit=settings.seconds_per_unit)
        return parsed

    def _reject_file(
        self, path: str, error: MalformedFileError
    ) -> tuple[list[Rejected], ReadCounts]:
        """Count a malformed file as rejected, where the settings allow that.

        Raises:
            DataError: Malformed files stop the job, or the number of lost events is unknown.
        """
        settings = self._settings
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
                f"{error}; the number of events in the file is unknown",
                where=settings.source_uri,
                cause="the file is damaged or of another kind; repair it, or move it out of "
                "the folder",
                setting="source.malformed_file = reject, which must count the lost events",
            ) from error
        lost = max(1, error.num_events)
        rejected = Rejected(path, -1, "malformed_file", str(error), "", events=lost)
        return [rejected], ReadCounts(lost)

    def _check_types(self, paths: list[str], rejected: list[Rejected], num_read: int) -> None:
        """Stop if most events are rejected because types are names and ``source.types`` is empty.

        Raises:
            DataError: The error shows the setting to paste.
        """
        num_unnamed = sum(record.cause == "unnamed_type" for record in rejected)
        if 2 * num_unnamed <= num_read:
            return
        counts = self._count_types(paths)
        raise unnamed_types_error(counts, where=self._settings.source_uri)

    def _count_types(self, paths: list[str]) -> Counter[str]:
        """Number of events of each type in the readable files."""
        counts: Counter[str] = Counter()
        contents = prefetch(self._pool, self._load, paths, depth=FILES_IN_FLIGHT)
        for path, content in zip(paths, contents, strict=True):
            counts += count_types_in_file(self._reader, path, content)
        return counts

    def _assign_splits(
        self, path: str, parsed: ParsedFile
    ) -> tuple[list[EventSequence], list[str]]:
        """The sequences of a file, possibly under new ids, and the split of each sequence."""
        settings = self._settings
        if settings.split_by == "given":
            return assign_given_splits(path, parsed, where=settings.source_uri)
        if settings.split_by == BY_TIME:
            return parsed.sequences, [BY_TIME] * len(parsed.sequences)
        return parsed.sequences, [self._split_by_hash(sequence) for sequence in parsed.sequences]

    def _time_cuts(self, sequences: list[EventSequence]) -> np.ndarray | None:
        """(S, 2) times at which validation and test begin; None if sequences are not cut."""
        if self._settings.split_by != BY_TIME:
            return None
        split = self._settings.time_split
        cuts = [split.cuts(sequence.times) for sequence in sequences]
        return np.array(cuts, dtype=np.float64).reshape(-1, 2)

    def _split_by_hash(self, sequence: EventSequence) -> str:
        split_key = self._reader.split_key
        return split_from_key(
            split_key(sequence) if split_key else sequence.sequence_id,
            validation_fraction=self._settings.validation_fraction,
            test_fraction=self._settings.test_fraction,
        )
