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
        image: (IMAGE_VALUES,) values of the last event's image; None if images are not read.
    """

    memory: MemoryState
    row: NDArray[np.float32]
    type: int
    words: NDArray[np.int16]
    image: NDArray[np.int16] | None

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
        return cls._at_last(past, rows[-1], memory)

    @classmethod
    def _at_last(
        cls, past: PastEvents, row: NDArray[np.float32], memory: MemoryState
    ) -> "SequenceState":
        last = len(past) - 1
        images = past.images
        return cls(
            memory,
            row.copy(),  # not a view of all rows
            int(past.types[last]),
            words_of(past, np.array([last])).numpy()[0],
            images.take(slice(last, None)).values[0] if images is not None else None,
        )

    @classmethod
    def advance(
        cls,
        settings: MemorySettings,
        states: Sequence["SequenceState | None"],
        pasts: Sequence[PastEvents],
    ) -> list["SequenceState"]:
        """The states of N sequences after new events; single events are computed at once.

        Args:
            settings: Settings of the expert's memory.
            states: N states before the events; None for a sequence that begins.
            pasts: The new events of each sequence, at least one each.
        """
        pairs = list(zip(states, pasts, strict=True))
        single = [
            i for i, (state, past) in enumerate(pairs) if state is not None and len(past) == 1
        ]
        advanced: dict[int, SequenceState] = {}
        if len(single) > 1:
            before = MemoryState.join([s.memory for i in single if (s := states[i]) is not None])
            rows, after = next_rows(settings, before, PastEvents.join(pasts[i] for i in single))
            for i, row, memory in zip(single, rows, after.split(), strict=True):
                advanced[i] = cls._at_last(pasts[i], row, memory)
        return [
            advanced[i] if i in advanced else cls.after(settings, past, state)
            for i, (state, past) in enumerate(pairs)
        ]


def forecasts_after(expert: Expert, states: Sequence[SequenceState]) -> ExpertForecasts:
    """Forecasts of the next event of N sequences.

    Args:
        expert: The expert.
        states: (N,) states of the sequences, at least one.
    """
    images = [state.image for state in states if state.image is not None]
    return ExpertForecasts.after(
        expert.networks,
        torch.from_numpy(np.stack([state.row for state in states])),
        torch.tensor([state.type for state in states]),
        torch.from_numpy(np.stack([state.words for state in states])),
        torch.from_numpy(np.stack(images)) if images else None,
    )
