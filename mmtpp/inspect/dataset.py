"""A data set in memory: raw files, read like ``prepare`` reads them, or an event store."""

import posixpath
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mmtpp.config.schema import ModelSection, SourceSection, SplitSection
from mmtpp.core.errors import DataError
from mmtpp.core.events import Events, Rejected
from mmtpp.core.rejection_summary import RejectionSummary
from mmtpp.data.encode.encode_settings import AUTO as PARTITIONING_AUTO
from mmtpp.data.encode.given_splits import unused_splits_warning
from mmtpp.data.encode.raw_dataset import RawDataset, load_raw_dataset
from mmtpp.data.encode.source_listing import IMAGE_SUFFIXES
from mmtpp.data.encode.tokenised_events import tokenise_sequences
from mmtpp.data.encode.type_names import types_setting
from mmtpp.data.from_config import build_source_reader
from mmtpp.data.prepared_store import store_vocabulary
from mmtpp.data.sources.type_codes import AUTO
from mmtpp.data.store.contents import (
    iterate_rejected_records,
    iterate_texts_and_questions,
    open_store,
    read_rejected_records,
)
from mmtpp.inspect.split_counts import SplitCounts, count_splits
from mmtpp.model.folders.folder import load_model_vocabulary
from mmtpp.model.tokens.vocabulary import Vocabulary, train_tokenizer
from mmtpp.storage.filesystems import filesystem_of
from mmtpp.storage.image_files import locate_image
from mmtpp.storage.manifest import Manifest, find_manifest
from mmtpp.storage.paths import list_files, list_source, split_file

MAX_EXAMPLES = 5


@dataclass(slots=True)
class DataSet:
    """A data set in memory.

    Attributes:
        uri: Location of the data set.
        kind: Format of the source, ``source.kind``, or ``event store``.
        seconds_per_unit: Length of one time unit, in seconds.
        type_names: Names of the event types by code; empty if types have no names.
        vocabulary: Vocabulary that tokenises the texts.
        vocabulary_name: Description of the vocabulary, for reports.
        num_files: Number of files that were read.
        num_files_in_source: Number of files in the source.
        names: Id of each sequence.
        times: (E,) times of the events of each sequence, in the source's time unit.
        events: Events of each sequence.
        texts: Texts of the events of each sequence.
        num_read: Number of records that were read.
        num_reordered: Number of events that were not in the order of their times.
        num_disagreeing: Number of events whose declared interval differs from that of the times.
        num_folded: Number of events of rare types that were counted as type ``other``.
        left_out: Number of records that are not events, by kind of record.
        files_read: Number of raw files that were read, by suffix.
        files_not_read: Number of files that hold no events, by suffix.
        folder_columns: Number of distinct values of the columns that the names of folders give.
        rejected: Number of rejected records, by cause.
        examples: First rejected records, at most ``MAX_EXAMPLES``.
        num_images_missing: Number of distinct images that events name and that do not exist.
        image_px: Side of the images in a store, in pixels; None for raw files.
        hints: Recommended changes of the settings before ``prepare``.
        times_are_dates: Whether times count from 1970-01-01T00:00:00 UTC.
        losses: Sequences that lost their newest event or all events by rejected records.
        splits: Sizes of the splits.
    """

    uri: str
    kind: str
    seconds_per_unit: float
    type_names: tuple[str, ...]
    vocabulary: Vocabulary
    vocabulary_name: str
    num_files: int
    num_files_in_source: int
    names: list[str] = field(default_factory=list)
    times: list[np.ndarray] = field(default_factory=list)
    events: list[Events] = field(default_factory=list)
    texts: list[tuple[str, ...]] = field(default_factory=list)
    num_read: int = 0
    num_reordered: int = 0
    num_disagreeing: int = 0
    num_folded: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    files_read: dict[str, int] = field(default_factory=dict)
    files_not_read: dict[str, int] = field(default_factory=dict)
    folder_columns: dict[str, int] = field(default_factory=dict)
    rejected: Counter[str] = field(default_factory=Counter)
    examples: list[Rejected] = field(default_factory=list)
    num_images_missing: int = 0
    image_px: int | None = None
    hints: list[str] = field(default_factory=list)
    times_are_dates: bool = False
    losses: RejectionSummary = field(default_factory=lambda: RejectionSummary({}, (), ()))
    splits: SplitCounts = field(default_factory=lambda: SplitCounts("", {}, {}))


