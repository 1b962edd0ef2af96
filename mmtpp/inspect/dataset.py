"""Loading a data set to look at it: raw files as ``prepare`` would read them, or an event store."""

import logging
import posixpath
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import ConfigError, DataError
from mmtpp.core.events import (
    MAX_TYPES,
    NO_FRAME,
    Events,
    EventSequence,
    Rejected,
    intervals_from_times,
)
from mmtpp.data.layout import REJECTED, SEQUENCES
from mmtpp.data.prepare import load_model_vocabulary
from mmtpp.data.settings import source_reader, store_vocabulary
from mmtpp.data.sources.reader import MalformedFileError, RawEvent, SourceReader, read_file
from mmtpp.data.store import StoreReader, StoreSettings
from mmtpp.data.texts import TextTokeniser
from mmtpp.model.vocabulary import Vocabulary, train_tokenizer
from mmtpp.storage.manifest import Manifest, find_manifest
from mmtpp.storage.parquet import read_table
from mmtpp.storage.paths import filesystem_of, join, list_files, read_bytes

logger = logging.getLogger(__name__)

MAX_EXAMPLES = 5
_FILES_WITHOUT_NAMES = 20  # after so many, types are numbers
_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")


@dataclass(slots=True)
class DataSet:
    """A data set in memory.

    Attributes:
        uri: where it is.
        kind: of source, or ``event store``.
        seconds_per_unit: of its times.
        type_names: by code, possibly empty.
        vocabulary: that its texts are counted with.
        vocabulary_name: what to call it.
        num_files: read, of ``num_files_there``.
        names: of the sequences.
        times: (E,) of each sequence, in the source's unit.
        events: of each sequence.
        texts: of each sequence.
        num_read, num_reordered, num_disagreeing: events.
        rejected: by cause.
        examples: the first few rejected records.
        num_images_missing: distinct images that events name and that are not there.
        image_px: side of the images of a store; None for raw files.
        hints: what to change before preparing it.
    """

    uri: str
    kind: str
    seconds_per_unit: float
    type_names: tuple[str, ...]
    vocabulary: Vocabulary
    vocabulary_name: str
    num_files: int
    num_files_there: int
    names: list[str] = field(default_factory=list)
    times: list[np.ndarray] = field(default_factory=list)
    events: list[Events] = field(default_factory=list)
    texts: list[tuple[str, ...]] = field(default_factory=list)
    num_read: int = 0
    num_reordered: int = 0
    num_disagreeing: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    examples: list[Rejected] = field(default_factory=list)
    num_images_missing: int = 0
    image_px: int | None = None
    hints: list[str] = field(default_factory=list)


def load(config: RunConfig, *, max_files: int) -> DataSet:
    """Load ``source.uri``: an event store where a manifest says so, else raw files.

    Args:
        config: source, template and model settings.
        max_files: of raw files, evenly spread over the source; 0 for all.

    Raises:
        DataError: no files, or no events in them.
        ConfigError, StorageError, ModelError: as for ``prepare``.
    """
    manifest = find_manifest(config.source.uri)
    if manifest is not None:
        return _load_store(config.source.uri, manifest)
    return _load_source(config, max_files)


