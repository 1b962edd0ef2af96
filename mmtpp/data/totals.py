"""Counting what the shards of a store hold, and its fingerprint."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from mmtpp.core.events import MAX_TYPES, Rejected
from mmtpp.core.split import SPLITS
from mmtpp.data.layout import SEQUENCE_SCHEMA, EncodeSettings
from mmtpp.storage.manifest import SCHEMA_VERSION, Manifest

COUNTED = ("events_read", "events_reordered", "events_disagreeing", "frames")


def shard_counts(
    table: pa.Table,
    rejected: list[Rejected],
    *,
    num_read: int,
    num_reordered: int,
    num_disagreeing: int,
    num_files: int,
) -> dict:
    """What a shard gives the driver: counts, and name and digest of every sequence."""
    splits = table["split"].to_pylist()
    lengths = np.array([len(types) for types in table["types"]], dtype=np.int64)
    types = table["types"].combine_chunks().flatten().to_numpy() if len(table) else []
    causes = Counter(record.cause for record in rejected)
    return {
        "problem": "",
        "files": num_files,
        "events_read": num_read,
        "events_reordered": num_reordered,
        "events_disagreeing": num_disagreeing,
        "rejected": [f"{count} {cause}" for cause, count in sorted(causes.items())],
        "sequences_by_split": [splits.count(split) for split in SPLITS],
        "events_by_split": [
            int(lengths[[found == split for found in splits]].sum()) if splits else 0
            for split in SPLITS
        ],
        "type_counts": np.bincount(types, minlength=MAX_TYPES).tolist(),
        "frames": sum(len(frames) for frames in table["frames"]),
        "sequence_ids": table["sequence_id"].to_pylist(),
        "digests": [_digest_of_row(row) for row in table.to_batches() for row in _rows(row)],
    }


def empty_counts() -> dict:
    """The counts of a shard that gave nothing."""
    zeros = {"num_read": 0, "num_reordered": 0, "num_disagreeing": 0, "num_files": 0}
    return shard_counts(SEQUENCE_SCHEMA.empty_table(), [], **zeros)


def _rows(batch: pa.RecordBatch) -> Iterator[list[pa.Array]]:
    for index in range(batch.num_rows):
        yield [batch.column(name).slice(index, 1) for name in range(batch.num_columns)]


def _digest_of_row(columns: list[pa.Array]) -> str:
    """Content hash of one sequence, independent of where and with what neighbours it stands."""
    digest = hashlib.sha256()
    for column in columns:
        values = column.flatten() if pa.types.is_list(column.type) else column
        digest.update(f"{column.type}{len(values)}".encode())
        if pa.types.is_string(values.type) or pa.types.is_binary(values.type):
            for value in values:
                data = value.as_py()
                data = data.encode() if isinstance(data, str) else data
                digest.update(len(data).to_bytes(8, "big") + data)
        else:
            digest.update(np.ascontiguousarray(values.to_numpy(zero_copy_only=False)).tobytes())
    return digest.hexdigest()


class Totals:
    """Sums over the shards, kept on the driver."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.by_split = {"sequences": np.zeros(3, np.int64), "events": np.zeros(3, np.int64)}
        self.types = np.zeros(MAX_TYPES, np.int64)
        self.ids: Counter[str] = Counter()
        self.digests: list[str] = []

    def add(self, row: dict) -> None:
        """Add the counts of a shard."""
        for key in COUNTED:
            self.counts[key] += int(row[key])
        for text in row["rejected"]:
            count, _, cause = text.partition(" ")
            self.rejected[cause] += int(count)
        for key, totals in self.by_split.items():
            totals += np.asarray(row[f"{key}_by_split"], dtype=np.int64)
        self.types += np.asarray(row["type_counts"], dtype=np.int64)
        self.ids.update(row["sequence_ids"])
        self.digests += list(row["digests"])

    def manifest(
        self, settings: EncodeSettings, request: str, data_folder: str, vocabulary_hash: str
    ) -> Manifest:
        """The manifest of a store with all shards added."""
        last_type = int(np.flatnonzero(self.types).max(initial=-1))
        rejected = sum(self.rejected.values())
        return Manifest(
            schema_version=SCHEMA_VERSION,
            fingerprint=digest([vocabulary_hash, settings.image_px, sorted(self.digests)]),
            request=request,
            data_folder=data_folder,
            vocabulary_hash=vocabulary_hash,
            source_kind=settings.source_kind,
            seconds_per_unit=settings.seconds_per_unit,
            image_px=settings.image_px,
            type_names=list(settings.type_names),
            type_counts=self.types[: last_type + 1].tolist(),
            sequences_by_split=dict(zip(SPLITS, self.by_split["sequences"].tolist(), strict=True)),
            events_by_split=dict(zip(SPLITS, self.by_split["events"].tolist(), strict=True)),
            events_read=self.counts["events_read"],
            events_kept=int(self.by_split["events"].sum()),
            events_rejected=rejected,
            events_reordered=self.counts["events_reordered"],
            events_disagreeing=self.counts["events_disagreeing"],
            rejected_by_cause=dict(sorted(self.rejected.items())),
            frames=self.counts["frames"],
        )


def digest(value: object) -> str:
    """Hash of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
