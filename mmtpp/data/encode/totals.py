"""Counts of the events and sequences in a store, and the fingerprint of its content."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.events import MAX_TYPES, Rejected
from mmtpp.core.split import SPLITS, events_of_split
from mmtpp.core.times.clock import Clock
from mmtpp.data.encode.encode_settings import EncodeSettings
from mmtpp.data.encode.repeated_ids import hash_of_id
from mmtpp.data.encode.shard_columns import ShardColumns
from mmtpp.data.sources.reader import ReadCounts
from mmtpp.storage.manifest import SCHEMA_VERSION, Manifest

COUNTED = (
    "events_read",
    "events_reordered",
    "events_disagreeing",
    "events_folded",
    "events_dated",
    "characters_replaced",
    "sequences_joined",
    "frames",
    "sequences",
    "simultaneous",
)
_ID_HASH_BYTES = 16


def shard_counts(
    columns: ShardColumns,
    rejected: list[Rejected],
    counts: ReadCounts,
    *,
    frame_digests: dict[int, bytes],
    seconds_per_unit: float,
) -> dict:
    """Count the events of a shard for the driver.

    Args:
        columns: Kept sequences of the shard.
        rejected: Rejected records of the shard.
        counts: Counts of reading its files.
        frame_digests: Hash of the image for each frame number.
        seconds_per_unit: Seconds in one unit of the times.

    Returns:
        A JSON value.
    """
    in_splits = _events_by_split(columns)
    clock = Clock(seconds_per_unit)
    clock.add_sequences(columns.times, columns.lengths)
    causes: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for record in rejected:
        causes[record.cause] += record.events
        examples.setdefault(record.cause, record.message())
    return {
        "sequences": len(columns.sequence_ids),
        "simultaneous": _count_simultaneous(columns),
        "clock": clock.state(),
        **counted_events(counts),
        "left_out": counts.left_out,
        "frames": len(np.unique(columns.frame[columns.frame >= 0])),
        "rejected": causes,
        "rejected_examples": examples,
        "sequences_by_split": {
            split: int((in_splits[:, place] > 0).sum()) for place, split in enumerate(SPLITS)
        },
        "events_by_split": {
            split: int(in_splits[:, place].sum()) for place, split in enumerate(SPLITS)
        },
        "type_counts": np.bincount(columns.types, minlength=MAX_TYPES).tolist(),
        "sequence_ids": columns.sequence_ids,
        "digests": columns.digests(frame_digests),
    }


def counted_events(counts: ReadCounts) -> dict[str, int]:
    """The counts of reading files that a shard adds to those of the store."""
    return {
        "events_read": counts.num_read,
        "events_reordered": counts.num_reordered,
        "events_disagreeing": counts.num_disagreeing,
        "events_folded": counts.num_folded,
        "events_dated": counts.num_dated,
        "characters_replaced": counts.num_replaced,
        "sequences_joined": counts.num_joined,
    }


def _events_by_split(columns: ShardColumns) -> NDArray[np.int64]:
    """(S, 3) number of events of each sequence in each of ``SPLITS``."""
    counts = np.zeros((len(columns.lengths), len(SPLITS)), dtype=np.int64)
    edges = np.append(columns.starts, len(columns.times)).tolist()
    for index, sequence_split in enumerate(columns.splits):
        times = columns.times[edges[index] : edges[index + 1]]
        first, second = columns.cuts[index].tolist()
        for place, split in enumerate(SPLITS):
            start, end = events_of_split(sequence_split, split, times, (first, second))
            counts[index, place] = end - start
    return counts


def _count_simultaneous(columns: ShardColumns) -> int:
    """Number of events with the same time as the event before them."""
    is_first = np.zeros(len(columns.times), dtype=np.bool_)
    is_first[columns.starts] = True
    return int(((np.diff(columns.times, prepend=np.nan) == 0) & ~is_first).sum())


class Totals:
    """Sums over the shards. The driver keeps some bytes for each sequence.

    Args:
        seconds_per_unit: Seconds in one unit of the times.

    Attributes:
        counts: Sums of the shard counts in ``COUNTED``.
        rejected: Number of rejected events, by cause.
        left_out: Number of records that are no events, by kind.
        examples: One rejected record for each cause.
        sequences: Number of sequences, by split.
        events: Number of kept events, by split.
        declared_splits: Number of sequences by split, according to the records of the files.
        types: Number of events, by type code.
    """

    def __init__(self, seconds_per_unit: float = 1.0) -> None:
        self._clock = Clock(seconds_per_unit)
        self.counts: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()
        self.examples: dict[str, str] = {}
        self.sequences: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self.declared_splits: Counter[str] = Counter()
        self.types = np.zeros(MAX_TYPES, np.int64)
        self._id_hashes: list[bytes] = []
        self._content = 0

    def add(self, shard: dict) -> None:
        """Add the counts of a shard."""
        # an older version may have finished the shard, without the newest of these counts
        self.counts.update({key: shard.get(key, 0) for key in COUNTED})
        self.rejected.update(shard["rejected"])
        self.left_out.update(shard["left_out"])
        self.examples = {**shard["rejected_examples"], **self.examples}
        self._clock.merge_state(shard["clock"])
        self.declared_splits.update(shard.get("declared_splits", {}))
        self.sequences.update(shard["sequences_by_split"])
        self.events.update(shard["events_by_split"])
        self.types += np.asarray(shard["type_counts"], dtype=np.int64)
        self._id_hashes.append(b"".join(map(_short_hash, shard["sequence_ids"])))
        # a sum does not depend on the distribution of sequences over shards
        self._content += sum(int(digest, 16) for digest in shard["digests"])

    def add_reading(self, counts: ReadCounts, declared_splits: Mapping[str, int]) -> None:
        """Add the counts of reading files, whose kept sequences are counted where they are joined.

        Args:
            counts: Counts of reading the files.
            declared_splits: Number of sequences by split, according to the records of the files.
        """
        self.counts.update(counted_events(counts))
        self.left_out.update(counts.left_out)
        self.declared_splits.update(declared_splits)

    def repeated_ids(self) -> set[bytes]:
        """Hashes of the sequence ids that occur more than once, for ``ids_with_hashes``."""
        hashes = np.frombuffer(b"".join(self._id_hashes), dtype=f"V{_ID_HASH_BYTES}")
        distinct, counts = np.unique(hashes, return_counts=True)
        return {value.tobytes() for value in distinct[counts > 1]}

    def build_manifest(
        self, settings: EncodeSettings, request: str, data_folder: str, vocabulary_hash: str
    ) -> Manifest:
        """Build the manifest of the store, after all shards were added."""
        last_type = int(np.flatnonzero(self.types).max(initial=-1))
        content = f"{self._content % 2**256:064x}"
        return Manifest(
            schema_version=SCHEMA_VERSION,
            fingerprint=json_digest([vocabulary_hash, settings.image_px, content]),
            request=request,
            data_folder=data_folder,
            vocabulary_hash=vocabulary_hash,
            tokenizer_size=settings.tokenizer_size,
            source_kind=settings.source_kind,
            seconds_per_unit=settings.seconds_per_unit,
            tick_s=self._clock.tick_s,
            split_by=settings.split_by,
            image_px=settings.image_px,
            type_names=list(settings.type_names),
            type_counts=self.types[: last_type + 1].tolist(),
            sequences=self.counts["sequences"],
            sequences_by_split={split: self.sequences[split] for split in SPLITS},
            events_by_split={split: self.events[split] for split in SPLITS},
            events_read=self.counts["events_read"],
            events_kept=sum(self.events.values()),
            events_rejected=sum(self.rejected.values()),
            events_reordered=self.counts["events_reordered"],
            events_disagreeing=self.counts["events_disagreeing"],
            rejected_by_cause=dict(sorted(self.rejected.items())),
            events_folded=self.counts["events_folded"],
            characters_replaced=self.counts["characters_replaced"],
            sequences_joined=self.counts["sequences_joined"],
            left_out_by_kind=dict(sorted(self.left_out.items())),
            times_are_dates=0 < self.counts["events_dated"] >= sum(self.events.values()),
            events_simultaneous=self.counts["simultaneous"],
            frames=self.counts["frames"],
        )


def ids_with_hashes(shard: dict, hashes: set[bytes]) -> list[str]:
    """The sequence ids of a shard with these hashes."""
    return [name for name in shard["sequence_ids"] if _short_hash(name) in hashes]


def _short_hash(sequence_id: str) -> bytes:
    return hash_of_id(sequence_id)[:_ID_HASH_BYTES]


def json_digest(value: object) -> str:
    """Hash of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