def load(
    source: SourceSection, split: SplitSection, model: ModelSection, *, max_files: int
) -> DataSet:
    """Load ``source.uri``: an event store if it has a manifest, raw files otherwise.

    Args:
        source: Location and format of the events.
        split: Splits of raw files, for their sizes and for hints.
        model: Model whose vocabulary tokenises raw files.
        max_files: Number of raw files to read, evenly spaced over the source; 0 reads all files.

    Raises:
        DataError: There are no files, or no events in them.
        ConfigError: The settings of the source are wrong.
        StorageError: The location cannot be reached.
        ModelError: ``model.path`` has no tokenizer.
    """
    manifest = find_manifest(source.uri)
    if manifest is not None:
        return _load_store(source.uri, manifest)
    return _load_source(source, split, model, max_files)


def _load_source(
    source: SourceSection, split: SplitSection, model: ModelSection, max_files: int
) -> DataSet:
    raw = load_raw_dataset(source, split_by=split.by, max_files=max_files)
    texts = [sequence.texts for sequence in raw.sequences]
    vocabulary, vocabulary_name = _vocabulary(model, texts)
    data = DataSet(
        uri=source.uri,
        kind=source.kind,
        seconds_per_unit=raw.seconds_per_unit,
        type_names=raw.type_names,
        vocabulary=vocabulary,
        vocabulary_name=vocabulary_name,
        num_files=raw.num_files,
        num_files_in_source=raw.num_files_in_source,
        names=[sequence.sequence_id for sequence in raw.sequences],
        times=[sequence.times for sequence in raw.sequences],
        events=tokenise_sequences(raw.sequences, vocabulary),
        texts=texts,
        num_read=raw.counts.num_read,
        num_reordered=raw.counts.num_reordered,
        num_disagreeing=raw.counts.num_disagreeing,
        num_folded=raw.counts.num_folded,
        left_out=raw.counts.left_out,
        files_read=raw.files_read,
        files_not_read=raw.files_not_read,
        folder_columns=raw.folder_columns,
        rejected=Counter(raw.rejected_by_cause()),
        examples=raw.rejected[:MAX_EXAMPLES],
        num_images_missing=_missing_images(raw),
        times_are_dates=raw.times_are_dates,
        losses=raw.losses(),
        splits=count_splits(raw, split, build_source_reader(source).split_key),
    )
    data.hints += _hints(raw, source, split)
    data.hints += _expected_failures(source, data)
    return data


def _hints(raw: RawDataset, source: SourceSection, split: SplitSection) -> list[str]:
    """What the data show about the settings of ``prepare``."""
    hints: list[str] = []
    folder, file = split_file(source.uri)
    paths = [path for path, _ in list_source(folder, file)]
    if warning := unused_splits_warning(paths, by=split.by):
        hints.append(warning)
    if raw.has_found_names and source.types != AUTO:
        hints.append(
            f'types are named in the files: set source.types = "{AUTO}", or '
            f"{types_setting(raw.type_names)}"
        )
    names = Counter(sequence.sequence_id for sequence in raw.sequences)
    repeated = [name for name, count in names.items() if count > 1]
    if repeated and split.by != "given":  # with given splits, ids include the split
        hints.append(
            f"{len(repeated)} sequence ids occur in several files, for example {repeated[0]!r}: "
            f"prepare refuses them with source.partitioning = {source.partitioning}; sequence "
            "joins the events of a sequence, where source.columns.sequence names it"
        )
    num_refused, reason = _refused_images(raw, source.image_roots)
    if num_refused:
        hints.append(f"prepare rejects {num_refused:,} events for their images: {reason}")
    if raw.num_joined:
        advice = (
            "; set source.partitioning = sequence, which saves a first reading, or file where an "
            "id means another sequence in each file"
        )
        hints.append(
            f"sequences with events in several files: {raw.num_joined:,}; prepare joins them in "
            f"order of time{advice if source.partitioning == PARTITIONING_AUTO else ''}"
        )
    return hints


