"""The training of the expert: it learns, repeats exactly, resumes, and ranks change nothing."""

import math
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from mmtpp.core.errors import NonFiniteLossError
from mmtpp.expert.batch_order import BatchOrder
from mmtpp.expert.fit import ExpertFit
from mmtpp.expert.fit_state import FitProgress
from mmtpp.expert.network_losses import NetworkLosses, Ranks, mean_losses
from mmtpp.expert.next_events import EventBlocks
from tests.helpers.small_experts import TICK, SmallFit, alternating_sequences, finish
from tests.unit.expert.meeting import Meeting


def test_it_learns_what_there_is_to_learn(small: SmallFit, finished: ExpertFit):
    # the type is certain, and the intervals are gamma distributed with shape 20, scales 0.1 and 1
    entropy = np.mean([stats.gamma(20.0, scale=scale).entropy() for scale in (0.1, 1.0)])
    losses = finished.validation_losses(finished.networks())
    assert losses is not None
    assert losses.nll == pytest.approx(entropy, abs=0.15)
    assert losses.type_nll < 0.02
    assert len(finished.networks()) == small.settings.num_networks
    alone = [mean_losses([network], small.validation).nll for network in finished.networks()]
    assert finished.progress.finished_nll == pytest.approx(alone, rel=1e-6)
    assert losses.nll < np.mean(alone)


def test_a_resumed_training_has_the_same_weights(small: SmallFit, finished: ExpertFit):
    fit = small.build()
    for _ in range(fit.num_steps + 7):  # into the second network
        fit.run_step()
        if fit.validation_is_due:
            fit.record_validation(fit.validate())
    assert fit.progress.network == 1
    resumed = small.build()
    resumed.restore(FitProgress.from_record(fit.progress.as_record()), fit.tensors())
    finish(resumed)
    for expected, network in zip(finished.networks(), resumed.networks(), strict=True):
        for name, tensor in expected.state_dict().items():
            assert torch.equal(tensor, network.state_dict()[name]), name


def test_checkpoints_keep_the_names_of_their_values():
    progress = FitProgress(network=1, step=2, validations_since_best=3, finished_nll=[0.5])
    assert progress.as_record() == {
        "network": 1,
        "step": 2,
        "steps_before": 0,
        "best_nll": None,
        "worse": 3,
        "finished_nll": [0.5],
    }
    assert FitProgress.from_record(progress.as_record()) == progress


def test_ranks_share_a_batch_and_its_dropout(small: SmallFit):
    alone = small.build()
    # two ranks take turns in threads: gradients and sums meet as they would in torch.distributed
    meeting = Meeting(2)
    fits = [small.build(Ranks(rank, 2, meeting.wrap, meeting.total)) for rank in range(2)]

    def run(fit: ExpertFit) -> None:
        for _ in range(3):
            fit.run_step()

    threads = [threading.Thread(target=run, args=(fit,)) for fit in fits]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run(alone)
    expected = alone.tensors()
    for name, tensor in fits[0].tensors().items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-3, atol=1e-5, msg=name)
        assert torch.equal(tensor, fits[1].tensors()[name]), name


def test_a_diverging_network_is_an_error(small: SmallFit):
    fit = small.build()
    with torch.no_grad():
        fit._state.network.input.weight.fill_(float("nan"))
    before = [parameter.clone() for parameter in fit._state.network.parameters()]
    with pytest.raises(NonFiniteLossError, match="network 1, step 1"):
        fit.run_step()
    after = list(fit._state.network.parameters())
    assert all(
        torch.equal(old[~old.isnan()], new[~old.isnan()])
        for old, new in zip(before, after, strict=True)
    )


@pytest.mark.parametrize("nll", [math.nan, math.inf])
def test_weights_with_a_loss_that_is_not_finite_are_never_the_best(small: SmallFit, nll: float):
    fit = small.build()
    fit.run_step()
    for value, best in ((nll, None), (2.0, 2.0), (nll, 2.0), (1.5, 1.5)):
        fit.record_validation(NetworkLosses(value, 0.0, 10))
        assert fit.progress.best_nll == best


def _validate_with(fit: ExpertFit, nll: float) -> None:
    for _ in range(fit.num_steps):
        fit.run_step()
        fit.record_validation(NetworkLosses(nll, 0.0, 10))


def test_a_network_without_a_finite_validation_loss_is_an_error(small: SmallFit):
    fit = small.build()
    with pytest.raises(NonFiniteLossError, match="no validation loss is finite"):
        _validate_with(fit, math.nan)
    assert not fit.networks()


def test_the_step_is_the_number_of_steps_of_all_networks(small: SmallFit):
    fit, num_steps = small.build(), 0
    while not fit.is_finished:
        fit.run_step()
        num_steps += 1
        if fit.validation_is_due:
            fit.record_validation(fit.validate())
        assert fit.total_steps == num_steps


def test_without_validation_the_last_weights_are_kept(small: SmallFit):
    settings = replace(small.settings, num_networks=1, epochs=1)
    fit = finish(ExpertFit(small.training, None, num_types=2, settings=settings))
    assert len(fit.networks()) == 1
    assert fit.validation_losses(fit.networks()) is None


def test_every_epoch_has_every_event_once(small: SmallFit, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mmtpp.expert.next_events.BLOCK_EVENTS", 150)
    blocks = EventBlocks.from_sequences(small.memory, alternating_sequences(7, 3), tick=TICK)
    assert [len(block) for block in blocks.blocks] == [2, 2, 2, 1]
    order = BatchOrder(blocks, events_per_step=50, seed=0)
    batches = order.batches(0)
    epochs = []
    for _ in range(2):
        rows = [next(batches).events.memory for _ in range(order.steps_per_epoch)]
        assert all(40 <= len(part) <= 60 for part in rows)
        epochs.append(torch.cat(rows).numpy())
    expected = np.concatenate([events.memory.numpy() for events in blocks])
    for epoch in epochs:
        assert np.array_equal(np.unique(epoch, axis=0), np.unique(expected, axis=0))
        assert len(epoch) == order.events_per_epoch == len(expected)
    assert not np.array_equal(epochs[0], epochs[1])


def test_batches_continue_after_any_number(small: SmallFit):
    order = BatchOrder(small.training, events_per_step=100, seed=0)
    batches = order.batches(0)
    expected = [next(batches).events.memory for _ in range(30)]
    for first in (1, order.steps_per_epoch, 25):
        batch = next(order.batches(first))
        assert torch.equal(batch.events.memory, expected[first])
        assert batch.size == len(batch.events)
