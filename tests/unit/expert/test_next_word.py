"""The first word of the next text: networks with images learn it, and only they."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mmtpp.core.past.event_images import IMAGE_VALUES, EventImages
from mmtpp.core.past.event_memory import MemorySettings
from mmtpp.core.past.event_words import NO_WORD, UNKNOWN_WORD, EventWords
from mmtpp.core.past.past_events import PastEvents
from mmtpp.core.point_processes.next_event_draws import NextEventDraws
from mmtpp.expert.expert_folder import Expert, load_expert
from mmtpp.expert.fit import ExpertFit
from mmtpp.expert.hawkes_targets import HawkesTargets
from mmtpp.expert.network import ExpertNetwork
from mmtpp.expert.next_events import EventBlocks, NextEvents, ScoredSequence
from mmtpp.expert.read_sequences import without_images
from mmtpp.model.folders.description import EXPERT_FILE
from tests.helpers.small_experts import SETTINGS as SMALL_SETTINGS
from tests.helpers.small_experts import TICK, finish

NUM_WORDS = 4
PIXELS = np.repeat(np.array([[40], [220]], dtype=np.uint8), IMAGE_VALUES, axis=1)
SETTINGS = replace(SMALL_SETTINGS, num_networks=1, epochs=12, dropout=0.1, learning_rate=1e-2)


def _sequences(number: int, seed: int, num_events: int = 60) -> list[ScoredSequence]:
    """Images that say the first word of the next text, 1 or 2, and nothing else.

    The second word is 3 or 4. One event in ten has no text.
    """
    rng = np.random.default_rng(seed)
    sequences = []
    for place in range(number):
        shown = rng.integers(0, 2, num_events)
        texts = [[1 + before, rng.integers(3, 5)] for before in np.append(0, shown[:-1])]
        texts[::10] = [[] for _ in texts[::10]]
        past = PastEvents.from_sequence(
            np.cumsum(rng.gamma(20.0, 0.1, num_events)).round(1),
            rng.integers(0, 2, num_events),
            np.array([len(text) for text in texts]),
        )
        words = EventWords.from_tokens(
            np.concatenate([np.array(text, dtype=np.int64) for text in texts]) - 1,
            np.cumsum([0, *map(len, texts)]),
            NUM_WORDS,
        )
        images = EventImages.from_sequence(PIXELS, shown.astype(np.int32))
        past = replace(past, words=words, images=images)
        sequences.append(ScoredSequence(f"{seed}-{place}", past, np.arange(num_events) > 0))
    return sequences


TRAINING = _sequences(20, 0)
MEMORY = MemorySettings.fit(
    PastEvents.join(sequence.past for sequence in TRAINING), tick=TICK, seconds_per_unit=1.0
)


def _blocks(sequences: list[ScoredSequence]) -> EventBlocks:
    return EventBlocks.from_sequences(MEMORY, sequences, tick=TICK)


@pytest.fixture(scope="module")
def fit() -> ExpertFit:
    return finish(
        ExpertFit(
            _blocks(TRAINING),
            _blocks(_sequences(5, 1)),
            num_types=2,
            settings=SETTINGS,
            num_words=NUM_WORDS,
            reads_images=True,
        )
    )


def _word_nll(fit: ExpertFit, events: NextEvents) -> torch.Tensor:
    [network] = fit.networks()
    with torch.inference_mode():
        *_, word_nll = network(
            events.memory,
            events.types,
            events.words,
            events.next_intervals,
            events.next_types,
            events.images,
            next_words=events.next_words,
        )
    return word_nll


def test_the_next_word_is_the_first_one_of_the_scored_event():
    [sequence] = _sequences(1, 2)
    events = NextEvents.from_sequences(MEMORY, [sequence], tick=TICK)
    assert sequence.past.words is not None
    first = sequence.past.words.padded(np.arange(1, 60))[:, 0]
    assert events.next_words.tolist() == first.tolist()
    assert set(first.tolist()) == {NO_WORD, 1, 2}
    assert events.take(np.array([3, 1])).next_words.tolist() == first[[3, 1]].tolist()
    unknown = NextEvents.from_sequences(MEMORY, without_images([sequence]), tick=TICK).next_words
    assert unknown.tolist() == [UNKNOWN_WORD] * 59


def test_a_network_with_images_learns_the_next_word(fit: ExpertFit):
    events = NextEvents.from_sequences(MEMORY, _sequences(5, 3), tick=TICK)
    has_text = events.next_words != NO_WORD
    # the words alone are a coin
    assert _word_nll(fit, events)[has_text].mean() < 0.5 * np.log(2)


def test_an_event_without_text_does_not_depend_on_the_others_of_its_batch(fit: ExpertFit):
    [network] = fit.networks()
    assert not network.word_embedding.weight[NO_WORD].any()
    events = NextEvents.from_sequences(MEMORY, _sequences(1, 5), tick=TICK)
    alone = events.take(np.flatnonzero(events.words[:, 0].numpy() == NO_WORD))
    assert len(alone) > 3
    with torch.inference_mode():
        expected = network.hidden(alone.memory, alone.types, alone.words, alone.images)
        hidden = network.hidden(events.memory, events.types, events.words, events.images)
    torch.testing.assert_close(hidden[events.words[:, 0] == NO_WORD], expected)


def test_experts_of_earlier_versions_have_no_such_head(fit: ExpertFit, tmp_path: Path):
    [network] = fit.networks()
    old = ExpertNetwork(replace(network.size, predicts_word=False), network.scale)
    old.load_state_dict({name: network.state_dict()[name] for name in old.state_dict()})
    Expert(MEMORY, TICK, (old.eval(),), image_px=56).save(tmp_path)
    settings = json.loads((tmp_path / EXPERT_FILE).read_text())
    del settings["network"]["predicts_word"]
    (tmp_path / EXPERT_FILE).write_text(json.dumps(settings))
    [loaded] = load_expert(str(tmp_path)).networks
    events = NextEvents.from_sequences(MEMORY, _sequences(1, 6), tick=TICK)
    with torch.inference_mode():
        expected = network.hidden(events.memory, events.types, events.words, events.images)
        hidden = loaded.hidden(events.memory, events.types, events.words, events.images)
    torch.testing.assert_close(hidden, expected)


def test_the_loss_is_that_of_a_softmax_over_the_table_of_words(fit: ExpertFit):
    events = NextEvents.from_sequences(MEMORY, _sequences(1, 4), tick=TICK)
    [network] = fit.networks()
    with torch.inference_mode():
        hidden = network.hidden(events.memory, events.types, events.words, events.images)
        asked = network.next_word(hidden).double().numpy()
        table = network.word_embedding.weight.double().numpy()
        logits = asked @ table.T + network.next_word_bias.double().numpy()
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = -np.log(chances[np.arange(len(events)), events.next_words])
    assert np.allclose(_word_nll(fit, events), expected, atol=1e-5)
    unknown = torch.full_like(events.next_words, UNKNOWN_WORD)
    assert not _word_nll(fit, replace(events, next_words=unknown)).any()


def test_the_text_after_a_drawn_event_is_unknown():
    blocks = _blocks(TRAINING)
    drawn = HawkesTargets.fit(blocks, num_types=2, fraction=0.5)
    events, draws = blocks.load(0), drawn.draws(0)
    assert isinstance(draws, NextEventDraws)
    index = np.arange(len(events))
    replaced = drawn.replace(events, index, draws, 0.5, np.random.default_rng(0))
    is_unknown = replaced.next_words == UNKNOWN_WORD
    assert 0.4 < is_unknown.float().mean() < 0.6
    assert torch.equal(replaced.next_words[~is_unknown], events.next_words[~is_unknown])
    assert torch.equal(replaced.next_types[~is_unknown], events.next_types[~is_unknown])
