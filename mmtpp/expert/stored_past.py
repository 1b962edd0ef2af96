"""The expert's view of events in a store: forecasts of single events, given all events before them.

Axes: N events, P columns of the memory.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from mmtpp.core.events import NO_FRAME
from mmtpp.core.past.event_images import EventImages
from mmtpp.core.past.event_memory import MemoryState, memory_rows
from mmtpp.core.past.past_events import PastEvents
from mmtpp.data.store.store_reader import StoreReader
from mmtpp.data.store.store_settings import StoreSettings
from mmtpp.data.store.stored_sequence import Address
from mmtpp.expert.event_inputs import EventInputs
from mmtpp.expert.expert_folder import Expert
from mmtpp.expert.expert_forecasts import ExpertForecasts
from mmtpp.expert.next_events import words_of
from mmtpp.expert.read_images import read_images
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


@dataclass(frozen=True, slots=True)
class _EventsBefore:
    """The events before the forecast ones.

    Attributes:
        rows: (N, P) memory after each event.
        types: (N,) index of the type of each event.
        words: (N, MAX_WORDS) words of the text of each event; (N, 0) if words are not read.
        images: Images of the events; None if images are not read.
    """

    rows: NDArray[np.float32]
    types: NDArray[np.int64]
    words: torch.Tensor
    images: EventImages | None


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
        blocks = [block for part in parts for block in self._events_before(part)]
        images = [block.images for block in blocks if block.images is not None]
        inputs = EventInputs(
            memory=torch.from_numpy(np.concatenate([block.rows for block in blocks])),
            types=torch.from_numpy(np.concatenate([block.types for block in blocks])),
            words=torch.cat([block.words for block in blocks]),
            images=torch.from_numpy(EventImages.join(images).values) if images else None,
        )
        return ExpertForecasts.after(self._expert.networks, inputs)

    def past(self, part: PositionedEvents) -> PastEvents:
        """All events before the first of the events; only the last two have their images."""
        end = int(part.positions[0])
        return self._read(part, 0, end, np.array([end - 1]))

    def _events_before(self, part: PositionedEvents) -> Iterator["_EventsBefore"]:
        """Read the event before each event, in blocks."""
        before = part.positions - 1
        if part.address != self._address or before[0] < self._num_read:
            self._address, self._num_read, self._state = part.address, 0, None
        while self._num_read <= before[-1]:
            start = self._num_read
            end = min(int(before[-1]) + 1, start + _BLOCK_EVENTS)
            wanted = before[(before >= start) & (before < end)] - start
            past = self._read(part, start, end, wanted)
            rows, self._state = memory_rows(self._expert.memory, past, self._state)
            self._num_read = end
            types = past.types[wanted].astype(np.int64)
            images = past.images.take(wanted) if past.images is not None else None
            yield _EventsBefore(rows[wanted], types, words_of(past, wanted), images)

    def _read(
        self, part: PositionedEvents, start: int, end: int, shown: NDArray[np.int64]
    ) -> PastEvents:
        """Read the events from ``start`` to before ``end``, with the images of some of them."""
        stored = self._reader.events(part.address, start, end)
        past = past_events(
            stored.times,
            stored.events,
            self._codes,
            self._expert.texts,
            where=f"{self._store.data_uri}, sequence {part.sequence_id}",
        )
        if self._expert.reads_images:
            past = replace(past, images=self._images(part.address, start, end, shown))
        return replace(past, is_first=past.is_first & (start == 0))

    def _images(
        self, address: Address, start: int, end: int, shown: NDArray[np.int64]
    ) -> EventImages:
        """Images of events from ``start`` to before ``end``: of some, and of those before them."""
        first = max(start - 1, 0)
        stored = self._reader.events(address, first, end).events.frames
        frames = np.full(len(stored), NO_FRAME, dtype=np.int32)
        for places in (shown + start - first, np.maximum(shown + start - first - 1, 0)):
            frames[places] = stored[places]
        parts = [(address.file, frames)]
        [images] = read_images(self._reader, parts, image_px=self._store.image_px)
        return images.take(slice(start - first, None))
