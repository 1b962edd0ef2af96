"""One packed sample in numpy, between the data pipeline and the model.

Axes: T tokens, F distinct frames of S x S pixels, I image occurrences, E events, N labels.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.tokens import Modality

HISTORY = -1  # the branch of a token that belongs to none


@dataclass(frozen=True, slots=True)
class Branches:
    """Which tokens of a row are history and which belong to a branch (``core.branches``).

    A segment is a history followed by its branches. A history token sees the history up to itself;
    a token of a branch sees the first tokens of the history and its own branch up to itself.

    Attributes:
        branch: (T,) int32, ``HISTORY`` or the branch, distinct within a segment.
        visible: (T,) int32, how many leading history tokens of its segment a token may see.
    """

    branch: NDArray[np.int32]
    visible: NDArray[np.int32]

    def mask(self, start: int, end: int) -> NDArray[np.bool_]:
        """What the branches of one segment see.

        Args:
            start: first token of the segment.
            end: the one after its last.

        Returns:
            (tokens of branches, tokens of the segment) True where the row's token may see the
            column's.
        """
        branch, place = self.branch[start:end], np.arange(end - start)
        history = branch == HISTORY
        rows = np.flatnonzero(~history)
        seen = history & (place < self.visible[start:end][rows, None])
        return seen | ((branch[rows, None] == branch) & (place <= rows[:, None]))


@dataclass(frozen=True, slots=True)
class Row:
    """A packed sample in numpy, as Ray Data delivers it.

    Attributes:
        sample_id: index of the sample in the plan.
        input_ids: (T,) int32.
        modality: (T,) uint8, a ``Modality``.
        segment: (T,) int32, which window of the row a token belongs to, from 0.
        event: (T,) int32, index of the event within the row, increasing; -1 in a prefix.
        scored: (T,) bool, whether the token may be a label.
        frames: (F, S, S, 3) uint8, the distinct images of the row.
        image_frame: (I,) int32, the frame of each image in reading order.
        event_type: (E,) int16, types of the row's events.
        event_is_target: (E,) bool, events that evaluation scores.
        branches: of the row's segments; None where all of them are plain text.
    """

    sample_id: int
    input_ids: NDArray[np.int32]
    modality: NDArray[np.uint8]
    segment: NDArray[np.int32]
    event: NDArray[np.int32]
    scored: NDArray[np.bool_]
    frames: NDArray[np.uint8]
    image_frame: NDArray[np.int32]
    event_type: NDArray[np.int16]
    event_is_target: NDArray[np.bool_]
    branches: Branches | None = None

    def label_positions(self) -> NDArray[np.int64]:
        """(N,) positions that are predicted: scored, not masked, after one of the same part.

        A part is a segment, its history, or a branch: a first token has none before it.
        """
        follows = np.zeros(len(self.segment), dtype=np.bool_)
        follows[1:] = self.segment[1:] == self.segment[:-1]
        if self.branches is not None:
            follows[1:] &= self.branches.branch[1:] == self.branches.branch[:-1]
        return np.flatnonzero(follows & self.scored & (self.modality != Modality.MASKED))
