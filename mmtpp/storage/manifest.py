"""The manifest of an event store: written last, so a store without one does not exist."""

import json
from dataclasses import asdict, dataclass, fields

from mmtpp.core.errors import DataError
from mmtpp.storage.paths import exists, join, read_bytes, write_bytes

SCHEMA_VERSION = 5
MANIFEST_FILE = "manifest.json"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a store holds.

    Attributes:
        schema_version: of the columns, see ``data.store.layout.SEQUENCE_SCHEMA``.
        fingerprint: hash of the content and the encode settings; decides the order of training.
        request: hash of the encode settings and of the listing of the source files; equal means
            that preparing again would do the same work.
        data_folder: folder of this version's tables, relative to the store.
        vocabulary_hash: of the vocabulary the texts were tokenised with.
        tokenizer_size: asked of the tokenizer trained for this store; 0 when a model brought it.
        source_kind: the reader.
        seconds_per_unit: seconds in one unit of ``times``.
        tick_s: tick of the clock that all times were read from, in seconds; 0 where they have none
            (``core.clock``).
        split_by: how the parts were made, ``split.by``.
        image_px: side of every stored image.
        type_names: names of the types by code, possibly empty.
        type_counts: events of each type by code.
        sequences: number of sequences.
        sequences_by_split, events_by_split: counts; a sequence that is cut in time counts in every
            part that has events of it.
        events_simultaneous: events at the time of the event before.
        events_read, events_kept, events_rejected, events_reordered: counts over all sequences.
        events_disagreeing: whose declared interval is not the one between the times.
        rejected_by_cause: Number of rejected events by cause.
        events_folded: Number of kept events whose rare type became ``other``.
        left_out_by_kind: Number of records that are no events of the source's kind, by kind.
        times_are_dates: times count from 1970-01-01T00:00:00 UTC, because the source gave dates.
        frames: distinct images, counted within each shard.
    """

    schema_version: int
    fingerprint: str
    request: str
    data_folder: str
    vocabulary_hash: str
    tokenizer_size: int
    source_kind: str
    seconds_per_unit: float
    tick_s: float
    split_by: str
    image_px: int
    type_names: list[str]
    type_counts: list[int]
    sequences: int
    sequences_by_split: dict[str, int]
    events_by_split: dict[str, int]
    events_read: int
    events_kept: int
    events_rejected: int
    events_reordered: int
    events_disagreeing: int
    rejected_by_cause: dict[str, int]
    events_folded: int
    left_out_by_kind: dict[str, int]
    times_are_dates: bool
    events_simultaneous: int
    frames: int

    @property
    def tick(self) -> float:
        """The clock's tick in the source's unit; 0 where there is none."""
        return self.tick_s / self.seconds_per_unit

    def counts(self) -> dict[str, object]:
        """Counts of the events that were read, kept and rejected, for the result of a job."""
        return {
            "events_read": self.events_read,
            "events_kept": self.events_kept,
            "events_rejected": self.events_rejected,
            "rejected_by_cause": self.rejected_by_cause,
        }

    def save(self, store_uri: str) -> None:
        """Write the manifest; from then on the store exists."""
        text = json.dumps(asdict(self), indent=2, sort_keys=True, ensure_ascii=False)
        write_bytes(join(store_uri, MANIFEST_FILE), text.encode())


def find_manifest(store_uri: str, *, to_replace: bool = False) -> Manifest | None:
    """The manifest of a store, or None when there is no store.

    Args:
        store_uri: where to look.
        to_replace: one of another version counts as none, since it is about to be replaced.

    Raises:
        DataError: it is there but of another version or damaged.
        StorageError: the place cannot be reached.
    """
    uri = join(store_uri, MANIFEST_FILE)
    if not exists(uri):
        return None
    try:
        tree = json.loads(read_bytes(uri))
        version = tree["schema_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError("the store's manifest is damaged", where=uri) from error
    if version != SCHEMA_VERSION or set(tree) != {field.name for field in fields(Manifest)}:
        if to_replace:
            return None
        raise DataError(
            f"the store has schema version {version}, this program reads {SCHEMA_VERSION}",
            where=uri,
            cause="it was made by another version; run jobs/prepare.py again",
        )
    return Manifest(**tree)


def load_manifest(store_uri: str) -> Manifest:
    """The manifest of a store that must be there.

    Raises:
        DataError: there is no manifest, or it is of another version.
        StorageError: the place cannot be reached.
    """
    manifest = find_manifest(store_uri)
    if manifest is None:
        raise DataError(
            "there is no event store here: manifest.json is missing",
            where=store_uri,
            cause="jobs/prepare.py has not run, or was stopped before it finished",
            setting=f"store.uri = {store_uri}",
        )
    return manifest
