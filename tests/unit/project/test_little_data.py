"""The sequences that the benchmark of little data draws."""

import numpy as np

from benchmarks.quality.little_sets import (
    MAX_EVENTS,
    MAX_HELD_OUT,
    MAX_HELD_OUT_EVENTS,
    NUM_TRAINING,
    draw_sequences,
    held_out_sequences,
)
from mmtpp.core.events import EventSequence


def _sequences(*sizes: int) -> list[EventSequence]:
    return [
        EventSequence(
            f"{number:03d}",
            np.arange(size, dtype=np.float64),
            np.zeros(size, np.int16),
            tuple(map(str, range(size))),
            (None,) * size,
        )
        for number, size in enumerate(sizes)
    ]


def _ids(sequences: list[EventSequence]) -> list[str]:
    return [sequence.sequence_id for sequence in sequences]


def test_a_draw_is_stable_and_draws_differ():
    sequences = _sequences(*[10] * 100)
    first = draw_sequences(sequences, 0)
    assert len(first) == NUM_TRAINING == len(set(_ids(first)))
    assert _ids(draw_sequences(sequences[::-1], 0)) == _ids(first)
    assert set(_ids(draw_sequences(sequences, 1))) != set(_ids(first))


def test_events_of_a_drawn_sequence_are_consecutive():
    drawn = draw_sequences(_sequences(*[1000] * 40), 0)
    starts = [sequence.times[0] for sequence in drawn]
    for sequence, start in zip(drawn, starts, strict=True):
        assert sequence.times.tolist() == list(range(int(start), int(start) + MAX_EVENTS))
        assert sequence.texts[0] == f"{start:.0f}"
    assert len(set(starts)) > 10
    assert max(starts) <= 1000 - MAX_EVENTS


def test_sequences_without_a_target_are_not_drawn():
    assert _ids(draw_sequences(_sequences(1, 2, 1, 3), 0)) in (["001", "003"], ["003", "001"])
    assert len(held_out_sequences(_sequences(1, 2, 1, 3))) == 2


def test_held_out_sequences_are_bounded():
    held_out = held_out_sequences(_sequences(*[10] * 200, *[5000] * 200))
    assert len(held_out) == MAX_HELD_OUT
    assert {len(sequence) for sequence in held_out} == {10, MAX_HELD_OUT_EVENTS}
