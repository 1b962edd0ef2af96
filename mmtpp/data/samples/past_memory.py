"""The memory after events of stored sequences, for windows in any order.

The memory of an event depends on all events before it. So that a window late in a long sequence
does not need the whole past again, the state of the memory is kept after every part of the store.

Axes: N events of a window, P columns of the memory.
"""

from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.past.event_memory import MemorySettings, MemoryState, memory_rows
from mmtpp.core.past.past_events import PastEvents
from mmtpp.data.store.layout import PART_EVENTS
from mmtpp.data.store.store_reader import StoreReader
from mmtpp.data.store.stored_sequence import Address

MAX_SEQUENCES = 1024
"""Number of sequences whose states are kept: those that were used last."""


class PastMemory:
    """Computes memory from a store.

    Args:
        settings: Settings of the memory; types are counted by their codes.
        reader: Reader of the store.
    """

    def __init__(self, settings: MemorySettings, reader: StoreReader) -> None:
        self._settings, self._reader = settings, reader
        # states[index] is the state after (index + 1) * PART_EVENTS events
        self._states: OrderedDict[Address, list[MemoryState]] = OrderedDict()

    def rows(self, address: Address, start: int, end: int) -> NDArray[np.float32]:
        """(N, P) memory after the events from ``start`` to before ``end``, not normalised.

        Args:
            address: Place of the sequence in the store.
            start: Position of the first event in the sequence.
            end: Position after the last event.
        """
        states = self._states_of(address)
        num_steps = min(start // PART_EVENTS, len(states))
        position, state = num_steps * PART_EVENTS, states[num_steps - 1] if num_steps else None
        parts: list[NDArray[np.float32]] = []
        while position < end:
            until = min(position - position % PART_EVENTS + PART_EVENTS, end)
            rows, state = memory_rows(self._settings, self._read(address, position, until), state)
            if until == (len(states) + 1) * PART_EVENTS:
                states.append(state)
            parts.append(rows[max(0, start - position) :])
            position = until
        return np.concatenate(parts)

    def _states_of(self, address: Address) -> list[MemoryState]:
        states = self._states.setdefault(address, [])
        self._states.move_to_end(address)
        if len(self._states) > MAX_SEQUENCES:
            self._states.popitem(last=False)
        return states

    def _read(self, address: Address, start: int, end: int) -> PastEvents:
        stored = self._reader.events(address, start, end)
        is_first = np.arange(start, end) == 0
        lengths = np.diff(stored.events.text_offsets)
        return PastEvents(stored.times, stored.events.types, lengths, is_first)
