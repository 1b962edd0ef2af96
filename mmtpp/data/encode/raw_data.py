"""Raw event files read into memory, to look at them or to work with a few of them.

``encode`` reads them in Ray Data with the same readers.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from mmtpp.config.schema import Source
from mmtpp.core.errors import DataError
from mmtpp.core.events import (
    NO_FRAME,
    Events,
    EventSequence,
    Rejected,
    intervals_from_times,
)
from mmtpp.core.rejection_summary import RejectionSummary
from mmtpp.data.encode.listing import listing
from mmtpp.data.encode.read_shard import KINDS_WITHOUT_DATES
from mmtpp.data.encode.text_tokeniser import TextTokeniser
from mmtpp.data.encode.type_names import chosen_types, names_of, types_in
from mmtpp.data.settings import source_reader, type_names_of
from mmtpp.data.sources.checking import read_file, warn_of_dates
from mmtpp.data.sources.reader import ReadCounts, SourceReader
from mmtpp.data.sources.tables import MalformedFileError
from mmtpp.data.sources.types import AUTO, OTHER, TypeCodes
from mmtpp.model.vocabulary import Vocabulary
from mmtpp.storage.paths import join, list_source, read_bytes, split_file

logger = logging.getLogger(__name__)

_FILES_WITHOUT_NAMES = 20  # if these have none, types are numbers
_FILES_IN_FLIGHT = 8
_SHOWN_CAUSES = 3


@dataclass(frozen=True, slots=True)
class RawData:
    """What event files hold.

    Attributes:
        root: what paths of images are relative to.
        sequences: kept events in order of time.
        seconds_per_unit: of their times.
        type_names: by code, possibly empty.
        has_found_names: the names are those that occur; neither source nor settings fix them.
        num_files: read, of ``num_files_there``.
        counts: Of events, as in ``ParsedFile``.
        rejected: Records that were not kept; a malformed file is one, with the events it lost.
        files_not_read: Number of files that hold no events, by suffix.
    """

    root: str
    sequences: list[EventSequence]
    seconds_per_unit: float
    type_names: tuple[str, ...]
    has_found_names: bool
    num_files: int
    num_files_there: int
    counts: ReadCounts
    rejected: list[Rejected]
    files_not_read: dict[str, int]

    @property
    def times_are_dates(self) -> bool:
        """Times count from 1970-01-01T00:00:00 UTC."""
        return 0 < self.counts.num_dated >= sum(map(len, self.sequences))

    def rejected_by_cause(self) -> dict[str, int]:
        """Number of events that were rejected, by cause."""
        causes: Counter[str] = Counter()
        for record in self.rejected:
            causes[record.cause] += record.events
        return dict(causes)

    def losses(self) -> RejectionSummary:
        """Sequences that lack their newest event or all events, and files that lack all."""
        last_times: dict[str, float] = {}
        for sequence in self.sequences:
            name = sequence.sequence_id
            last_times[name] = max(last_times.get(name, -np.inf), float(sequence.times[-1]))
        return RejectionSummary.from_records(self.rejected, last_times)


def read_raw(source: Source, *, max_files: int = 0) -> RawData:
    """Read the files of ``source.uri``, a folder or one file.

    Args:
        source: kind, columns, types and unit.
        max_files: files read, evenly spread; 0 for all.

    Raises:
        DataError: no files, or no events in them.
        ConfigError, StorageError: as for ``prepare``.
    """
    reader = source_reader(source)
    fixed, _ = type_names_of(source, reader)
    folder, file = split_file(source.uri)
    found = listing(reader, list_source(folder, file))
    paths = [path for path, _ in found.events]
    if not paths:
        raise DataError(
            f"no {' or '.join(reader.suffixes)} files",
            where=source.uri,
            cause=found.warning(),
            setting=f"source.kind = {source.kind}",
        )
    step = -(-len(paths) // max_files) if max_files else 1
    chosen = paths[::step]
    logger.info("reading %d of %d files", len(chosen), len(paths))
    with ThreadPoolExecutor(_FILES_IN_FLIGHT) as pool:
        contents = list(pool.map(lambda path: read_bytes(join(folder, path)), chosen))
    files = list(zip(chosen, contents, strict=True))
    folds_rare = source.rare_types == OTHER
    named = fixed or names_in(reader, files, source)
    types = TypeCodes(named, folds_rare and bool(named))
    rejected: list[Rejected] = []
    sequences: list[EventSequence] = []
    counts = ReadCounts()
    for path, content in files:
        try:
            parsed = read_file(reader, path, content, types=types)
        except MalformedFileError as error:
            lost = max(1, error.num_events or 1)
            unknown = "; how many events it holds is unknown" if error.num_events is None else ""
            detail = f"{error}{unknown}"
            rejected.append(Rejected(path, -1, "malformed_file", detail, "", events=lost))
            counts += ReadCounts(lost)
        else:
            if source.kind in KINDS_WITHOUT_DATES:
                warn_of_dates(parsed, path, seconds_per_unit=source.seconds_per_unit)
            rejected += parsed.rejected
            sequences += parsed.sequences
            counts += parsed.counts
    data = RawData(
        folder,
        sequences,
        reader.seconds_per_unit or source.seconds_per_unit,
        named,
        bool(named) and not fixed,
        len(chosen),
        len(paths),
        counts,
        rejected,
        found.not_read,
    )
    if not sequences:
        raise DataError(
            f"no events: {data.rejected_by_cause()}",
            where=source.uri,
            cause="; ".join(_examples(rejected)),
            setting=f"source.kind = {source.kind}",
        )
    return data


def _examples(rejected: Sequence[Rejected]) -> list[str]:
    """One rejected record for each of the first causes."""
    found: dict[str, str] = {}
    for record in rejected:
        detail = record.detail.removeprefix(f"{record.path}: ")
        found.setdefault(record.cause, f"{record.path}: {detail}")
    return list(found.values())[:_SHOWN_CAUSES]


def names_in(
    reader: SourceReader, files: list[tuple[str, bytes]], source: Source
) -> tuple[str, ...]:
    """The type names that occur, the most frequent first; none where types are numbers.

    Args:
        reader: Of the source.
        files: Paths and contents.
        source: ``types`` says whether numbers are names too, ``rare_types`` what is folded.

    Raises:
        DataError: More names than codes.
    """
    is_asked = source.types == AUTO
    counts: Counter[str] = Counter()
    for place, (path, content) in enumerate(files):
        counts += types_in(reader, path, content)
        if not is_asked and not names_of(counts) and place >= _FILES_WITHOUT_NAMES:
            return ()
    if not is_asked and not names_of(counts):
        return ()
    return chosen_types(counts, known=(), folds_rare=source.rare_types == OTHER, where=source.uri)


def tokenised(sequences: Sequence[EventSequence], vocabulary: Vocabulary | None) -> list[Events]:
    """The events of sequences, nothing compressed; frames are numbered by image within a sequence.

    Args:
        sequences: raw.
        vocabulary: tokenises each distinct text once; None leaves all texts empty.
    """
    tokenise = TextTokeniser(vocabulary) if vocabulary else None
    events = []
    for sequence in sequences:
        text_ids, lengths = np.zeros(0, dtype=np.int32), np.zeros(len(sequence), dtype=np.int32)
        if tokenise is not None:
            text_ids, lengths = tokenise(pa.array(sequence.texts, pa.string()))
        frames: dict[str, int] = {}
        frame = [
            frames.setdefault(image, len(frames)) if image else NO_FRAME
            for image in sequence.images
        ]
        events.append(
            Events(
                intervals=intervals_from_times(sequence.times),
                types=sequence.types,
                text_ids=text_ids,
                text_offsets=np.append(0, np.cumsum(lengths, dtype=np.int64)),
                frames=np.array(frame, dtype=np.int32),
                similar=np.zeros(len(sequence), dtype=np.bool_),
            )
        )
    return events


def distinct_images(sequence: EventSequence) -> list[str]:
    """Images of a sequence in the order in which ``tokenised`` numbers its frames."""
    return list(dict.fromkeys(image for image in sequence.images if image))
