"""Assembling: samples of a plan in, packed rows out, in order.

A training assembles in Ray tasks. The actors of evaluations and predictions assemble the samples
that they score, and the driver a few samples to count the operations of a step.

The events and frames that a batch of samples needs are read from the store in parallel, ahead of
the batch.
"""

from functools import lru_cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmtpp.core.representation.older_events import images_of
from mmtpp.core.representation.tokens import TokenIds
from mmtpp.data.samples.row_columns import (
    RowLayout,
    image_columns,
    packed_event_columns,
    question_columns,
    soft_columns,
    token_columns,
)
from mmtpp.data.samples.row_table import ROW_SCHEMA, binary_array, list_array
from mmtpp.data.samples.sample_settings import SampleSettings
from mmtpp.data.samples.window_writer import PlannedWindow, WindowWriter, WrittenWindow
from mmtpp.data.store.store_reader import StoreReader


class Assembler:
    """Turns samples of a plan into packed rows.

    Args:
        settings: The settings of the plan.
        token_ids: Token ids of the vocabulary.
    """

    def __init__(self, settings: SampleSettings, token_ids: TokenIds) -> None:
        self._settings = settings
        self._reader = StoreReader(settings.store)
        self._write = WindowWriter(settings, self._reader, token_ids)

    def __call__(self, samples: pa.Table) -> pa.Table:
        """Assemble samples in order.

        Args:
            samples: Columns ``sample_id`` and ``windows``, a list of rows of the plan.

        Returns:
            One row per sample, ``ROW_SCHEMA``.
        """
        planned = [
            list(map(PlannedWindow.from_plan, sample)) for sample in samples["windows"].to_pylist()
        ]
        windows = [window for sample in planned for window in sample]
        ranges = [(window.address, window.start, window.end) for window in windows]
        # the first part of a sequence holds its questions
        ranges += [(window.address, 0, 1) for window in windows if window.end_question]
        self._reader.read_ahead_events(ranges)
        rows = [[self._write(window) for window in sample] for sample in planned]
        self._reader.read_ahead_frames(
            (window.planned.address.file, images_of(window.tokens, window.older))
            for row in rows
            for window in row
        )
        return self._table(samples["sample_id"], rows)

    def _table(self, sample_ids: pa.ChunkedArray, rows: list[list[WrittenWindow]]) -> pa.Table:
        """``ROW_SCHEMA``: every column in one piece, without a Python object per value."""
        windows = [window for row in rows for window in row]
        layout, supervision = RowLayout.from_rows(rows), self._settings.supervision
        num_frames, frames, frame_of_images = self._frames(rows)
        columns = {
            "sample_id": sample_ids,
            **token_columns(windows, layout, supervision),
            "frames": list_array(frames, num_frames),
            **image_columns(windows, layout, frame_of_images),
            "sequences": [[window.planned.sequence_id for window in row] for row in rows],
            **packed_event_columns(windows, layout, supervision, self._settings.targets_delta),
            **question_columns(windows, layout, supervision),
            **soft_columns(windows, layout),
        }
        return pa.table(columns, schema=ROW_SCHEMA)

    def _frames(
        self, rows: list[list[WrittenWindow]]
    ) -> tuple[list[int], pa.LargeBinaryArray, list[NDArray[np.int32]]]:
        """The number of distinct frames in each row, all frames, and for each window the frames
        within its row of ``images_of``."""
        pixels: list[NDArray[np.uint8]] = []
        num_frames: list[int] = []
        frame_of_images: list[NDArray[np.int32]] = []
        for row in rows:
            index_of_digest: dict[bytes, int] = {}
            for window in row:
                images = images_of(window.tokens, window.older)
                distinct, distinct_of_image = np.unique(images, return_inverse=True)
                index_of_distinct = np.empty(len(distinct), dtype=np.int32)
                frames = self._reader.frames(window.planned.address.file, distinct)
                for distinct_index, (digest, image) in enumerate(frames):
                    if digest not in index_of_digest:
                        index_of_digest[digest] = len(index_of_digest)
                        pixels.append(image)
                    index_of_distinct[distinct_index] = index_of_digest[digest]
                frame_of_images.append(index_of_distinct[distinct_of_image])
            num_frames.append(len(index_of_digest))
        return num_frames, binary_array(pixels), frame_of_images


def assemble_samples(samples: pa.Table, settings: SampleSettings, token_ids: TokenIds) -> pa.Table:
    """Assemble samples in a Ray task; the process keeps its ``Assembler`` between tasks."""
    return _assembler(settings, token_ids)(samples)


@lru_cache(maxsize=2)
def _assembler(settings: SampleSettings, token_ids: TokenIds) -> Assembler:
    return Assembler(settings, token_ids)
