"""The events that an expert continues on: within a range of times, mixed with older ones."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mmtpp.core.representation.window import TimeRange
from mmtpp.expert.expert_folder import Expert
from mmtpp.expert.next_events import ScoredSequence
from mmtpp.expert.read_sequences import without_images, without_words


def targets_between(
    sequences: Sequence[ScoredSequence], start: float | None, end: float | None
) -> list[ScoredSequence]:
    """The sequences with a scored event in a range of times; their later events are cut off.

    Earlier events stay as the past of the scored ones.

    Args:
        sequences: Whole sequences.
        start: Time of the first scored event, in the source's unit; None for no bound.
        end: Time before which events are scored; None for no bound.
    """
    within: list[ScoredSequence] = []
    for sequence in sequences:
        first, last = TimeRange(start, end).event_range(sequence.past.times)
        is_target = sequence.is_target[:last].copy()
        is_target[:first] = False
        if is_target.any():
            past = sequence.past.slice(0, last)
            within.append(ScoredSequence(sequence.sequence_id, past, is_target))
    return within


def with_replay(
    sequences: Sequence[ScoredSequence], new_from: float, *, replay: float, seed: int
) -> list[ScoredSequence]:
    """The sequences with their new events and some of the older ones as scored events.

    Args:
        sequences: Whole sequences.
        new_from: Time of the first new event, in the source's unit.
        replay: Number of older scored events for each new one, drawn without replacement; all
            older ones where there are fewer.
        seed: Seed of the draw.
    """
    if not sequences:
        return []
    is_target = np.concatenate([sequence.is_target for sequence in sequences])
    is_new = np.concatenate([sequence.past.times >= new_from for sequence in sequences])
    older = np.flatnonzero(is_target & ~is_new)
    kept = is_target & is_new
    num_older = min(len(older), round(replay * int(kept.sum())))
    kept[np.random.default_rng(seed).choice(older, num_older, replace=False)] = True
    ends = np.cumsum([len(sequence) for sequence in sequences])
    parts = np.split(kept, ends[:-1])
    return [
        replace(sequence, is_target=part)
        for sequence, part in zip(sequences, parts, strict=True)
        if part.any()
    ]


def as_read_by(expert: Expert, sequences: Sequence[ScoredSequence]) -> list[ScoredSequence]:
    """The sequences without the words or the images that the expert does not read."""
    read = list(sequences)
    if not expert.texts.num_words:
        read = without_words(read)
    return read if expert.reads_images else without_images(read)
