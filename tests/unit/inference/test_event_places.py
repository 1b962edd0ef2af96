"""Places of a row's events in the store."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from mmtpp.data.store.stored_sequence import Address
from mmtpp.inference.event_places import positioned_events


def _sample(*ranges: tuple[int, int]) -> Any:
    windows = [
        {
            "sequence_id": f"s{index}",
            "file": "f",
            "group": index,
            "row": 3,
            "start": start,
            "end": end,
        }
        for index, (start, end) in enumerate(ranges)
    ]
    return SimpleNamespace(windows=windows)


def test_events_of_packed_windows_have_their_positions_in_their_sequences():
    # the first window has events 10 to 14 of its sequence, at indices 0 to 4 of the row
    parts = positioned_events(_sample((10, 15), (0, 3), (7, 9)), np.array([1, 4, 6, 9]))
    assert [part.sequence_id for part in parts] == ["s0", "s1", "s2"]
    assert [part.positions.tolist() for part in parts] == [[11, 14], [1], [8]]
    assert parts[1].address == Address("f", 1, 3)


def test_a_window_without_questions_is_left_out():
    parts = positioned_events(_sample((0, 4), (0, 4)), np.array([5]))
    assert [(part.sequence_id, part.positions.tolist()) for part in parts] == [("s1", [1])]


def test_the_index_after_the_last_event_is_the_event_that_follows():
    [part] = positioned_events(_sample((20, 24)), np.array([4]))
    assert part.positions.tolist() == [24]
