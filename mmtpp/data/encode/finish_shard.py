"""Third step of ``encode``: a shard whose images are known becomes part of the store."""

import json
from dataclasses import asdict, dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmtpp.core.errors import MmtppError, error_to_json
from mmtpp.core.events import Rejected
from mmtpp.data.encode.frames import BAD_IMAGE, decoded_images, image_paths
from mmtpp.data.encode.shard_columns import ShardColumns
from mmtpp.data.encode.totals import shard_counts
from mmtpp.data.sources.reader import ReadCounts
from mmtpp.data.store.layout import (
    COUNTS,
    PENDING,
    REJECTED,
    REJECTED_SCHEMA,
    SEQUENCES,
    shard_file,
)
from mmtpp.storage.parquet import write_table
from mmtpp.storage.paths import join, read_bytes, write_bytes


@dataclass(frozen=True, slots=True)
class Reading:
    """What reading a shard found besides its sequences.

    Attributes:
        paths: the file of each sequence.
        rejected: records that were read and not kept.
        counts: Of events.
        num_images: Number of distinct image paths.
        seconds_per_unit: Seconds in one unit of the times.
        parts: Number of sequences of each part, as the records of the files say.
    """

    paths: list[str]
    rejected: list[Rejected]
    counts: ReadCounts
    num_images: int
    seconds_per_unit: float
    parts: dict[str, int]

    def save(self, folder: str, shard: int) -> None:
        """Write it for the third step; last, since the shard then counts as read."""
        uri = join(folder, PENDING, shard_file(shard, ".json"))
        write_bytes(uri, json.dumps(asdict(self)).encode())

    @classmethod
    def of_json(cls, text: str | bytes) -> "Reading":
        """From the content of the file that ``save`` wrote."""
        tree = json.loads(text)
        rejected = [Rejected(**record) for record in tree["rejected"]]
        return cls(**{**tree, "rejected": rejected, "counts": ReadCounts(**tree["counts"])})


def finish_shard(
    folder: str,
    shard: int,
    columns: ShardColumns,
    reading: Reading,
    frame_digests: dict[int, bytes],
) -> str:
    """Write a shard of the store, its counts last.

    Returns:
        The counts, JSON of ``totals.shard_counts``.
    """
    columns.write(join(folder, SEQUENCES, shard_file(shard)))
    rows = [asdict(record) for record in reading.rejected]
    table = pa.Table.from_pylist(rows, REJECTED_SCHEMA)
    write_table(join(folder, REJECTED, shard_file(shard)), table)
    counts = shard_counts(
        columns,
        reading.rejected,
        reading.counts,
        frame_digests=frame_digests,
        seconds_per_unit=reading.seconds_per_unit,
    )
    text = json.dumps(counts | {"parts": reading.parts})
    write_bytes(join(folder, COUNTS, shard_file(shard, ".json")), text.encode())
    return text


class FinishShard:
    """Points the events of a shard to their frames, the work of a Ray Data task.

    Args:
        folder: URI of the data folder.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def __call__(self, row: dict) -> dict:
        """Finish shard ``row["shard"]``; ``problem`` is not empty on failure."""
        try:
            return {"problem": "", "counts": self._finish(int(row["shard"]))}
        except MmtppError as error:
            return {"problem": error_to_json(error), "counts": ""}

    def _finish(self, shard: int) -> str:
        uri = join(self._folder, PENDING, shard_file(shard, ".json"))
        reading = Reading.of_json(read_bytes(uri))
        columns = ShardColumns.read(
            join(self._folder, PENDING, shard_file(shard)), paths=reading.paths
        )
        images = decoded_images(self._folder, shard, num_images=reading.num_images)
        has_image = columns.frame >= 0
        frame = np.full_like(columns.frame, -1)
        frame[has_image] = images.frame[columns.frame[has_image]]
        bad = frame == BAD_IMAGE
        if bad.any():
            refused = self._refuse(shard, columns, bad, images.problems)
            reading = replace(reading, rejected=[*reading.rejected, *refused])
        columns = replace(columns, frame=frame).keep(~bad)
        return finish_shard(self._folder, shard, columns, reading, images.digests)

    def _refuse(
        self, shard: int, columns: ShardColumns, bad: NDArray[np.bool_], problems: list[str]
    ) -> list[Rejected]:
        paths = image_paths(self._folder, shard)
        starts = columns.starts
        found = []
        for event in np.flatnonzero(bad).tolist():
            sequence = int(np.searchsorted(starts, event, side="right")) - 1
            image = int(columns.frame[event])
            record = f"time {columns.times[event]}, image {paths[image]}"
            row = event - int(starts[sequence])
            file = columns.paths[sequence]
            end = int(starts[sequence + 1]) if sequence + 1 < len(starts) else len(bad)
            found.append(
                Rejected(
                    file,
                    row,
                    "unreadable_image",
                    problems[image],
                    record,
                    columns.sequence_ids[sequence],
                    float(columns.times[event]),
                    is_last=bool(bad[event:end].all()),
                )
            )
        return found
