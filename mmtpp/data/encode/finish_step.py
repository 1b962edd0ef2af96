"""Last step of ``encode``: write a shard to the store after its images are decoded."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.errors import MmtppError, error_to_json
from mmtpp.core.events import Rejected
from mmtpp.data.encode.decoded_images import BAD_IMAGE, load_decoded_images, load_image_paths
from mmtpp.data.encode.shard_columns import ShardColumns
from mmtpp.data.encode.shard_output import (
    ShardReading,
    read_pending_sequences,
    write_finished_shard,
)
from mmtpp.storage.image_files import describe_image


class FinishShard:
    """Points the events of a shard to their frames. One call is the work of a Ray Data task.

    Args:
        folder: URI of the data folder.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def __call__(self, row: dict) -> dict:
        """Finish the shard ``row["shard"]``; ``problem`` is not empty on failure."""
        try:
            return {"problem": "", "counts": self._finish(int(row["shard"]))}
        except MmtppError as error:
            return {"problem": error_to_json(error), "counts": ""}

    def _finish(self, shard: int) -> str:
        reading = ShardReading.load(self._folder, shard)
        columns = read_pending_sequences(self._folder, shard, reading.paths)
        images = load_decoded_images(self._folder, shard, num_images=reading.num_images)
        has_image = columns.frame >= 0
        frame = np.full_like(columns.frame, -1)
        frame[has_image] = images.frame[columns.frame[has_image]]
        bad = frame == BAD_IMAGE
        if bad.any():
            rejected = self._reject_events(shard, columns, bad, images.problems)
            reading = replace(reading, rejected=[*reading.rejected, *rejected])
        columns = replace(columns, frame=frame).keep(~bad)
        return write_finished_shard(self._folder, shard, columns, reading, images.digests)

    def _reject_events(
        self, shard: int, columns: ShardColumns, bad: NDArray[np.bool_], problems: list[str]
    ) -> list[Rejected]:
        """Build the rejected records of events whose image is unreadable.

        Args:
            shard: Number of the shard.
            columns: Sequences of the shard; ``frame`` is the position of the image path.
            bad: (E,) events to reject.
            problems: Reason for each unreadable image, by position of its path.
        """
        paths = load_image_paths(self._folder, shard)
        starts = columns.starts
        rejected = []
        for event in np.flatnonzero(bad).tolist():
            sequence = int(np.searchsorted(starts, event, side="right")) - 1
            image = int(columns.frame[event])
            end = int(starts[sequence + 1]) if sequence + 1 < len(starts) else len(bad)
            rejected.append(
                Rejected(
                    path=columns.paths[sequence],
                    row=event - int(starts[sequence]),
                    cause="unreadable_image",
                    detail=problems[image],
                    record=f"time {columns.times[event]}, image {describe_image(paths[image])}",
                    sequence_id=columns.sequence_ids[sequence],
                    time=float(columns.times[event]),
                    is_last=bool(bad[event:end].all()),
                )
            )
        return rejected