def _expected_failures(source: SourceSection, data: DataSet) -> list[str]:
    """Reasons for which ``prepare`` would stop with these settings."""
    hints: list[str] = []
    if data.splits.num_unknown:
        hints.append(
            f"{data.splits.num_unknown:,} sequences do not name their split: prepare stops at them "
            "with split.by = given"
        )
    num_rejected, limit = sum(data.rejected.values()), source.max_rejected_fraction
    if num_rejected > limit * data.num_read:
        hints.append(
            f"{num_rejected / data.num_read:.1%} of the events are rejected: prepare stops above "
            f"source.max_rejected_fraction = {limit:g}"
        )
    if "malformed_file" in data.rejected and source.malformed_file == "fail":
        hints.append(
            "prepare stops at files that cannot be read; source.malformed_file = reject counts "
            "their events as rejected"
        )
    return hints


def _vocabulary(model: ModelSection, texts: list[tuple[str, ...]]) -> tuple[Vocabulary, str]:
    if model.path:
        return load_model_vocabulary(model.path), f"the vocabulary of {model.path}"
    size = model.tokenizer_size
    trained = train_tokenizer(
        (text for sequence_texts in texts for text in sequence_texts), size=size
    )
    name = (
        f"a vocabulary of {size} tokens trained on these texts; "
        "set model.path to use the vocabulary of your model"
    )
    return Vocabulary(trained), name


def _refused_images(raw: RawDataset, roots: Sequence[str]) -> tuple[int, str]:
    """Number of events whose image ``prepare`` does not read because of its place, and the reason.

    Args:
        raw: The events.
        roots: ``source.image_roots``.
    """
    counts = Counter(image for sequence in raw.sequences for image in sequence.images if image)
    refused, reason = 0, ""
    for image, count in counts.items():
        try:
            locate_image(image, source_uri=raw.root, roots=roots)
        except DataError as error:
            refused += count
            reason = reason or f"{error.problem}; {error.setting or 'name it without ..'}"
    return refused, reason


def _missing_images(raw: RawDataset) -> int:
    named = {
        posixpath.normpath(image)
        for sequence in raw.sequences
        for image in sequence.images
        # images by URI, by their bytes or below another root are not in the listing
        if image and ":" not in image and not image.startswith("/")
    }
    if not named:
        return 0
    _, root = filesystem_of(raw.root)
    suffixes = (*IMAGE_SUFFIXES, *(suffix.upper() for suffix in IMAGE_SUFFIXES))
    existing = {info.path.removeprefix(root).lstrip("/") for info in list_files(raw.root, suffixes)}
    return len(named - existing)


def _load_store(uri: str, manifest: Manifest) -> DataSet:
    reader = open_store(uri, manifest)
    data = DataSet(
        uri=uri,
        kind="event store",
        seconds_per_unit=manifest.seconds_per_unit,
        type_names=tuple(manifest.type_names),
        vocabulary=store_vocabulary(uri, manifest),
        vocabulary_name=f"the vocabulary of the store, {manifest.vocabulary_hash[:12]}",
        num_files=len(reader.files()),
        num_files_in_source=len(reader.files()),
        num_read=manifest.events_read,
        num_reordered=manifest.events_reordered,
        num_disagreeing=manifest.events_disagreeing,
        num_folded=manifest.events_folded,
        left_out=manifest.left_out_by_kind,
        rejected=Counter(manifest.rejected_by_cause),
        image_px=manifest.image_px,
        times_are_dates=manifest.times_are_dates,
        splits=SplitCounts(
            manifest.split_by, manifest.sequences_by_split, manifest.events_by_split
        ),
    )
    for file in reader.files():
        for stored in reader.sequences([file], with_text=True):
            data.names.append(stored.sequence_id)
            data.times.append(stored.times)
            data.events.append(stored.events)
        data.texts += [texts for texts, _ in iterate_texts_and_questions(uri, manifest, file)]
        if len(data.examples) < MAX_EXAMPLES:
            data.examples += read_rejected_records(uri, manifest, file)[:MAX_EXAMPLES]
    del data.examples[MAX_EXAMPLES:]
    last_times = {
        name: float(times[-1]) for name, times in zip(data.names, data.times, strict=True)
    }
    data.losses = RejectionSummary.from_records(iterate_rejected_records(uri, manifest), last_times)
    return data
