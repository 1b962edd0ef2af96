"""Events with the memory after them and the event that follows: what the expert learns from.

Axes: N events, P columns of the memory, G patches along a side of an image.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mmtpp.core.past.event_images import EventImages
from mmtpp.core.past.event_memory import MemorySettings, memory_rows
from mmtpp.core.past.past_events import PastEvents
from mmtpp.core.times.clock import round_to_ticks
from mmtpp.expert.event_inputs import EventInputs
from mmtpp.expert.image_patches import patch_changes

BLOCK_EVENTS = 2**20
"""Number of events whose memory is kept at once; with 80 columns, 320 MiB, and 64 MiB of words."""


@dataclass(frozen=True, slots=True)
class ScoredSequence:
    """A sequence, and which of its events are targets.

    Attributes:
        sequence_id: Name of the sequence.
        past: Its events; the types are indices of the types that the expert knows.
        is_target: (E,) whether the event's likelihood counts; False for the first event.
    """

    sequence_id: str
    past: PastEvents
    is_target: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.past)


@dataclass(frozen=True, slots=True)
class NextEvents:
    """Events and what follows them, as tensors; one row for each scored event.

    Attributes:
        memory: (N, P) float32 memory after the event before the scored one.
        types: (N,) int64 index of the type of the event before.
        next_intervals: (N,) float32 interval until the scored event, in the source's unit.
        next_types: (N,) int64 index of the scored event's type.
        words: (N, MAX_WORDS) int16 words of the text of the event before; (N, 0) if words are not
            read.
        images_before: Images of the events before; None if images are not read.
        next_images: Images of the scored events; None if images are not read.
    """

    memory: torch.Tensor
    types: torch.Tensor
    next_intervals: torch.Tensor
    next_types: torch.Tensor
    words: torch.Tensor
    images_before: EventImages | None
    next_images: EventImages | None

    def __len__(self) -> int:
        return len(self.types)

    @classmethod
    def from_sequences(
        cls, memory: MemorySettings, sequences: Sequence[ScoredSequence], *, tick: float
    ) -> "NextEvents":
        """Compute the memory before all scored events.

        Args:
            memory: Settings of the memory.
            sequences: At least one sequence.
            tick: Tick of the clock, in the source's unit; 0 if the times have no tick.
        """
        past = PastEvents.join(sequence.past for sequence in sequences)
        rows, _ = memory_rows(memory, past)
        scored = np.flatnonzero(np.concatenate([sequence.is_target for sequence in sequences]))
        before = scored - 1
        intervals = round_to_ticks(past.times[scored] - past.times[before], tick)
        images = past.images
        return cls(
            torch.from_numpy(rows[before]),
            torch.from_numpy(past.types[before].astype(np.int64)),
            torch.from_numpy(intervals.astype(np.float32)),
            torch.from_numpy(past.types[scored].astype(np.int64)),
            words_of(past, before),
            images.take(before) if images is not None else None,
            images.take(scored) if images is not None else None,
        )

    def take(self, index: NDArray[np.int64] | slice) -> "NextEvents":
        """Some of the rows."""
        chosen = index if isinstance(index, slice) else torch.from_numpy(index)
        return NextEvents(
            self.memory[chosen],
            self.types[chosen],
            self.next_intervals[chosen],
            self.next_types[chosen],
            self.words[chosen],
            self.images_before.take(index) if self.images_before is not None else None,
            self.next_images.take(index) if self.next_images is not None else None,
        )

    @property
    def inputs(self) -> EventInputs:
        """Inputs of a network: the memory, and the events before the scored ones."""
        return EventInputs(self.memory, self.types, self.words, self.images)

    @property
    def images(self) -> torch.Tensor | None:
        """(N, 2, IMAGE_VALUES) int16 values of the images of the last two events before; None if
        images are not read."""
        images = self.images_before
        return torch.from_numpy(images.values) if images is not None else None

    @property
    def changes(self) -> torch.Tensor | None:
        """(N, G * G) int8 where the next image differs from the one before, as ``patch_changes``;
        None if images are not read."""
        images = self.next_images
        return patch_changes(torch.from_numpy(images.values)) if images is not None else None


def words_of(past: PastEvents, events: NDArray[np.integer]) -> torch.Tensor:
    """(N, MAX_WORDS) words of some events; (N, 0) if words are not read.

    Args:
        past: All events.
        events: (N,) indices of the events.
    """
    if past.words is None:
        return torch.zeros((len(events), 0), dtype=torch.int16)
    return torch.from_numpy(past.words.padded(events))


@dataclass(frozen=True, slots=True)
class EventBlocks:
    """Training sequences in blocks; the rows of one block at a time are in main memory.

    Attributes:
        memory: Settings of the memory.
        tick: Tick of the clock, in the source's unit; 0 if the times have no tick.
        blocks: Sequences of each block, about ``BLOCK_EVENTS`` events or one long sequence.
    """

    memory: MemorySettings
    tick: float
    blocks: tuple[tuple[ScoredSequence, ...], ...]

    @classmethod
    def from_sequences(
        cls, memory: MemorySettings, sequences: Sequence[ScoredSequence], *, tick: float
    ) -> "EventBlocks":
        """Put sequences into blocks, in their order; sequences without scored events are left out.

        Args:
            memory: Settings of the memory.
            sequences: Sequences, of which at least one has a scored event.
            tick: Tick of the clock, in the source's unit; 0 if the times have no tick.
        """
        blocks: list[list[ScoredSequence]] = []
        room = 0
        for sequence in sequences:
            if not sequence.is_target.any():
                continue
            if len(sequence) > room:
                blocks.append([])
                room = BLOCK_EVENTS
            blocks[-1].append(sequence)
            room -= len(sequence)
        return cls(memory, tick, tuple(map(tuple, blocks)))

    def num_targets(self, block: int) -> int:
        """Number of scored events of a block."""
        return sum(int(sequence.is_target.sum()) for sequence in self.blocks[block])

    def load(self, block: int) -> NextEvents:
        """Compute the memory of a block."""
        return NextEvents.from_sequences(self.memory, self.blocks[block], tick=self.tick)

    def __iter__(self) -> Iterator[NextEvents]:
        return map(self.load, range(len(self.blocks)))
