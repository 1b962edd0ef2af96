"""The manifest of an event store. It is written last: without a manifest there is no store."""

import json
from dataclasses import asdict, dataclass, fields

from mmtpp.core.errors import DataError
from mmtpp.storage.paths import exists, join, read_bytes, write_bytes

SCHEMA_VERSION = 5
MANIFEST_FILE = "manifest.json"
# fields that older stores of this version lack
_NEW_FIELDS = {"characters_replaced", "sequences_joined"}


@dataclass(frozen=True, slots=True)
class Manifest:
    """Content of a store.

    Attributes:
        schema_version: Version of the columns, see ``data.store.layout.SEQUENCE_SCHEMA``.
        fingerprint: Hash of the content and the encode settings; sets the training order.
        request: Hash of the encode settings and of the list of source files; a job with the same
            hash would prepare the same store.
        data_folder: Folder of this version's tables, relative to the store.
        vocabulary_hash: Hash of the vocabulary with which texts were tokenised.
        tokenizer_size: Vocabulary size of the tokenizer trained for this store; 0 for a model's own
            tokenizer.
        source_kind: Kind of the source, ``source.kind``.
        seconds_per_unit: Seconds in one unit of ``times``.
        tick_s: Tick of the clock of all times, in seconds; 0 if there is none
            (``core.times.clock``).
        split_by: How sequences were split, ``split.by``.
        image_px: Side of every stored image, in pixels.
        type_names: Names of the types by code; may be empty.
        type_counts: Number of events of each type, by code.
        sequences: Number of sequences.
        sequences_by_split, events_by_split: Numbers of sequences and events by split; a sequence
            split in time counts in every split that has some of its events.
        events_simultaneous: Number of events at the time of the previous event.
        events_read, events_kept, events_rejected, events_reordered: Number of events in all
            sequences.
        events_disagreeing: Number of events whose declared interval differs from their times.
        rejected_by_cause: Number of rejected events by cause.
        events_folded: Number of kept events whose rare type became ``other``.
        characters_replaced: Number of characters in texts and questions that the vocabulary cannot
            write; U+FFFD stands for them in the tokens. Older stores do not record it: their
            vocabularies can write every character.
        sequences_joined: Number of sequences whose events lay in several files.
        left_out_by_kind: Number of records that are not events, by kind of record.
        times_are_dates: Whether times count from 1970-01-01T00:00:00 UTC, as the source has dates.
        frames: Number of distinct images, counted within each shard.
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
    characters_replaced: int = 0
    sequences_joined: int = 0

    @property
    def tick(self) -> float:
        """Tick of the clock in units of ``times``; 0 if there is none."""
        return self.tick_s / self.seconds_per_unit

    @property
    def occurring_types(self) -> tuple[int, ...]:
        """Codes of the types that occur in the store, in order."""
        return tuple(code for code, count in enumerate(self.type_counts) if count)

    def counts(self) -> dict[str, object]:
        """Numbers of events that were read, kept and rejected, for the result of a job."""
        return {
            "events_read": self.events_read,
            "events_kept": self.events_kept,
            "events_rejected": self.events_rejected,
            "rejected_by_cause": self.rejected_by_cause,
        }

    def save(self, store_uri: str) -> None:
        """Write the manifest, which completes the store."""
        text = json.dumps(asdict(self), indent=2, sort_keys=True, ensure_ascii=False)
        write_bytes(join(store_uri, MANIFEST_FILE), text.encode())


def find_manifest(store_uri: str, *, to_replace: bool = False) -> Manifest | None:
    """Return the manifest of a store, or None if there is no store.

    Args:
        store_uri: URI of the store.
        to_replace: Whether the store is about to be replaced: a manifest of another version then
            counts as none.

    Raises:
        DataError: The manifest has another version or is damaged.
        StorageError: The URI cannot be reached.
    """
    uri = join(store_uri, MANIFEST_FILE)
    if not exists(uri):
        return None
    try:
        tree = json.loads(read_bytes(uri))
        version = tree["schema_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError("the store's manifest is damaged", where=uri) from error
    names = {field.name for field in fields(Manifest)}
    if version != SCHEMA_VERSION or not names - _NEW_FIELDS <= set(tree) <= names:
        if to_replace:
            return None
        raise DataError(
            f"the store has schema version {version}, but this program reads {SCHEMA_VERSION}",
            where=uri,
            cause="another version of mmtpp wrote the store; run jobs/prepare.py again",
        )
    return Manifest(**tree)


def load_manifest(store_uri: str) -> Manifest:
    """Return the manifest of a store that must exist.

    Raises:
        DataError: There is no manifest, or it has another version.
        StorageError: The URI cannot be reached.
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
