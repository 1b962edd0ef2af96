"""How often a step waits for its device: a value that the host reads is computed first."""

from collections import Counter

import pytest
import torch
from torch import distributed as dist

from mmtpp.config.schema import TrainingSection
from mmtpp.train.loop import run_loop
from mmtpp.train.ranks.rank_sums import sum_numbers_over_ranks
from tests.unit.train.fake_worker import RecordedRun, fake_worker

READS = ("cpu", "item", "tolist", "numpy", "__float__", "__int__", "__bool__")
NUM_STEPS = 6


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Number of tensors whose values the host read, by method."""
    counts: Counter[str] = Counter()
    for name in READS:
        original = getattr(torch.Tensor, name)

        def read(tensor: torch.Tensor, *arguments: object, _name=name, _read=original, **options):
            counts[_name] += 1
            return _read(tensor, *arguments, **options)

        monkeypatch.setattr(torch.Tensor, name, read)
    return counts


@pytest.mark.parametrize("log_every", [1, 3])
def test_a_step_of_one_rank_reads_its_losses_and_nothing_else(reads: Counter[str], log_every: int):
    """The engine reads the gradient norm, too; both before the update, which they may refuse."""
    training = TrainingSection(
        num_steps=NUM_STEPS, log_every=log_every, checkpoint_every=100, samples_per_step=1
    )
    worker = fake_worker(training, RecordedRun())
    reads.clear()
    run_loop(worker)
    # the stand-in for the engine compares each loss with the step, which a real one does not
    assert reads == {"cpu": NUM_STEPS, "numpy": NUM_STEPS, "__float__": NUM_STEPS}


def test_a_single_rank_keeps_its_numbers_on_the_host(reads: Counter[str]):
    values = [1.5, 2.0]
    assert sum_numbers_over_ranks(values, torch.device("meta")).tolist() == values
    assert reads == {}


def test_several_ranks_add_their_numbers_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 3)
    monkeypatch.setattr(dist, "all_reduce", lambda tensor: tensor.mul_(3))
    assert sum_numbers_over_ranks([1.5, 2.0], torch.device("cpu")).tolist() == [4.5, 6.0]
