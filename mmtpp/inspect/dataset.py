"""Loading a data set to look at it: raw files as ``prepare`` would read them, or an event store."""

import posixpath
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from mmtpp.config.schema import RunConfig
from mmtpp.core.events import Events, Rejected
from mmtpp.core.losses import Losses
from mmtpp.data.encode.given_parts import looks_given
from mmtpp.data.encode.listing import IMAGE_SUFFIXES
from mmtpp.data.encode.raw_data import RawData, read_raw, tokenised
from mmtpp.data.encode.type_names import types_line
from mmtpp.data.settings import store_vocabulary
from mmtpp.data.sources.types import AUTO
from mmtpp.data.store.contents import all_rejected, store_reader, stored_rejected, stored_words
from mmtpp.model.folder import load_model_vocabulary
from mmtpp.model.vocabulary import Vocabulary, train_tokenizer
from mmtpp.storage.manifest import Manifest, find_manifest
from mmtpp.storage.paths import filesystem_of, list_files, list_source, split_file

MAX_EXAMPLES = 5


@dataclass(slots=True)
class DataSet:
    """A data set in memory.

    Attributes:
        uri: where it is.
        kind: of source, or ``event store``.
        seconds_per_unit: of its times.
        times_are_dates: Times count from 1970-01-01T00:00:00 UTC.
        type_names: by code, possibly empty.
        vocabulary: that its texts are counted with.
        vocabulary_name: what to call it.
        num_files: read, of ``num_files_there``.
        names: of the sequences.
        times: (E,) of each sequence, in the source's unit.
        events: of each sequence.
        texts: of each sequence.
        num_read, num_reordered, num_disagreeing, num_folded: Numbers of events.
        left_out: Number of records that are no events of this kind of source, by kind.
        files_not_read: Number of files that hold no events, by suffix.
        rejected: Number of events by cause.
        examples: the first few rejected records.
        num_images_missing: distinct images that events name and that are not there.
        image_px: side of the images of a store; None for raw files.
        hints: what to change before preparing it.
        losses: sequences that lack their newest event or all events.
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
    num_folded: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    files_not_read: dict[str, int] = field(default_factory=dict)
    rejected: Counter[str] = field(default_factory=Counter)
    examples: list[Rejected] = field(default_factory=list)
    num_images_missing: int = 0
    image_px: int | None = None
    hints: list[str] = field(default_factory=list)
    times_are_dates: bool = False
    losses: Losses = field(default_factory=lambda: Losses({}, (), ()))


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
    raw = read_raw(source, max_files=max_files)
    texts = [sequence.texts for sequence in raw.sequences]
    vocabulary, vocabulary_name = _vocabulary(config, texts)
    data = DataSet(
        uri=source.uri,
        kind=source.kind,
        seconds_per_unit=raw.seconds_per_unit,
        type_names=raw.type_names,
        vocabulary=vocabulary,
        vocabulary_name=vocabulary_name,
        num_files=raw.num_files,
        num_files_there=raw.num_files_there,
        names=[sequence.sequence_id for sequence in raw.sequences],
        times=[sequence.times for sequence in raw.sequences],
        events=tokenised(raw.sequences, vocabulary),
        texts=texts,
        num_read=raw.counts.num_read,
        num_reordered=raw.counts.num_reordered,
        num_disagreeing=raw.counts.num_disagreeing,
        num_folded=raw.counts.num_folded,
        left_out=raw.counts.left_out,
        files_not_read=raw.files_not_read,
        rejected=Counter(raw.rejected_by_cause()),
        examples=raw.rejected[:MAX_EXAMPLES],
        num_images_missing=_missing_images(raw),
        times_are_dates=raw.times_are_dates,
        losses=raw.losses(),
    )
    folder, file = split_file(source.uri)
    paths = [path for path, _ in list_source(folder, file)]
    if warning := looks_given(paths, by=config.split.by):
        data.hints.append(warning)
    if raw.has_found_names:
        data.hints.append(
            f'types are named in the files: set source.types = "{AUTO}", or '
            f"{types_line(raw.type_names)}"
        )
    repeated = [name for name, count in Counter(data.names).items() if count > 1]
    if repeated and config.split.by != "given":  # ids of parts as given are told apart
        data.hints.append(
            f"{len(repeated)} sequence ids occur in several files, {repeated[0]!r} is one: prepare "
            "refuses them; put the events of a sequence into one file"
        )
    return data


def _vocabulary(config: RunConfig, texts: list[tuple[str, ...]]) -> tuple[Vocabulary, str]:
    if config.model.path:
        return load_model_vocabulary(config.model.path), f"that of {config.model.path}"
    size = config.model.tokenizer_size
    trained = train_tokenizer(
        (text for sequence_texts in texts for text in sequence_texts), size=size
    )
    name = f"{size} entries trained on these texts; set model.path for that of your model"
    return Vocabulary(trained), name


def _missing_images(raw: RawData) -> int:
    wanted = {
        posixpath.normpath(image)
        for sequence in raw.sequences
        for image in sequence.images
        if image
    }
    if not wanted:
        return 0
    _, root = filesystem_of(raw.root)
    suffixes = (*IMAGE_SUFFIXES, *(suffix.upper() for suffix in IMAGE_SUFFIXES))
    there = {info.path.removeprefix(root).lstrip("/") for info in list_files(raw.root, suffixes)}
    return len(wanted - there)


def _load_store(uri: str, manifest: Manifest) -> DataSet:
    reader = store_reader(uri, manifest)
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
        num_folded=manifest.events_folded,
        left_out=manifest.left_out_by_kind,
        rejected=Counter(manifest.rejected_by_cause),
        image_px=manifest.image_px,
        times_are_dates=manifest.times_are_dates,
    )
    for file in reader.files():
        for stored in reader.sequences([file], with_text=True):
            data.names.append(stored.sequence_id)
            data.times.append(stored.times)
            data.events.append(stored.events)
        data.texts += [texts for texts, _ in stored_words(uri, manifest, file)]
        if len(data.examples) < MAX_EXAMPLES:
            data.examples += stored_rejected(uri, manifest, file)[:MAX_EXAMPLES]
    del data.examples[MAX_EXAMPLES:]
    last_times = {
        name: float(times[-1]) for name, times in zip(data.names, data.times, strict=True)
    }
    data.losses = Losses.of(all_rejected(uri, manifest), last_times)
    return data
