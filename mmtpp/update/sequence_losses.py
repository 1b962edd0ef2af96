"""Losses of an expert on the scored events of sequences, summed by sequence."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from mmtpp.expert.expert_folder import Expert
from mmtpp.expert.network_losses import event_losses
from mmtpp.expert.new_events import as_read_by
from mmtpp.expert.next_events import EventBlocks, ScoredSequence

LOSS_SCHEMA = pa.schema(
    [
        ("sequence_id", pa.string()),
        ("events", pa.float64()),  # number of scored events
        ("time_nll", pa.float64()),  # sum over these events, in nats
        ("type_nll", pa.float64()),  # the same of the type, given the time
    ]
)


def sequence_losses(expert: Expert, sequences: Sequence[ScoredSequence]) -> pa.Table:
    """Sums of the losses by sequence, ``LOSS_SCHEMA``, in the order of the sequences.

    Args:
        expert: The expert.
        sequences: Sequences with scored events.
    """
    parts: list[pa.Table] = []
    blocks = EventBlocks.from_sequences(
        expert.memory, as_read_by(expert, sequences), tick=expert.tick
    )
    for sequences_of_block, events in zip(blocks.blocks, blocks, strict=True):
        counts = [int(sequence.is_target.sum()) for sequence in sequences_of_block]
        place = np.repeat(np.arange(len(counts)), counts)
        sums = [
            np.bincount(place, losses.numpy()) for losses in event_losses(expert.networks, events)
        ]
        names = [sequence.sequence_id for sequence in sequences_of_block]
        parts.append(pa.table([names, np.array(counts, float), *sums], schema=LOSS_SCHEMA))
    return pa.concat_tables(parts) if parts else LOSS_SCHEMA.empty_table()
