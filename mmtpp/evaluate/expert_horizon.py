"""Futures of a temporal expert from origins within held-out sequences, in Ray tasks."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from mmtpp.core.event_memory import memory_rows
from mmtpp.core.seeds import seed_from
from mmtpp.core.window import future_origins
from mmtpp.evaluate.context import EvaluationContext
from mmtpp.evaluate.expert_targets import sequence_blocks
from mmtpp.evaluate.horizon_actor import FUTURE_SCHEMA, future_rows
from mmtpp.expert.expert_folder import Expert, load_expert
from mmtpp.expert.expert_futures import FutureSettings, LastEvent, sample_futures
from mmtpp.expert.next_events import ScoredSequence
from mmtpp.expert.read_sequences import SequenceSettings, read_sequences
from mmtpp.model.record import TrainedTasks
from mmtpp.runtime.block_tasks import map_blocks


def expert_futures(context: EvaluationContext, trained_tasks: TrainedTasks) -> Iterator[pa.Table]:
    """Sample the futures of all origins, ``horizon_actor.FUTURE_SCHEMA``."""
    wanted = context.settings
    expert = load_expert(context.model.model_uri)
    codes = trained_tasks.type_codes
    sequences = read_sequences(SequenceSettings(context.held_out, codes, expert.texts))
    settings = FutureSettings(wanted.num_futures, wanted.horizon, wanted.max_future_events)
    return map_blocks(
        sample_sequences,
        expert,
        sequence_blocks(sequences),
        settings,
        codes,
        wanted.origins_per_sequence,
        context.seed,
        machine_labels=context.task_labels,
        title="evaluate: futures",
    )


def sample_sequences(
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
        Table of ``horizon_actor.FUTURE_SCHEMA``.
    """
    rows: list[dict[str, object]] = []
    for sequence in sequences:
        first_target = int(np.flatnonzero(sequence.is_target)[0])
        # the first event has no interval: futures follow the second event at the earliest
        ends = future_origins(
            sequence.past.times,
            num_origins,
            horizon=settings.horizon,
            first=max(2, first_target),
        )
        for end in ends:
            past = sequence.past.slice(0, end)
            memory, state = memory_rows(expert.memory, past)
            rng = np.random.default_rng(seed_from("horizon", seed, sequence.sequence_id, end - 1))
            last = LastEvent.of(past, memory)
            futures = sample_futures(expert, last, state, settings, rng)
            rows += future_rows(futures, np.asarray(type_codes), sequence.sequence_id, end - 1)
    return pa.Table.from_pylist(rows, FUTURE_SCHEMA)
