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
from mmtpp.core.errors import ConfigError, DataError
from mmtpp.core.events import (
    MAX_TYPES,
    NO_FRAME,
    Events,
    EventSequence,
    Rejected,
    intervals_from_times,
)
from mmtpp.core.losses import Losses
from mmtpp.data.settings import source_reader
from mmtpp.data.sources.reader import MalformedFileError, RawEvent, SourceReader, read_file
from mmtpp.data.texts import TextTokeniser
from mmtpp.model.vocabulary import Vocabulary
from mmtpp.storage.paths import join, list_source, read_bytes, split_file

logger = logging.getLogger(__name__)

_FILES_WITHOUT_NAMES = 20  # after so many, types are numbers
_FILES_IN_FLIGHT = 8


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
        num_read, num_reordered, num_disagreeing: events, as in ``ParsedFile``.
        rejected: records that were read and not kept; a malformed file is one.
    """

    root: str
    sequences: list[EventSequence]
    seconds_per_unit: float
    type_names: tuple[str, ...]
    has_found_names: bool
    num_files: int
    num_files_there: int
    num_read: int
    num_reordered: int
    num_disagreeing: int
    rejected: list[Rejected]

    def rejected_by_cause(self) -> dict[str, int]:
        """How many records were refused, and why."""
        return dict(Counter(each.cause for each in self.rejected))

    def losses(self) -> Losses:
        """Sequences that lack their newest event or all events, and files that lack all."""
        last_times: dict[str, float] = {}
        for sequence in self.sequences:
            name = sequence.sequence_id
            last_times[name] = max(last_times.get(name, -np.inf), float(sequence.times[-1]))
        return Losses.of(self.rejected, last_times)


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
    if reader.type_names and source.types:
        raise ConfigError(f"source.types: sources of kind {source.kind} name their own types")
    folder, file = split_file(source.uri)
    paths = [path for path, _ in list_source(folder, file) if path.endswith(reader.suffixes)]
    if not paths:
        raise DataError(
            f"no {' or '.join(reader.suffixes)} files",
            where=source.uri,
            setting=f"source.kind = {source.kind}",
        )
    step = -(-len(paths) // max_files) if max_files else 1
    chosen = paths[::step]
    logger.info("reading %d of %d files", len(chosen), len(paths))
    with ThreadPoolExecutor(_FILES_IN_FLIGHT) as pool:
        contents = list(pool.map(lambda path: read_bytes(join(folder, path)), chosen))
    files = list(zip(chosen, contents, strict=True))
    fixed = reader.type_names or source.types
    named = tuple(fixed or names_in(reader, files))
    rejected: list[Rejected] = []
    sequences: list[EventSequence] = []
    num_read = num_reordered = num_disagreeing = 0
    for path, content in files:
        try:
            if not content:
                raise MalformedFileError(f"{path}: the file is empty")
            parsed = read_file(reader, path, content, type_names=named)
        except MalformedFileError as error:
            rejected.append(Rejected(path, -1, "malformed_file", str(error), ""))
            num_read += 1
        else:
            rejected += parsed.rejected
            sequences += parsed.sequences
            num_read += parsed.num_read
            num_reordered += parsed.num_reordered
            num_disagreeing += parsed.num_disagreeing
    data = RawData(
        folder,
        sequences,
        reader.seconds_per_unit or source.seconds_per_unit,
        named,
        bool(named) and not fixed,
        len(chosen),
        len(paths),
        num_read,
        num_reordered,
        num_disagreeing,
        rejected,
    )
    if not sequences:
        raise DataError(
            f"no events: {data.rejected_by_cause()}",
            where=source.uri,
            cause="; ".join(
                f"{each.path}: {each.detail.removeprefix(f'{each.path}: ')}"
                for each in rejected[:2]
            ),
            setting=f"source.kind = {source.kind}",
        )
    return data


def names_in(reader: SourceReader, files: list[tuple[str, bytes]]) -> tuple[str, ...]:
    """The type names that occur, where types are names."""
    found: set[str] = set()
    for place, (path, content) in enumerate(files):
        try:
            raws = list(reader.parse(path, content))
        except MalformedFileError:
            continue  # reported when it is read
        found |= {
            raw.type for raw in raws if isinstance(raw, RawEvent) and isinstance(raw.type, str)
        }
        if not found and place >= _FILES_WITHOUT_NAMES:
            return ()
    names = sorted(found - {""})
    if all(name.removesuffix(".0").isdecimal() for name in names):
        return ()
    if len(names) > MAX_TYPES:
        raise DataError(
            f"{len(names)} type names, {', '.join(names[:5])} and so on; {MAX_TYPES} are possible",
            cause="the column of types is another one",
        )
    return tuple(names)


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
