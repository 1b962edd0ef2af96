"""Experts that continue on new events: what is learned, replayed, kept and saved."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mmtpp.core.errors import ConfigError, NonFiniteLossError
from mmtpp.expert.expert_folder import Expert, load_expert
from mmtpp.expert.fit import ExpertFit
from mmtpp.expert.fit_state import FitProgress
from mmtpp.expert.network_losses import NetworkLosses, event_losses, mean_losses
from mmtpp.expert.network_start import TrainedStart
from mmtpp.expert.new_events import targets_between, with_replay
from mmtpp.expert.next_events import EventBlocks, ScoredSequence
from mmtpp.expert.prompts import PROMPTS
from tests.helpers.small_experts import SETTINGS, TICK, alternating_sequences

CONTINUED = replace(SETTINGS, epochs=6, learning_rate=3e-3, memory_dropout=0.0)


def _swapped(number: int, seed: int) -> list[ScoredSequence]:
    """The alternating events of ``conftest``, with the intervals of both types exchanged."""
    return [
        replace(sequence, past=replace(sequence.past, types=1 - sequence.past.types))
        for sequence in alternating_sequences(number, seed)
    ]


def _continue(
    expert: Expert, training: Sequence[ScoredSequence], *, num_prompts: int = 0, **changes: object
) -> ExpertFit:
    return ExpertFit(
        EventBlocks.from_sequences(expert.memory, training, tick=TICK),
        EventBlocks.from_sequences(expert.memory, _swapped(5, 11), tick=TICK),
        num_types=2,
        settings=replace(CONTINUED, **changes),
        start=TrainedStart(expert.networks, num_prompts),
    )


def _with_networks(expert: Expert, fit: ExpertFit) -> Expert:
    return replace(expert, networks=tuple(fit.networks()))


def _nll(expert: Expert, sequences: Sequence[ScoredSequence]) -> float:
    blocks = EventBlocks.from_sequences(expert.memory, sequences, tick=TICK)
    return mean_losses(expert.networks, blocks).nll


def test_it_learns_that_the_types_have_changed_places(expert: Expert):
    new = _swapped(5, 12)
    fit = _continue(expert, _swapped(10, 10))
    fit.run()
    assert _nll(_with_networks(expert, fit), new) < _nll(expert, new) - 1.0


def test_prompts_learn_it_in_part_forget_less_and_leave_the_weights(expert: Expert):
    new, past = _swapped(5, 12), alternating_sequences(5, 12)
    prompts, weights = (
        _continue(expert, _swapped(10, 10), num_prompts=number, learning_rate=rate)
        for number, rate in ((6, 3e-2), (0, 3e-3))
    )
    for fit in (prompts, weights):
        fit.run()
    prompted = _with_networks(expert, prompts)
    assert _nll(prompted, new) < _nll(expert, new) - 0.4
    forgotten = [_nll(_with_networks(expert, fit), past) for fit in (prompts, weights)]
    assert _nll(expert, past) < forgotten[0] < forgotten[1]
    for start, network in zip(expert.networks, prompted.networks, strict=True):
        for name, weights in start.state_dict().items():
            assert torch.equal(weights, network.state_dict()[name]), name


def test_weights_that_are_never_better_stay_as_they_are(expert: Expert):
    """The training events contradict the validation events, on which the expert is good already."""
    fit = ExpertFit(
        EventBlocks.from_sequences(expert.memory, _swapped(5, 10), tick=TICK),
        EventBlocks.from_sequences(expert.memory, alternating_sequences(5, 1), tick=TICK),
        num_types=2,
        settings=CONTINUED,
        start=TrainedStart(expert.networks),
    )
    fit.run()
    for start, network in zip(expert.networks, fit.networks(), strict=True):
        for name, weights in start.state_dict().items():
            assert torch.equal(weights, network.state_dict()[name]), name


def test_the_width_is_that_of_the_expert(expert: Expert):
    """The section ``expert`` of the settings may say another width."""
    fit = _continue(expert, _swapped(2, 10), epochs=1, width=24)
    fit.run()
    assert fit.networks()[0].size.width == expert.networks[0].size.width == 16


def test_a_first_validation_that_is_not_finite_does_not_count(expert: Expert, monkeypatch):
    monkeypatch.setattr(ExpertFit, "validate", lambda _: NetworkLosses(math.nan, 0.0, 10))
    fit = _continue(expert, _swapped(2, 10), epochs=1)
    assert fit.progress.best_nll is None
    fit.record_validation(NetworkLosses(5.0, 0.0, 10))
    assert fit.progress.best_nll == 5.0


def test_errors_name_the_learning_rate_of_the_update(expert: Expert):
    for num_prompts, name in ((0, "update.learning_rate"), (6, "update.prompt_learning_rate")):
        fit = _continue(expert, _swapped(2, 10), num_prompts=num_prompts)
        with torch.no_grad():
            fit._state.network.input.weight.fill_(float("nan"))
        with pytest.raises(NonFiniteLossError) as caught:
            fit.run_step()
        assert caught.value.setting == f"{name} = {fit.settings.learning_rate:g}"


def test_new_prompts_change_no_forecast(expert: Expert):
    events = EventBlocks.from_sequences(expert.memory, _swapped(2, 10), tick=TICK).load(0)
    start = TrainedStart(expert.networks, num_prompts=5)
    networks = [start.build(index, dropout=0.0, memory_dropout=0.0).eval() for index in range(2)]
    for expected, losses in zip(
        event_losses(expert.networks, events), event_losses(networks, events), strict=True
    ):
        torch.testing.assert_close(losses, expected, rtol=0, atol=0)
    trained = {name for name, values in networks[0].named_parameters() if values.requires_grad}
    assert trained == {f"{PROMPTS}keys", f"{PROMPTS}prompts"}


@pytest.mark.parametrize("num_prompts", [0, 6])
def test_a_resumed_training_has_the_same_weights(expert: Expert, num_prompts: int):
    whole = _continue(expert, _swapped(4, 10), num_prompts=num_prompts)
    whole.run()
    stopped = _continue(expert, _swapped(4, 10), num_prompts=num_prompts)
    for _ in range(stopped.num_steps + 3):  # into the second network
        stopped.run_step()
        if stopped.validation_is_due:
            stopped.record_validation(stopped.validate())
    resumed = _continue(expert, _swapped(4, 10), num_prompts=num_prompts)
    resumed.restore(FitProgress.from_record(stopped.progress.as_record()), stopped.tensors())
    resumed.run()
    for expected, network in zip(whole.networks(), resumed.networks(), strict=True):
        for name, tensor in expected.state_dict().items():
            assert torch.equal(tensor, network.state_dict()[name]), name


def test_an_expert_with_prompts_is_saved_and_continued(expert: Expert, tmp_path: Path):
    fit = _continue(expert, _swapped(4, 10), num_prompts=6, epochs=1)
    fit.run()
    prompted = _with_networks(expert, fit)
    prompted.save(tmp_path)
    loaded = load_expert(str(tmp_path))
    assert loaded.networks[0].size.num_prompts == 6
    assert _nll(loaded, _swapped(2, 12)) == _nll(prompted, _swapped(2, 12))
    again = _continue(loaded, _swapped(4, 10), num_prompts=6, epochs=1)
    again.run()
    assert again.networks()[0].size.num_prompts == 6
    weights = _continue(loaded, _swapped(4, 10), epochs=1)  # trains all weights, prompts too
    weights.run()
    assert weights.networks()[0].size.num_prompts == 6
    with pytest.raises(ConfigError, match=r"the expert has 6 prompts"):
        _continue(loaded, _swapped(4, 10), num_prompts=7)


def test_targets_between_times_keep_their_past():
    sequence = alternating_sequences(1, 0, num_events=10)[0]
    times = sequence.past.times
    [part] = targets_between([sequence], times[4], times[7])
    assert len(part) == 7  # the later events are cut off
    assert np.flatnonzero(part.is_target).tolist() == [4, 5, 6]
    np.testing.assert_array_equal(part.past.times, times[:7])
    assert targets_between([sequence], times[-1] + 1, None) == []
    assert targets_between([sequence], None, times[1]) == []  # a first event is no target
    [whole] = targets_between([sequence], None, None)
    np.testing.assert_array_equal(whole.is_target, sequence.is_target)


@pytest.mark.parametrize(("replay", "expected"), [(0.0, 0), (0.5, 3), (1.0, 6), (100.0, 12)])
def test_replay_draws_older_events(replay: float, expected: int):
    sequence = alternating_sequences(1, 0, num_events=10)[0]
    sequences = [sequence, replace(sequence, sequence_id="same times")]
    new_from = sequence.past.times[7]  # 3 new events in each; 6 older ones are targets
    kept = with_replay(sequences, new_from, replay=replay, seed=1)
    new = sum(int(sequence.is_target[7:].sum()) for sequence in kept)
    older = sum(int(sequence.is_target[:7].sum()) for sequence in kept)
    assert (new, older) == (6, expected)
    assert not any(sequence.is_target[0] for sequence in kept)
    again = with_replay(sequences, new_from, replay=replay, seed=1)
    for first, second in zip(kept, again, strict=True):
        np.testing.assert_array_equal(first.is_target, second.is_target)
