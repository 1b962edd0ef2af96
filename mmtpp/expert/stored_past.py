"""The expert's view of events in a store: forecasts of single events, given all events before them.

Axes: N events.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from mmtpp.core.event_memory import MemoryState, memory_rows
from mmtpp.core.past_events import PastEvents
from mmtpp.data.store.store_reader import StoreReader
from mmtpp.data.store.store_settings import StoreSettings
from mmtpp.data.store.stored_sequence import Address
from mmtpp.expert.expert_folder import Expert
from mmtpp.expert.expert_forecasts import ExpertForecasts
from mmtpp.expert.read_sequences import past_events

_BLOCK_EVENTS = 2**18  # read at once: bounds the memory of a long sequence


@dataclass(frozen=True, slots=True)
class PositionedEvents:
    """Events of one stored sequence that are forecast.

    Attributes:
        address: Place of the sequence in the store.
        sequence_id: Name of the sequence.
        positions: (N,) positions of the events in the sequence, increasing, at least 1. The
            position after the last event asks for the event that follows.
    """

    address: Address
    sequence_id: str
    positions: NDArray[np.int64]


class StoredPast:
    """Reads the past of events from a store.

    Windows of a sequence mostly follow each other, so the reader continues where it was.

    Args:
        expert: The expert.
        type_codes: Codes of the types that the expert knows, in order.
        store: The store.
    """

    def __init__(self, expert: Expert, type_codes: tuple[int, ...], store: StoreSettings) -> None:
        self._expert, self._codes = expert, type_codes
        self._store = store
        self._reader = StoreReader(store)
        self._address: Address | None = None
        self._num_read = 0
        self._state: MemoryState | None = None

    def forecasts(self, parts: Sequence[PositionedEvents]) -> ExpertForecasts:
        """Forecasts of events, in their order.

        Raises:
            DataError: A type is not among the expert's.
        """
        read = [self._rows(part) for part in parts]
        rows = np.concatenate([rows for rows, _ in read])
        types = np.concatenate([types for _, types in read]).astype(np.int64)
        return ExpertForecasts.after(
            self._expert.networks, torch.from_numpy(rows), torch.from_numpy(types)
        )

    def past(self, part: PositionedEvents) -> PastEvents:
        """All events before the first of the events."""
        return self._read(part, 0, int(part.positions[0]))

    def _rows(self, part: PositionedEvents) -> tuple[NDArray[np.float32], NDArray[np.integer]]:
        """Memory and types of the events before each event."""
        before = part.positions - 1
        if part.address != self._address or before[0] < self._num_read:
            self._address, self._num_read, self._state = part.address, 0, None
        rows: list[NDArray[np.float32]] = []
        types: list[NDArray[np.integer]] = []
        while self._num_read <= before[-1]:
            start = self._num_read
            past = self._read(part, start, min(int(before[-1]) + 1, start + _BLOCK_EVENTS))
            block, self._state = memory_rows(self._expert.memory, past, self._state)
            self._num_read = start + len(past)
            wanted = before[(before >= start) & (before < self._num_read)] - start
            rows.append(block[wanted])
            types.append(past.types[wanted])
        return np.concatenate(rows), np.concatenate(types)

    def _read(self, part: PositionedEvents, start: int, end: int) -> PastEvents:
        stored = self._reader.events(part.address, start, end)
        past = past_events(
            stored.times,
            stored.events.types,
            np.diff(stored.events.text_offsets),
            self._codes,
            has_texts=self._expert.memory.has_texts,
            where=f"{self._store.data_uri}, sequence {part.sequence_id}",
        )
        return replace(past, is_first=past.is_first & (start == 0))
