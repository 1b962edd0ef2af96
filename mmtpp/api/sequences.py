"""Sequences of events in memory, and which of their events are similar."""

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

from mmtpp.api.dataframes import is_frame, read_frame
from mmtpp.config.load import config_from_tree
from mmtpp.config.schema import Source
from mmtpp.core.compression import similar_events
from mmtpp.core.errors import ConfigError, DataError
from mmtpp.core.events import EventSequence, Rejected
from mmtpp.core.losses import Losses
from mmtpp.data.encode.raw_data import read_raw, tokenised
from mmtpp.data.settings import compression_of
from mmtpp.data.store.contents import (
    store_reader,
    stored_rejected,
    stored_sequences,
    whole_sequences,
)
from mmtpp.model.folder import load_model_vocabulary
from mmtpp.storage.manifest import Manifest, find_manifest
from mmtpp.storage.paths import as_uri, join_inside

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sequences(Sequence[EventSequence]):
    """The sequences of a data set, in a list that knows their unit and their types.

    Attributes:
        items: the sequences; images are paths or URIs of their own, or the frames of a store.
        seconds_per_unit: of their times.
        type_names: by code, possibly empty.
        rejected: records that were read and not kept, with the cause of each.
        losses: sequences that lack their newest event or all events because of it.
    """

    items: tuple[EventSequence, ...]
    seconds_per_unit: float
    type_names: tuple[str, ...]
    rejected: tuple[Rejected, ...]
    losses: Losses = field(default_factory=lambda: Losses({}, (), ()))

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
        events = sum(map(len, self.items))
        return (
            f"Sequences({len(self):,} sequences, {events:,} events, {len(self.rejected):,} records "
            f"rejected, types {', '.join(self.type_names) or 'by number'})"
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
    """Read event files, or an event store, into memory.

    Args:
        uri: a file, a folder or a store: a local path or s3://; or a table of pandas or PyArrow,
            whose ``columns`` are given.
        kind: of files, ``source.kind``; ``columns`` when ``columns`` are given, else ``mmtpp``.
        columns: the mapping of a table's columns, ``source.columns``: at least ``time``.
        types: accepted names of types by code, or "auto"; found in the files when not given.
        seconds_per_unit: of the times of files that do not say.
        split: part of a store: ``train``, ``validation``, ``test`` or ``all``. Of sequences that
            are cut in time a part has its own events alone.
        max_files: files read, evenly spread; 0 for all.

    Returns:
        The sequences. What was refused is in ``rejected``, and a warning says so.

    Raises:
        DataError: nothing there that is an event.
        ConfigError: the settings do not go together.
        StorageError: the place cannot be reached.
    """
    names = types if isinstance(types, str) else list(types)
    if is_frame(uri):
        kind = kind or "columns"
        tree = {
            "kind": kind,
            "types": names,
            "seconds_per_unit": seconds_per_unit,
            "columns": dict(columns or {}),
        }
        return _of_frame(uri, config_from_tree({"source": tree}).source)
    uri = _place(uri)
    manifest = find_manifest(uri)
    if manifest is not None:
        return _of_store(uri, manifest, split, max_files)
    if split != "all":
        raise ConfigError(f"split = {split!r}: {uri} is no event store, its files have no splits")
    kind = kind or ("columns" if columns else "mmtpp")
    tree = {
        "uri": uri,
        "kind": kind,
        "types": names,
        "seconds_per_unit": seconds_per_unit,
        "columns": dict(columns or {}),
    }
    raw = read_raw(config_from_tree({"source": tree}).source, max_files=max_files)
    losses = raw.losses()
    _warn(uri, raw.rejected, losses)

    def whole(image: str | None) -> str | None:
        return join_inside(raw.root, image) if image else None

    items = tuple(
        replace(sequence, images=tuple(map(whole, sequence.images))) for sequence in raw.sequences
    )
    return Sequences(items, raw.seconds_per_unit, raw.type_names, tuple(raw.rejected), losses)


def _place(uri: object) -> str:
    if isinstance(uri, str | PathLike):
        return as_uri(uri)
    raise DataError(
        f"sequences are loaded from a path, a URI, a pandas.DataFrame or a pyarrow.Table, not from "
        f"a {type(uri).__name__}",
        cause="make a pandas.DataFrame of the events, and name its columns in columns = {...}; one "
        "sequence is made by Forecaster.sequence or mmtpp.EventSequence",
    )


def _of_frame(frame: pd.DataFrame | pa.Table, source: Source) -> Sequences:
    parsed, reader = read_frame(frame, source)
    last_times = {sequence.sequence_id: float(sequence.times[-1]) for sequence in parsed.sequences}
    losses = Losses.of(parsed.rejected, last_times)
    _warn("table", parsed.rejected, losses)
    return Sequences(
        tuple(parsed.sequences),
        source.seconds_per_unit,
        reader.type_names,
        tuple(parsed.rejected),
        losses,
    )


def _warn(where: str, rejected: Sequence[Rejected], losses: Losses) -> None:
    if rejected:
        causes = dict(Counter(record.cause for record in rejected))
        logger.warning("%s: not kept: %s", where, causes)
    for sentence in losses.sentences():
        logger.warning("%s: %s", where, sentence)


def _of_store(uri: str, manifest: Manifest, split: str, max_files: int) -> Sequences:
    files = store_reader(uri, manifest).files()
    files = files[:: -(-len(files) // max_files) if max_files else 1]
    read = whole_sequences if split == "all" else stored_sequences
    parts = [part for file in files for part in read(uri, manifest, file)]
    items = tuple(sequence for part, sequence in parts if split in (part, "all"))
    if not items:
        raise DataError(f"no sequence of split {split!r}", where=uri)
    rejected = [record for file in files for record in stored_rejected(uri, manifest, file)]
    last_times: dict[str, float] = {}
    for _, sequence in parts:  # a sequence that is cut in time comes in parts
        name, last = sequence.sequence_id, float(sequence.times[-1])
        last_times[name] = max(last, last_times.get(name, last))
    losses = Losses.of(rejected, last_times)
    _warn(uri, rejected, losses)
    return Sequences(
        items, manifest.seconds_per_unit, tuple(manifest.type_names), tuple(rejected), losses
    )


def compress(
    sequence: EventSequence,
    *,
    strategy: str = "temporal",
    delta: float = 0.2,
    model: str | PathLike[str] = "",
    **settings: Any,
) -> NDArray[np.bool_]:
    """Mark the events that are similar to their past (MM-TPP, adaptive temporal compression).

    Args:
        sequence: E events.
        strategy: ``compression.strategy``.
        delta: ``compression.delta``, in the unit of the times.
        model: folder of a model, whose tokens ``hybrid`` compares texts by.
        settings: others of ``compression``, such as ``min_text_similarity``.

    Returns:
        (E,) True where an event would be written as a similar event. Never True for the first.

    Raises:
        ConfigError: a setting out of range, or ``hybrid`` without a model.
    """
    tree = {"strategy": strategy, "delta": delta, **settings}
    config = config_from_tree({"compression": tree})
    if strategy == "hybrid" and not model:
        raise ConfigError("strategy = hybrid compares texts by their tokens: name a model")
    vocabulary = load_model_vocabulary(as_uri(model)) if strategy == "hybrid" else None
    [events] = tokenised([sequence], vocabulary)
    return similar_events(events, compression_of(config).of_sequence(sequence.sequence_id))