def _load_source(config: RunConfig, max_files: int) -> DataSet:
    source = config.source
    reader = source_reader(source)
    if reader.type_names and source.types:
        raise ConfigError(f"source.types: sources of kind {source.kind} name their own types")
    _, root = filesystem_of(source.uri)
    paths = [
        info.path.removeprefix(root).lstrip("/") for info in list_files(source.uri, reader.suffixes)
    ]
    if not paths:
        raise DataError(
            f"no {' or '.join(reader.suffixes)} files",
            where=source.uri,
            setting=f"source.kind = {source.kind}",
        )
    step = -(-len(paths) // max_files) if max_files else 1
    chosen = paths[::step]
    logger.info("reading %d of %d files", len(chosen), len(paths))
    with ThreadPoolExecutor(max_workers=8) as pool:
        contents = list(pool.map(lambda path: read_bytes(join(source.uri, path)), chosen))
    files = list(zip(chosen, contents, strict=True))
    named = reader.type_names or source.types or _names_in(reader, files)
    rejected: Counter[str] = Counter()
    examples: list[Rejected] = []
    sequences: list[EventSequence] = []
    num_read = num_reordered = num_disagreeing = 0
    for path, content in files:
        try:
            if not content:
                raise MalformedFileError(f"{path}: the file is empty")
            parsed = read_file(reader, path, content, type_names=named)
        except MalformedFileError as error:
            refused = [Rejected(path, -1, "malformed_file", str(error), "")]
            num_read += 1
        else:
            refused = parsed.rejected
            sequences += parsed.sequences
            num_read += parsed.num_read
            num_reordered += parsed.num_reordered
            num_disagreeing += parsed.num_disagreeing
        rejected.update(record.cause for record in refused)
        examples += refused[: MAX_EXAMPLES - len(examples)]
    if not sequences:
        raise DataError(
            f"no events: {dict(rejected)}",
            where=source.uri,
            cause="; ".join(f"{record.path}: {record.detail}" for record in examples[:2]),
            setting=f"source.kind = {source.kind}",
        )
    texts = [sequence.texts for sequence in sequences]
    vocabulary, vocabulary_name = _vocabulary(config, texts)
    data = DataSet(
        uri=source.uri,
        kind=source.kind,
        seconds_per_unit=reader.seconds_per_unit or source.seconds_per_unit,
        type_names=tuple(named),
        vocabulary=vocabulary,
        vocabulary_name=vocabulary_name,
        num_files=len(chosen),
        num_files_there=len(paths),
        names=[sequence.sequence_id for sequence in sequences],
        times=[sequence.times for sequence in sequences],
        events=tokenised(sequences, vocabulary),
        texts=texts,
        num_read=num_read,
        num_reordered=num_reordered,
        num_disagreeing=num_disagreeing,
        rejected=rejected,
        examples=examples,
        num_images_missing=_missing_images(source.uri, sequences),
    )
    if named and not reader.type_names and not source.types:
        data.hints.append(f"types are named in the files: set source.types to {list(named)}")
    repeated = [name for name, count in Counter(data.names).items() if count > 1]
    if repeated:
        data.hints.append(
            f"{len(repeated)} sequence ids occur in several files, {repeated[0]!r} is one: prepare "
            "refuses them; put the events of a sequence into one file"
        )
    return data


def _names_in(reader: SourceReader, files: list[tuple[str, bytes]]) -> tuple[str, ...]:
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


def _vocabulary(config: RunConfig, texts: list[tuple[str, ...]]) -> tuple[Vocabulary, str]:
    if config.model.path:
        return load_model_vocabulary(config.model.path), f"that of {config.model.path}"
    size = config.model.tokenizer_size
    trained = train_tokenizer((text for each in texts for text in each), size=size)
    name = f"{size} entries trained on these texts; set model.path for that of your model"
    return Vocabulary(trained), name


def tokenised(sequences: list[EventSequence], vocabulary: Vocabulary) -> list[Events]:
    """The events of sequences, each distinct text tokenised once and nothing compressed; frames
    are numbered by image path within a sequence."""
    tokenise = TextTokeniser(vocabulary)
    events = []
    for sequence in sequences:
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


def _missing_images(uri: str, sequences: Iterable[EventSequence]) -> int:
    wanted = {
        posixpath.normpath(image) for sequence in sequences for image in sequence.images if image
    }
    if not wanted:
        return 0
    _, root = filesystem_of(uri)
    suffixes = (*_IMAGE_SUFFIXES, *(suffix.upper() for suffix in _IMAGE_SUFFIXES))
    there = {info.path.removeprefix(root).lstrip("/") for info in list_files(uri, suffixes)}
    return len(wanted - there)


def _load_store(uri: str, manifest: Manifest) -> DataSet:
    folder = join(uri, manifest.data_folder)
    reader = StoreReader(StoreSettings(folder, manifest.fingerprint, manifest.image_px, 0, ""))
    data = DataSet(
        uri=uri,
        kind="event store",
        seconds_per_unit=manifest.seconds_per_unit,
        type_names=tuple(manifest.type_names),
        vocabulary=store_vocabulary(uri, manifest),
        vocabulary_name=f"the store's, {manifest.vocabulary_hash[:12]}",
        num_files=len(reader.files()),
        num_files_there=len(reader.files()),
        num_read=manifest.events_read,
        num_reordered=manifest.events_reordered,
        num_disagreeing=manifest.events_disagreeing,
        rejected=Counter(manifest.rejected_by_cause),
        image_px=manifest.image_px,
    )
    for file in reader.files():
        for sequence in reader.sequences([file], with_text=True):
            data.names.append(sequence.sequence_id)
            data.times.append(sequence.times)
            data.events.append(sequence.events)
        texts = read_table(join(folder, SEQUENCES, file)).select(["part", "texts"])
        for part, each in zip(texts["part"].to_pylist(), texts["texts"].to_pylist(), strict=True):
            if part:
                data.texts[-1] += tuple(each)
            else:
                data.texts.append(tuple(each))
        if len(data.examples) < MAX_EXAMPLES and manifest.events_rejected:
            rejected = read_table(join(folder, REJECTED, file))
            rows = rejected.slice(0, MAX_EXAMPLES).to_pylist()
            data.examples += [Rejected(**row) for row in rows][: MAX_EXAMPLES - len(data.examples)]
    return data
