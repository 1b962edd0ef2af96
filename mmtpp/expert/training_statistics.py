"""Statistics of the training events, from which a new network starts.

Axes: N events, P columns of the memory.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mmtpp.expert.image_patches import PatchStatistics, PatchSums
from mmtpp.expert.next_events import EventBlocks

_CHANGES_COUNTED = 4096  # events of a block whose images are compared with the next ones


@dataclass(frozen=True, slots=True)
class TrainingStatistics:
    """Statistics of the training events.

    Attributes:
        means: (P,) means of the memory's columns.
        deviations: (P,) standard deviations of the memory's columns.
        log_intervals: (N,) normalised logarithms of the intervals.
        patches: Statistics of the patches of images; None without images.
    """

    means: NDArray[np.float32]
    deviations: NDArray[np.float32]
    log_intervals: NDArray[np.float64]
    patches: PatchStatistics | None

    @classmethod
    def from_events(cls, training: EventBlocks) -> Self:
        """Statistics of the scored events."""
        count, sums, squares, log_intervals = 0, 0.0, 0.0, []
        patches, added = PatchSums(), None
        for events in training:
            memory = events.memory.numpy()
            count += len(memory)
            sums = sums + memory.sum(0, dtype=np.float64)
            squares = squares + np.square(memory, dtype=np.float64).sum(0)
            intervals = events.next_intervals.double().numpy()
            log_intervals.append(training.memory.log_intervals(intervals))
            images = events.images_before
            if images is not None and images.pixels is not added:
                added = images.pixels  # most blocks share one table of all images
                patches.add(added)
            changes = events.take(slice(0, _CHANGES_COUNTED)).changes
            if changes is not None:
                patches.add_changes(changes)
        means = sums / count
        deviations = np.sqrt(np.maximum(squares / count - means**2, 0.0))
        return cls(
            np.asarray(means, dtype=np.float32),
            np.asarray(deviations, dtype=np.float32),
            np.concatenate(log_intervals),
            patches.statistics(),
        )
