"""Times and types of one sequence, from which the classical baselines are fitted."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.times.clock import round_to_ticks

CHUNK = 1000  # number of events forecast at once; each needs one number for every grid step


@dataclass(frozen=True, slots=True)
class History:
    """The times and types of one sequence of E events.

    Attributes:
        sequence_id: Name of the sequence.
        times: (E,) in the source's unit, in order.
        types: (E,) index into the types that occur.
        tick: Tick of the clock, in the source's unit; 0 where the times have none.
    """

    sequence_id: str
    times: NDArray[np.float64]
    types: NDArray[np.int64]
    tick: float = 0.0

    @property
    def intervals(self) -> NDArray[np.float64]:
        """(E - 1,) intervals before all events but the first, without rounding errors."""
        return round_to_ticks(np.diff(self.times), self.tick)

    def chunks(self) -> Iterator[slice]:
        """Split the E - 1 events after the first into slices of at most ``CHUNK`` events."""
        size = len(self.times) - 1
        for start in range(0, size, CHUNK):
            yield slice(start, min(start + CHUNK, size))
