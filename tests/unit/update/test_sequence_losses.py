"""Losses by sequence, against the mean losses of each sequence alone."""

import pytest

from mmtpp.expert.expert_folder import Expert
from mmtpp.expert.network_losses import mean_losses
from mmtpp.expert.next_events import EventBlocks
from mmtpp.update.sequence_losses import sequence_losses
from tests.helpers.small_experts import TICK, alternating_sequences


def test_losses_by_sequence_are_those_of_the_events(expert: Expert):
    sequences = alternating_sequences(3, 4)
    table = sequence_losses(expert, sequences)
    assert table["sequence_id"].to_pylist() == ["4-0", "4-1", "4-2"]
    assert table["events"].to_pylist() == [59.0] * 3
    for row, sequence in zip(table.to_pylist(), sequences, strict=True):
        blocks = EventBlocks.from_sequences(expert.memory, [sequence], tick=TICK)
        losses = mean_losses(expert.networks, blocks)
        assert row["time_nll"] / 59 == pytest.approx(losses.interval_nll, rel=1e-5)
        assert row["type_nll"] / 59 == pytest.approx(losses.type_nll, rel=1e-5)
    assert len(sequence_losses(expert, [])) == 0
