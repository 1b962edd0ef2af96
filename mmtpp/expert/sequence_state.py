"""What an expert knows of a sequence after its last event; it continues with later events.

Axes: N sequences, P columns of the memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mmtpp.core.past.event_memory import MemorySettings, MemoryState, memory_rows, next_rows
from mmtpp.core.past.past_events import PastEvents
from mmtpp.expert.event_inputs import EventInputs
from mmtpp.expert.expert_folder import Expert
from mmtpp.expert.expert_forecasts import ExpertForecasts
from mmtpp.expert.next_events import words_of


@dataclass(frozen=True, slots=True)
class SequenceState:
    """The past of one sequence, as far as forecasts after its last event depend on it.

    Attributes:
        memory: Memory of the past.
        row: (P,) columns of the memory after the last event, not normalised.
        type: Index of the last event's type.
        words: (MAX_WORDS,) words of the last event's text; (0,) if words are not read.
        images: (2, IMAGE_VALUES) values of the images of the last event and of the one before it;
            None if images are not read.
    """

    memory: MemoryState
    row: NDArray[np.float32]
    type: int
    words: NDArray[np.int16]
    images: NDArray[np.int16] | None

    @classmethod
    def after(
        cls, settings: MemorySettings, past: PastEvents, before: "SequenceState | None" = None
    ) -> "SequenceState":
        """The state after events.

        Args:
            settings: Settings of the expert's memory.
            past: Events of one sequence, at least one; the types are indices of the expert's types.
            before: State after the events before; None if the first event begins the sequence.
        """
        rows, memory = memory_rows(settings, past, before.memory if before is not None else None)
        return cls._after_each(past.slice(len(past) - 1, len(past)), rows[-1:], [memory])[0]

    @classmethod
    def advance(
        cls,
        settings: MemorySettings,
        states: Sequence["SequenceState | None"],
        past: PastEvents,
        sizes: Sequence[int],
    ) -> list["SequenceState"]:
        """The states of N sequences after new events; single events are computed at once.

        Args:
            settings: Settings of the expert's memory.
            states: N states before the events; None for a sequence that begins.
            past: The new events, one sequence after the other.
            sizes: Number of new events of each sequence, above 0.
        """
        # sequences that continue with one event
        single = {
            index: state
            for index, (state, size) in enumerate(zip(states, sizes, strict=True))
            if state is not None and size == 1
        }
        if len(single) == len(states):  # past has exactly their events
            return cls._after_single(settings, list(single.values()), past)
        ends = np.cumsum(sizes)
        pasts = [past.slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
        advanced: dict[int, SequenceState] = {}
        if single:
            joined = PastEvents.join([pasts[index] for index in single])
            after_single = cls._after_single(settings, list(single.values()), joined)
            advanced = dict(zip(single, after_single, strict=True))
        return [
            advanced[index] if index in advanced else cls.after(settings, new, state)
            for index, (new, state) in enumerate(zip(pasts, states, strict=True))
        ]

    @classmethod
    def _after_single(
        cls, settings: MemorySettings, before: Sequence["SequenceState"], past: PastEvents
    ) -> list["SequenceState"]:
        """The states of N sequences after one more event of each."""
        joined = MemoryState.join([state.memory for state in before])
        rows, memory = next_rows(settings, joined, past)
        return cls._after_each(past, rows, memory.split())

    @classmethod
    def _after_each(
        cls, past: PastEvents, rows: NDArray[np.float32], memories: Sequence[MemoryState]
    ) -> list["SequenceState"]:
        """The states of N sequences from their last events, rows and memories."""
        words = words_of(past, np.arange(len(past))).numpy()
        images = past.images.values if past.images is not None else [None] * len(past)
        columns = zip(memories, rows, past.types.tolist(), words, images, strict=True)
        # copies: a view of one sequence would keep the arrays of all sequences in memory
        return [
            cls(memory, row.copy(), code, words.copy(), None if shown is None else shown.copy())
            for memory, row, code, words, shown in columns
        ]


def forecasts_after(expert: Expert, states: Sequence[SequenceState]) -> ExpertForecasts:
    """Forecasts of the next event of N sequences.

    Args:
        expert: The expert.
        states: (N,) states of the sequences, at least one.
    """
    images = [state.images for state in states if state.images is not None]
    inputs = EventInputs(
        memory=torch.from_numpy(np.stack([state.row for state in states])),
        types=torch.tensor([state.type for state in states]),
        words=torch.from_numpy(np.stack([state.words for state in states])),
        images=torch.from_numpy(np.stack(images)) if images else None,
    )
    return ExpertForecasts.after(expert.networks, inputs)
