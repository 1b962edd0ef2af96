"""A state that continues event by event equals the state after the whole sequence."""

import numpy as np
import pytest

from mmtpp.core.past.event_memory import MemorySettings
from mmtpp.core.past.event_words import EventWords
from mmtpp.core.past.past_events import PastEvents
from mmtpp.expert.sequence_state import SequenceState


def _events(seed: int, size: int) -> PastEvents:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 5, size)
    offsets = np.append(0, np.cumsum(lengths))
    words = EventWords.from_tokens(rng.integers(0, 90, offsets[-1]), offsets, 50)
    times = np.cumsum(rng.choice([0.0, 0.5, 3.0, 1e4], size))
    return PastEvents.from_sequence(times, rng.integers(0, 3, size), lengths, words)


@pytest.fixture(scope="module")
def memory() -> MemorySettings:
    return MemorySettings.fit(_events(9, 400), tick=0.5, seconds_per_unit=1.0)


def _check_equal(state: SequenceState, expected: SequenceState) -> None:
    np.testing.assert_allclose(state.row, expected.row, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(state.words, expected.words)
    assert state.type == expected.type
    assert state.memory.last_time == expected.memory.last_time
    assert state.memory.num_events == expected.memory.num_events


def test_sequences_that_continue_together_equal_each_one_alone(memory: MemorySettings):
    """Steps of no, one or several new events, and sequences that begin later than others."""
    rng = np.random.default_rng(1)
    pasts = [_events(seed, 30) for seed in range(5)]
    states: list[SequenceState | None] = [None] * 5
    read = [0] * 5
    while min(read) < 30:
        steps = rng.choice([0, 1, 1, 1, 4], 5)
        moved = [i for i in range(5) if steps[i] and read[i] < 30]
        parts = [pasts[i].slice(read[i], read[i] + steps[i]) for i in moved]
        if not moved:
            continue
        advanced = SequenceState.advance(
            memory, [states[i] for i in moved], PastEvents.join(parts), list(map(len, parts))
        )
        for i, part, state in zip(moved, parts, advanced, strict=True):
            states[i] = state
            read[i] += len(part)
            _check_equal(state, SequenceState.after(memory, pasts[i].slice(0, read[i])))


def test_a_state_does_not_change_when_its_sequence_continues(memory: MemorySettings):
    past = _events(0, 3)
    first = SequenceState.after(memory, past.slice(0, 2))
    row, counts = first.row.copy(), first.memory.counts.copy()
    SequenceState.advance(memory, [first] * 2, PastEvents.join([past.slice(2, 3)] * 2), [1, 1])
    np.testing.assert_array_equal(first.row, row)
    np.testing.assert_array_equal(first.memory.counts, counts)
