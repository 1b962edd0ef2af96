"""Futures of a temporal expert from origins within held-out sequences: the work of a Ray task."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from mmtpp.core.representation.window import future_origins
from mmtpp.core.seeds import seed_from
from mmtpp.evaluate.actors.future_actor import FUTURE_SCHEMA, future_rows
from mmtpp.expert.expert_folder import Expert
from mmtpp.expert.expert_futures import FUTURES_PER_PASS, FutureSettings, sample_futures
from mmtpp.expert.next_events import ScoredSequence
from mmtpp.expert.rollout import ExpertRollout
from mmtpp.expert.sequence_state import SequenceState


def sample_sequence_futures(
    expert: Expert,
    sequences: Sequence[ScoredSequence],
    settings: FutureSettings,
    type_codes: Sequence[int],
    num_origins: int,
    seed: int,
) -> pa.Table:
    """Sample futures from the origins of sequences.

    Args:
        expert: The expert.
        sequences: Whole sequences.
        settings: Number and length of the futures of each origin.
        type_codes: Codes of the expert's types.
        num_origins: Number of origins of each sequence.
        seed: Seed of the draws, combined with the origin.

    Returns:
        Table of ``future_actor.FUTURE_SCHEMA``.
    """
    rows: list[dict[str, object]] = []
    all_origins = list(_origins(sequences, settings, num_origins))
    batch_size = max(1, FUTURES_PER_PASS // settings.num_futures)
    for start in range(0, len(all_origins), batch_size):
        origins = all_origins[start : start + batch_size]
        states = [
            SequenceState.after(expert.memory, sequence.past.slice(0, end))
            for sequence, end in origins
        ]
        generators = [
            np.random.default_rng(seed_from("horizon", seed, sequence.sequence_id, end - 1))
            for sequence, end in origins
        ]
        rollout = ExpertRollout(expert, states, settings.num_futures)
        sampled = sample_futures(rollout, settings, generators)
        for (sequence, end), futures in zip(origins, sampled, strict=True):
            rows += future_rows(futures, np.asarray(type_codes), sequence.sequence_id, end - 1)
    return pa.Table.from_pylist(rows, FUTURE_SCHEMA)


def _origins(
    sequences: Sequence[ScoredSequence], settings: FutureSettings, num_origins: int
) -> Iterator[tuple[ScoredSequence, int]]:
    """Sequences with the numbers of their events before the futures."""
    for sequence in sequences:
        first_target = int(np.flatnonzero(sequence.is_target)[0])
        # the first event has no interval: futures follow the second event at the earliest
        ends = future_origins(
            sequence.past.times,
            num_origins,
            horizon=settings.horizon,
            first=max(2, first_target),
        )
        yield from ((sequence, int(end)) for end in ends)
