"""Parse the event files of a shard: checked sequences with their splits, and rejected records."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from mmtpp.core.errors import DataError
from mmtpp.core.events import EventSequence, Rejected
from mmtpp.core.split import BY_TIME, split_from_key
from mmtpp.data.encode.encode_settings import EncodeSettings
from mmtpp.data.encode.given_splits import assign_given_splits
from mmtpp.data.encode.type_names import count_types_in_file, unnamed_types_error
from mmtpp.data.sources.checking import read_file, warn_of_dates
from mmtpp.data.sources.event_files import MalformedFileError
from mmtpp.data.sources.reader import ParsedFile, ReadCounts
from mmtpp.storage.paths import join, prefetch, read_bytes

FILES_IN_FLIGHT = 8
KINDS_WITHOUT_DATES = ("mmtpp", "easytpp")


@dataclass(slots=True)
class ParsedShard:
    """Content of a shard's files.

    Attributes:
        sequences: S sequences.
        paths: File of each sequence.
        splits: Split of each sequence; ``time`` for sequences that are cut in time.
        rejected: Records that were read but not kept.
        counts: Counts of the events.
        declared_splits: Number of sequences of each split, according to the records of the files.
    """

    sequences: list[EventSequence] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    counts: ReadCounts = field(default_factory=ReadCounts)
    declared_splits: Counter[str] = field(default_factory=Counter)


class ShardParser:
    """Parses the event files of a shard.

    Args:
        settings: Source and content of the store.
    """

    def __init__(self, settings: EncodeSettings) -> None:
        self._settings = settings
        self._reader = settings.build_reader()
        self._types = settings.build_type_codes()
        self._pool = ThreadPoolExecutor(FILES_IN_FLIGHT, thread_name_prefix="files")

    def __call__(self, paths: list[str]) -> ParsedShard:
        """Parse files.

        Args:
            paths: Paths relative to the source.

        Raises:
            DataError: A file is malformed and the settings do not reject it, its split is unknown,
                or most types have no names.
            StorageError: A file cannot be read.
        """
        shard = ParsedShard()
        contents = prefetch(self._pool, self._load, paths, depth=FILES_IN_FLIGHT)
        for path, content in zip(paths, contents, strict=True):
            parsed = self._parse(path, content)
            shard.counts += parsed.counts
            shard.rejected += parsed.rejected
            shard.declared_splits.update(filter(None, parsed.splits))
            sequences, splits = self._assign_splits(path, parsed)
            shard.sequences += sequences
            shard.splits += splits
            shard.paths += [path] * len(sequences)
        self._check_types(paths, shard.rejected, shard.counts.num_read)
        return shard

    def _load(self, path: str) -> bytes:
        return read_bytes(join(self._settings.source_uri, path))

    def _parse(self, path: str, content: bytes) -> ParsedFile:
        settings = self._settings
        try:
            parsed = read_file(self._reader, path, content, types=self._types)
        except MalformedFileError as error:
            return reject_file(
                path, error, where=settings.source_uri, malformed_file=settings.malformed_file
            )
        if settings.source_kind in KINDS_WITHOUT_DATES:
            warn_of_dates(parsed, path, seconds_per_unit=settings.seconds_per_unit)
        return parsed

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

    def _split_by_hash(self, sequence: EventSequence) -> str:
        split_key = self._reader.split_key
        return split_from_key(
            split_key(sequence) if split_key else sequence.sequence_id,
            validation_fraction=self._settings.validation_fraction,
            test_fraction=self._settings.test_fraction,
        )


def reject_file(
    path: str, error: MalformedFileError, *, where: str, malformed_file: str
) -> ParsedFile:
    """Count a malformed file as rejected, where the settings allow that.

    Args:
        path: Path relative to the source.
        error: Why the file cannot be read.
        where: Location of the source, for messages.
        malformed_file: Treatment of such files, ``fail`` or ``reject``.

    Raises:
        DataError: Malformed files stop the job, or the number of lost events is unknown.
    """
    if malformed_file == "fail":
        raise DataError(
            str(error),
            where=where,
            cause="the file is damaged or of another kind",
            setting="source.malformed_file = fail; set it to reject to count such files "
            "and continue",
        ) from error
    if error.num_events is None:
        raise DataError(
            f"{error}; the number of events in the file is unknown",
            where=where,
            cause="the file is damaged or of another kind; repair it, or move it out of the folder",
            setting="source.malformed_file = reject, which must count the lost events",
        ) from error
    lost = max(1, error.num_events)
    rejected = Rejected(path, -1, "malformed_file", str(error), "", events=lost)
    return ParsedFile([], [rejected], ReadCounts(lost))
