"""Sequences of events in memory, and the similar events among them."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import Any, Literal, overload

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from mmtpp.api.dataframes import is_dataframe, read_dataframe
from mmtpp.config.load import config_from_tree
from mmtpp.config.schema import SourceSection
from mmtpp.core.errors import ConfigError, DataError
from mmtpp.core.events import EventSequence, Rejected
from mmtpp.core.rejection_summary import RejectionSummary
from mmtpp.core.representation.compression import similar_events
from mmtpp.data.encode.raw_dataset import load_raw_dataset
from mmtpp.data.encode.tokenised_events import tokenise_sequences
from mmtpp.data.from_config import build_compression
from mmtpp.data.store.contents import (
    iterate_split_sequences,
    iterate_whole_sequences,
    open_store,
    read_rejected_records,
)
from mmtpp.model.folders.folder import load_model_vocabulary
from mmtpp.storage.image_files import locate_image
from mmtpp.storage.manifest import Manifest, find_manifest
from mmtpp.storage.paths import as_uri

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sequences(Sequence[EventSequence]):
    """The sequences of a data set, a list with their time unit and event types.

    Attributes:
        items: The sequences. An image is the path or URI of an image file or of a stored frame.
        seconds_per_unit: Length of one time unit, in seconds.
        type_names: Names of the event types by code; empty if types have no names.
        rejected: Records that were read and rejected, with the cause of the rejection.
        losses: Sequences that lost their newest event or all events by rejected records.
        times_are_dates: Whether times count from 1970-01-01T00:00:00 UTC.
    """

    items: tuple[EventSequence, ...]
    seconds_per_unit: float
    type_names: tuple[str, ...]
    rejected: tuple[Rejected, ...]
    losses: RejectionSummary = field(default_factory=lambda: RejectionSummary({}, (), ()))
    times_are_dates: bool = False

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> EventSequence: ...
    @overload
    def __getitem__(self, index: slice) -> "Sequences": ...
    def __getitem__(self, index: int | slice) -> "EventSequence | Sequences":
        if isinstance(index, slice):
            return replace(self, items=self.items[index])
        return self.items[index]

    def __iter__(self) -> Iterator[EventSequence]:
        return iter(self.items)

    def __repr__(self) -> str:
        num_events = sum(map(len, self.items))
        return (
            f"Sequences({len(self):,} sequences, {num_events:,} events, {len(self.rejected):,} "
            f"records rejected, types {', '.join(self.type_names) or 'by number'})"
        )


def load_sequences(
    uri: str | PathLike[str] | pd.DataFrame | pa.Table,
    *,
    kind: str = "",
    columns: Mapping[str, str] | None = None,
    types: Sequence[str] | Literal["auto"] = (),
    seconds_per_unit: float = 1.0,
    split: str = "all",
    max_files: int = 0,
) -> Sequences:
    """Read event files, an event store or a table into memory.

    Args:
        uri: A file, a folder or an event store (a local path or a remote URI), or a table of
            pandas or PyArrow, which needs ``columns``.
        kind: Format of the files, ``source.kind``. The default is ``columns`` if ``columns`` is
            given, and ``mmtpp`` otherwise.
        columns: Column names of a table, ``source.columns``; at least ``time``.
        types: Accepted names of event types in the order of their codes. If empty or "auto", the
            types are collected from the files.
        seconds_per_unit: Length of one time unit in seconds, for files that do not state it.
        split: Split of an event store: ``train``, ``validation``, ``test`` or ``all``. If sequences
            are split in time, a split holds only its own events.
        max_files: Number of files to read, evenly spaced over the folder; 0 reads all files.

    Returns:
        The sequences. Rejected records are in ``Sequences.rejected`` and logged as a warning.

    Raises:
        DataError: There are no events.
        ConfigError: The arguments contradict each other.
        StorageError: The location cannot be reached.
    """
    settings: dict[str, object] = {
        "types": types if isinstance(types, str) else list(types),
        "seconds_per_unit": seconds_per_unit,
        "columns": dict(columns or {}),
    }
    if is_dataframe(uri):
        return _load_dataframe(uri, _source(kind=kind or "columns", **settings))
    uri = _checked_uri(uri)
    manifest = find_manifest(uri)
    if manifest is not None:
        return _load_store(uri, manifest, split, max_files)
    if split != "all":
        raise ConfigError(f"split = {split!r}: {uri} is no event store, its files have no splits")
    kind = kind or ("columns" if columns else "mmtpp")
    return _load_files(_source(uri=uri, kind=kind, **settings), max_files)


def _source(**settings: object) -> SourceSection:
    return config_from_tree({"source": settings}).source


def _checked_uri(uri: object) -> str:
    if isinstance(uri, str | PathLike):
        return as_uri(uri)
    raise DataError(
        f"sequences are loaded from a path, a URI, a pandas.DataFrame or a pyarrow.Table, not from "
        f"a {type(uri).__name__}",
        cause="make a pandas.DataFrame of the events, and name its columns in columns = {...}; one "
        "sequence is made by Forecaster.sequence or mmtpp.EventSequence",
    )


def _load_files(source: SourceSection, max_files: int) -> Sequences:
    raw = load_raw_dataset(source, max_files=max_files)
    losses = raw.losses()
    _warn(source.uri, raw.rejected, losses)

    def absolute(image: str | None) -> str | None:
        if not image:
            return None
        return locate_image(image, source_uri=raw.root, roots=source.image_roots)

    items = tuple(
        replace(sequence, images=tuple(map(absolute, sequence.images)))
        for sequence in raw.sequences
    )
    return Sequences(
        items,
        raw.seconds_per_unit,
        raw.type_names,
        tuple(raw.rejected),
        losses,
        raw.times_are_dates,
    )


def _load_dataframe(frame: pd.DataFrame | pa.Table, source: SourceSection) -> Sequences:
    parsed, reader = read_dataframe(frame, source)
    last_times = {sequence.sequence_id: float(sequence.times[-1]) for sequence in parsed.sequences}
    losses = RejectionSummary.from_records(parsed.rejected, last_times)
    _warn("table", parsed.rejected, losses)
    return Sequences(
        tuple(parsed.sequences),
        source.seconds_per_unit,
        reader.type_names,
        tuple(parsed.rejected),
        losses,
        0 < parsed.counts.num_dated >= sum(map(len, parsed.sequences)),
    )


def _load_store(uri: str, manifest: Manifest, split: str, max_files: int) -> Sequences:
    files = open_store(uri, manifest).files()
    files = files[:: -(-len(files) // max_files) if max_files else 1]
    read = iterate_whole_sequences if split == "all" else iterate_split_sequences
    parts = [part for file in files for part in read(uri, manifest, file)]
    items = tuple(sequence for part_split, sequence in parts if split in (part_split, "all"))
    if not items:
        raise DataError(f"no sequence of split {split!r}", where=uri)
    rejected = [record for file in files for record in read_rejected_records(uri, manifest, file)]
    last_times: dict[str, float] = {}
    for _, sequence in parts:  # a sequence that is split in time has several parts
        name, last = sequence.sequence_id, float(sequence.times[-1])
        last_times[name] = max(last, last_times.get(name, last))
    losses = RejectionSummary.from_records(rejected, last_times)
    _warn(uri, rejected, losses)
    return Sequences(
        items,
        manifest.seconds_per_unit,
        tuple(manifest.type_names),
        tuple(rejected),
        losses,
        manifest.times_are_dates,
    )


def _warn(where: str, rejected: Sequence[Rejected], losses: RejectionSummary) -> None:
    if rejected:
        causes = dict(Counter(record.cause for record in rejected))
        logger.warning("%s: records rejected, by cause: %s", where, causes)
    for sentence in losses.sentences():
        logger.warning("%s: %s", where, sentence)


def compress(
    sequence: EventSequence,
    *,
    strategy: str = "temporal",
    delta: float = 0.2,
    model: str | PathLike[str] = "",
    **settings: Any,
) -> NDArray[np.bool_]:
    """Mark the events that are similar to earlier events (adaptive compression of MM-TPP).

    Args:
        sequence: The E events.
        strategy: Rule that marks events, ``compression.strategy``.
        delta: Threshold of the rule in the time unit of the sequence, ``compression.delta``.
        model: Folder of a model. ``hybrid`` compares texts by the tokens of its tokenizer.
        settings: Further settings of ``compression``, such as ``min_text_similarity``.

    Returns:
        (E,) True where an event is written as a similar event. The first event is never similar.

    Raises:
        ConfigError: A setting is out of its range, or ``hybrid`` is used without a model.
    """
    tree = {"strategy": strategy, "delta": delta, **settings}
    config = config_from_tree({"compression": tree})
    if strategy == "hybrid" and not model:
        raise ConfigError(
            "strategy = hybrid compares texts by their tokens: name a model",
            setting="model = the folder of a model",
        )
    vocabulary = load_model_vocabulary(as_uri(model)) if strategy == "hybrid" else None
    [events] = tokenise_sequences([sequence], vocabulary)
    compression = build_compression(config.sample_sections)
    return similar_events(events, compression.for_sequence(sequence.sequence_id))
