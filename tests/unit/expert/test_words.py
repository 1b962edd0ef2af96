"""Words: the expert learns from them, and nothing changes where there are none."""

import json
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from mmtpp.core.past.event_memory import MemorySettings
from mmtpp.core.past.event_words import NO_WORD, EventWords
from mmtpp.core.past.past_events import PastEvents
from mmtpp.expert.expert_folder import Expert, load_expert
from mmtpp.expert.expert_forecasts import ExpertForecasts
from mmtpp.expert.expert_futures import FutureSettings, sample_futures
from mmtpp.expert.fit import ExpertFit
from mmtpp.expert.fit_state import FitProgress
from mmtpp.expert.network import ExpertNetwork
from mmtpp.expert.network_losses import Ranks, mean_losses
from mmtpp.expert.next_events import EventBlocks, NextEvents, ScoredSequence
from mmtpp.expert.read_sequences import without_words
from mmtpp.expert.rollout import ExpertRollout
from mmtpp.expert.sequence_state import SequenceState
from mmtpp.model.folders.description import EXPERT_FILE
from tests.helpers.small_experts import SETTINGS as SMALL_SETTINGS
from tests.helpers.small_experts import TICK, alternating_sequences, finish
from tests.unit.expert.meeting import Meeting

NUM_WORDS = 50
QUICK, SLOW = 7, 8  # words that decide the next type
SETTINGS = replace(
    SMALL_SETTINGS,
    num_networks=2,
    width=16,
    num_components=8,
    epochs=12,
    events_per_step=64,
    dropout=0.1,
    memory_dropout=0.0,
    learning_rate=1e-2,
)


def _sequences(number: int, seed: int, num_events: int = 60) -> list[ScoredSequence]:
    """Texts of three tokens, of which one says the next type and how long it takes."""
    rng = np.random.default_rng(seed)
    sequences = []
    for index in range(number):
        types = rng.integers(0, 2, num_events)
        intervals = rng.gamma(20.0, np.where(types == 0, 0.1, 1.0))
        times = np.cumsum(intervals).round(1)
        tokens = rng.integers(10, NUM_WORDS, (num_events, 3))
        tokens[:, 2 * (index % 2)] = np.where(np.append(types[1:], 0) == 0, QUICK, SLOW)
        words = EventWords.from_tokens(
            tokens.reshape(-1).astype(np.int32), np.arange(num_events + 1) * 3, NUM_WORDS
        )
        past = PastEvents.from_sequence(times, types, np.full(num_events, 3), words)
        sequences.append(ScoredSequence(f"{seed}-{index}", past, np.arange(num_events) > 0))
    return sequences


TRAINING, VALIDATION = _sequences(20, 0), _sequences(5, 1)
MEMORY = MemorySettings.fit(
    PastEvents.join(sequence.past for sequence in TRAINING), tick=TICK, seconds_per_unit=1.0
)


def _fit(ranks: Ranks | None = None, *, with_words: bool = True) -> ExpertFit:
    blocks = [
        EventBlocks.from_sequences(
            MEMORY, sequences if with_words else without_words(sequences), tick=TICK
        )
        for sequences in (TRAINING, VALIDATION)
    ]
    return ExpertFit(
        *blocks,
        num_types=2,
        settings=SETTINGS,
        num_words=NUM_WORDS if with_words else 0,
        **({"ranks": ranks} if ranks else {}),
    )


@pytest.fixture(scope="module")
def finished() -> ExpertFit:
    return finish(_fit())


@pytest.fixture(scope="module")
def expert(finished: ExpertFit) -> Expert:
    return Expert(MEMORY, TICK, tuple(finished.networks()))


def test_words_tell_what_follows(finished: ExpertFit):
    without = finish(_fit(with_words=False))
    losses = finished.validation_losses(finished.networks())
    losses_without = without.validation_losses(without.networks())
    assert losses is not None
    assert losses_without is not None
    # without the word, the next type and its interval are a coin
    assert losses.nll < losses_without.nll - 0.9 * np.log(2)


def test_another_word_is_another_forecast(expert: Expert):
    events = NextEvents.from_sequences(MEMORY, VALIDATION, tick=TICK)
    swapped = events.words.clone()
    swapped[events.words == QUICK + 1] = SLOW + 1
    swapped[events.words == SLOW + 1] = QUICK + 1
    likely = [
        ExpertForecasts.after(expert.networks, replace(events.inputs, words=words))
        .type_log_probabilities(events.next_intervals.new_full((len(events),), 6.0))
        .argmax(1)
        for words in (events.words, swapped)
    ]
    assert (likely[0] != likely[1]).float().mean() > 0.9


