"""One packed sample in numpy, between the data pipeline and the model.

Axes: T tokens, F distinct frames of S x S pixels, I image occurrences, E events, N labels.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.tokens import Modality


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

    def label_positions(self) -> NDArray[np.int64]:
        """(N,) positions that are predicted: scored, not masked, not the first of a segment."""
        follows = np.zeros(len(self.segment), dtype=np.bool_)
        follows[1:] = self.segment[1:] == self.segment[:-1]
        return np.flatnonzero(follows & self.scored & (self.modality != Modality.MASKED))
