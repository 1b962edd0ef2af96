"""Read raw event files into memory, to inspect them or to use a few of them without a store.

``encode`` reads the files of a whole source in Ray Data, with the same readers.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from mmtpp.config.schema import SourceSection
from mmtpp.core.errors import DataError
from mmtpp.core.events import EventSequence, Rejected
from mmtpp.core.join import join_pieces
from mmtpp.core.rejection_summary import RejectionSummary
from mmtpp.core.split import split_from_path
from mmtpp.data.encode.encode_settings import AUTO as PARTITIONING_AUTO
from mmtpp.data.encode.parse_files import KINDS_WITHOUT_DATES
from mmtpp.data.encode.source_listing import (
    SourceListing,
    list_files_of_source,
    no_files_error,
)
from mmtpp.data.encode.type_names import (
    choose_type_names,
    count_types_in_file,
    names_unless_numbers,
)
from mmtpp.data.from_config import build_source_reader, build_type_names
from mmtpp.data.sources.checking import read_file, warn_of_dates
from mmtpp.data.sources.event_files import MalformedFileError, whole_suffix
from mmtpp.data.sources.folder_keys import list_folder_keys
from mmtpp.data.sources.reader import ParsedFile, ReadCounts, SourceReader
from mmtpp.data.sources.type_codes import AUTO, OTHER, TypeCodes
from mmtpp.storage.paths import join, read_bytes, split_file

logger = logging.getLogger(__name__)

_FILES_WITHOUT_NAMES = 20  # types are numbers if these files hold no names
_FILES_IN_FLIGHT = 8
_SHOWN_CAUSES = 3


@dataclass(frozen=True, slots=True)
class RawDataset:
    """The content of event files.

    Attributes:
        root: Folder that image paths are relative to.
        sequences: Kept events, each sequence in order of time.
        given_splits: Split of each sequence according to its records or the path of its file; empty
            text if they name no split.
        num_joined: Number of sequences whose events were read from several files.
        seconds_per_unit: Seconds in one unit of the times.
        type_names: Type names by code; empty where types are numbers.
        has_found_names: Whether the names come from the events; False if source or settings fix
            them.
        num_files: Number of files read.
        num_files_in_source: Number of event files in the source.
        counts: Counts of the events.
        rejected: Records that were not kept. A malformed file is one record with all its events.
        files_read: Number of files read, by suffix.
        files_not_read: Number of files that hold no events, by suffix.
        folder_columns: Number of distinct values of the columns that the names of folders give.
    """

    root: str
    sequences: list[EventSequence]
    given_splits: list[str]
    num_joined: int
    seconds_per_unit: float
    type_names: tuple[str, ...]
    has_found_names: bool
    num_files: int
    num_files_in_source: int
    counts: ReadCounts
    rejected: list[Rejected]
    files_read: dict[str, int]
    files_not_read: dict[str, int]
    folder_columns: dict[str, int]

    @property
    def times_are_dates(self) -> bool:
        """Whether times count from 1970-01-01T00:00:00 UTC."""
        return 0 < self.counts.num_dated >= sum(map(len, self.sequences))

    def rejected_by_cause(self) -> dict[str, int]:
        """Number of rejected events, by cause."""
        causes: Counter[str] = Counter()
        for record in self.rejected:
            causes[record.cause] += record.events
        return dict(causes)

    def losses(self) -> RejectionSummary:
        """Sequences that lost their newest event or all events, and files that lost all events."""
        last_times: dict[str, float] = {}
        for sequence in self.sequences:
            name = sequence.sequence_id
            last_times[name] = max(last_times.get(name, -np.inf), float(sequence.times[-1]))
        return RejectionSummary.from_records(self.rejected, last_times)


def load_raw_dataset(
    source: SourceSection, *, split_by: str = "hash", max_files: int = 0
) -> RawDataset:
    """Read the files of ``source.uri``, a folder or one file.

    Args:
        source: Location, kind, columns, types and unit of the source.
        split_by: How ``prepare`` splits the sequences, ``split.by``. Given splits are part of ids.
        max_files: Number of files to read, evenly spread; 0 reads all files.

    Raises:
        DataError: There are no files, or no events in them.
        ConfigError: The settings of the source contradict each other.
        StorageError: The source cannot be reached.
    """
    reader = build_source_reader(source)
    fixed_names, _ = build_type_names(source, reader)
    folder, file = split_file(source.uri)
    files_of_source = list_files_of_source(folder, file)
    listing = SourceListing.from_source(reader, folder, files_of_source)
    paths = [path for path, _ in listing.events]
    if not paths:
        kind = f"source.kind = {source.kind}"
        raise no_files_error(reader, listing, where=source.uri, setting=kind)
    step = -(-len(paths) // max_files) if max_files else 1
    chosen = paths[::step]
    logger.info("reading %d of %d files", len(chosen), len(paths))
    files = _read_files(folder, chosen)
    type_names = fixed_names or find_type_names(reader, files, source)
    types = TypeCodes(type_names, source.rare_types == OTHER and bool(type_names))
    parsed_files = [_read_file(reader, path, content, types, source) for path, content in files]
    joins = reader.names_sequences and source.partitioning != "file"
    # as prepare: with ``auto``, ids often begin anew in the files of another split
    splits_ids = split_by == "given" or source.partitioning == PARTITIONING_AUTO
    collected = _collect(chosen, parsed_files, joins=joins, ids_have_splits=splits_ids)
    sequences, given_splits, num_joined = collected
    dataset = RawDataset(
        root=folder,
        sequences=sequences,
        given_splits=given_splits,
        num_joined=num_joined,
        seconds_per_unit=reader.seconds_per_unit or source.seconds_per_unit,
        type_names=type_names,
        has_found_names=bool(type_names) and not fixed_names,
        num_files=len(chosen),
        num_files_in_source=len(paths),
        counts=sum((parsed.counts for parsed in parsed_files), ReadCounts()),
        rejected=[record for parsed in parsed_files for record in parsed.rejected],
        files_read=dict(Counter(map(whole_suffix, chosen))),
        files_not_read=listing.not_read,
        folder_columns=list_folder_keys(paths) if source.kind == "columns" else {},
    )
    if not dataset.sequences:
        raise DataError(
            "no events" + _listed_causes(dataset.rejected_by_cause()),
            where=source.uri,
            cause="; ".join(_example_records(dataset.rejected)) or "the files have no records",
            setting=f"source.kind = {source.kind}",
        )
    return dataset


def _read_files(folder: str, paths: Sequence[str]) -> list[tuple[str, bytes]]:
    with ThreadPoolExecutor(_FILES_IN_FLIGHT) as pool:
        contents = pool.map(lambda path: read_bytes(join(folder, path)), paths)
        return list(zip(paths, contents, strict=True))


def _collect(
    paths: Sequence[str],
    parsed_files: Sequence[ParsedFile],
    *,
    joins: bool,
    ids_have_splits: bool,
) -> tuple[list[EventSequence], list[str], int]:
    """Sequences of all files, the split that is given for each, and the number of joined ones.

    Args:
        paths: Paths of the files.
        parsed_files: Content of each file.
        joins: Whether the events of one id are one sequence, whatever their files.
        ids_have_splits: Whether equal ids of different given splits are different sequences.
    """
    pieces: dict[tuple[str, str, int], list[EventSequence]] = {}
    splits: list[str] = []
    for path, parsed in zip(paths, parsed_files, strict=True):
        for sequence, named in zip(parsed.sequences, parsed.split_by_sequence(), strict=True):
            split = named or split_from_path(path)
            place = 0 if joins else len(pieces)
            key = (sequence.sequence_id, split if ids_have_splits else "", place)
            if key not in pieces:
                pieces[key] = []
                splits.append(split)
            pieces[key].append(sequence)
    return (
        [join_pieces(of_sequence) for of_sequence in pieces.values()],
        splits,
        sum(len(of_sequence) > 1 for of_sequence in pieces.values()),
    )


def _listed_causes(rejected_by_cause: Mapping[str, int]) -> str:
    """Numbers of rejected events by cause, as the end of a sentence."""
    causes = ", ".join(f"{count:,} {cause}" for cause, count in rejected_by_cause.items())
    return f"; rejected: {causes}" if causes else ""


def _read_file(
    reader: SourceReader, path: str, content: bytes, types: TypeCodes, source: SourceSection
) -> ParsedFile:
    """Read one file. A malformed file becomes one rejected record."""
    try:
        parsed = read_file(reader, path, content, types=types)
    except MalformedFileError as error:
        lost = max(1, error.num_events or 1)
        unknown = "; the number of its events is unknown" if error.num_events is None else ""
        record = Rejected(path, -1, "malformed_file", f"{error}{unknown}", "", events=lost)
        return ParsedFile([], [record], ReadCounts(lost))
    if source.kind in KINDS_WITHOUT_DATES:
        warn_of_dates(parsed, path, seconds_per_unit=source.seconds_per_unit)
    return parsed


def _example_records(rejected: Sequence[Rejected]) -> list[str]:
    """One rejected record for each of the first causes."""
    examples: dict[str, str] = {}
    for record in rejected:
        examples.setdefault(record.cause, record.message())
    return list(examples.values())[:_SHOWN_CAUSES]


def find_type_names(
    reader: SourceReader, files: list[tuple[str, bytes]], source: SourceSection
) -> tuple[str, ...]:
    """Find the type names that occur, the most frequent first; none where types are numbers.

    Args:
        reader: Reader of the source.
        files: Paths and contents of the files.
        source: Settings ``types`` (``auto`` makes numbers names too) and ``rare_types``.

    Raises:
        DataError: There are more names than codes.
    """
    is_auto = source.types == AUTO
    counts: Counter[str] = Counter()
    for place, (path, content) in enumerate(files):
        counts += count_types_in_file(reader, path, content)
        if not is_auto and not names_unless_numbers(counts) and place >= _FILES_WITHOUT_NAMES:
            return ()
    if not is_auto and not names_unless_numbers(counts):
        return ()
    return choose_type_names(
        counts, known=(), folds_rare=source.rare_types == OTHER, where=source.uri
    )