def test_padding_and_order_do_not_matter(expert: Expert):
    events = NextEvents.from_sequences(MEMORY, VALIDATION, tick=TICK)
    [network, _] = expert.networks
    with torch.inference_mode():
        expected = network.hidden(events.inputs)
        backwards = events.take(np.arange(len(events))[::-1].copy())
        hidden = network.hidden(backwards.inputs)
        short = network.hidden(replace(events.inputs, words=events.words[:, :3]))
    torch.testing.assert_close(hidden.flip(0), expected)
    torch.testing.assert_close(short, expected)


def test_an_empty_text_adds_nothing(expert: Expert):
    [network, _] = expert.networks
    assert not network.word_embedding.weight[NO_WORD].any()
    events = NextEvents.from_sequences(MEMORY, VALIDATION, tick=TICK)
    plain = ExpertNetwork(replace(network.size, num_words=0), network.scale)
    plain.load_state_dict({name: network.state_dict()[name] for name in plain.state_dict()})
    empty = torch.full_like(events.words, NO_WORD)
    with torch.inference_mode():
        hidden = network.hidden(replace(events.inputs, words=empty))
        expected = plain.hidden(replace(events.inputs, words=events.words[:, :0]))
    assert torch.equal(hidden, expected)


def test_networks_and_events_agree_on_words(expert: Expert):
    events = NextEvents.from_sequences(MEMORY, without_words(VALIDATION), tick=TICK)
    assert events.words.shape == (len(events), 0)
    with pytest.raises(ValueError, match="whether words are read"):
        ExpertForecasts.after(expert.networks, events.inputs)


def test_without_words_every_weight_is_the_same():
    fits = [
        ExpertFit(
            *(
                EventBlocks.from_sequences(MEMORY, alternating_sequences(5, seed), tick=TICK)
                for seed in (0, 1)
            ),
            num_types=2,
            settings=replace(SETTINGS, epochs=1),
            **words,
        )
        for words in ({}, {"num_words": 0})
    ]
    first, second = (finish(fit).networks() for fit in fits)
    for network, same in zip(first, second, strict=True):
        assert "word_embedding.weight" not in network.state_dict()
        for name, tensor in network.state_dict().items():
            assert torch.equal(tensor, same.state_dict()[name]), name


def test_a_resumed_training_has_the_same_weights(finished: ExpertFit):
    fit = _fit()
    for _ in range(fit.num_steps + 7):  # into the second network
        fit.run_step()
        if fit.validation_is_due:
            fit.record_validation(fit.validate())
    resumed = _fit()
    resumed.restore(FitProgress.from_record(fit.progress.as_record()), fit.tensors())
    finish(resumed)
    for expected, network in zip(finished.networks(), resumed.networks(), strict=True):
        for name, tensor in expected.state_dict().items():
            assert torch.equal(tensor, network.state_dict()[name]), name


def test_ranks_share_a_batch_and_its_dropout():
    alone = _fit()
    meeting = Meeting(2)
    fits = [_fit(Ranks(rank, 2, meeting.wrap, meeting.total)) for rank in range(2)]

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


def test_a_folder_gives_back_the_words(expert: Expert, tmp_path):
    expert.save(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    loaded = load_expert(str(tmp_path))
    assert loaded.texts == expert.texts
    assert loaded.texts.num_words == NUM_WORDS
    blocks = EventBlocks.from_sequences(MEMORY, VALIDATION, tick=TICK)
    assert mean_losses(loaded.networks, blocks) == mean_losses(expert.networks, blocks)


def test_folders_of_earlier_versions_have_no_words(tmp_path):
    fit = finish(_fit(with_words=False))
    Expert(MEMORY, TICK, tuple(fit.networks())).save(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    settings = json.loads((tmp_path / EXPERT_FILE).read_text())
    del settings["network"]["num_words"]
    (tmp_path / EXPERT_FILE).write_text(json.dumps(settings))
    loaded = load_expert(str(tmp_path))
    assert loaded.texts.num_words == 0
    assert loaded.texts.has_lengths


def test_futures_begin_with_the_words_of_the_last_event(expert: Expert):
    past = VALIDATION[0].past.slice(0, 41)
    assert past.words is not None
    before = past.words.slice(0, 40)
    shares = []
    for word in (QUICK, SLOW):
        last = EventWords(np.array([word, 20, word], dtype=np.int16) + 1, np.array([0, 3]))
        read = replace(past, words=EventWords.join([before, last]))
        [futures] = sample_futures(
            ExpertRollout(expert, [SequenceState.after(expert.memory, read)], 200),
            FutureSettings(200, 1000.0, 3),
            [np.random.default_rng(0)],
        )
        shares.append(futures.types[:, 0].mean())
        assert np.isfinite(futures.intervals).all()
    assert shares[0] < 0.15
    assert shares[1] > 0.85
