"""Where the events of a row are in the store, so that their whole past can be read."""

import numpy as np
from numpy.typing import NDArray

from mmtpp.data.store.stored_sequence import Address
from mmtpp.expert.stored_past import PositionedEvents
from mmtpp.inference.assembled_row import AssembledRow


def positioned_events(sample: AssembledRow, events: NDArray[np.integer]) -> list[PositionedEvents]:
    """Places of a row's events in the store, by window.

    Args:
        sample: A row with its windows.
        events: Indices in the row, increasing. The index after the last event of the last window
            asks for the event that follows.
    """
    sizes = np.array([window["end"] - window["start"] for window in sample.windows])
    starts = np.cumsum(sizes) - sizes
    window_of = np.searchsorted(starts, events, side="right") - 1
    return [
        PositionedEvents(
            Address.from_window(window),
            window["sequence_id"],
            window["start"] + events[window_of == index].astype(np.int64) - starts[index],
        )
        for index, window in enumerate(sample.windows)
        if (window_of == index).any()
    ]
