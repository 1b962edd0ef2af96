"""Words of a store: read when the expert asks for them, dropped when no training event has any."""

import numpy as np
import pytest

from mmtpp.core.events import EventSequence
from mmtpp.core.past.event_memory import MemorySettings
from mmtpp.core.past.event_words import MAX_WORDS, NO_WORD, TextSettings
from mmtpp.core.past.past_events import PastEvents
from mmtpp.core.representation.compression import Compression
from mmtpp.core.representation.template import TemplateSettings
from mmtpp.data.encode.shard_columns import ShardColumns
from mmtpp.data.encode.text_tokeniser import TextTokeniser
from mmtpp.data.samples.sample_settings import SampleSettings
from mmtpp.data.store.store_settings import StoreSettings
from mmtpp.expert.next_events import NextEvents, ScoredSequence
from mmtpp.expert.read_sequences import (
    SequenceSettings,
    read_sequences,
    read_whole_sequences,
    without_words,
)
from mmtpp.model.tokens.vocabulary import Vocabulary, train_tokenizer

VOCABULARY = Vocabulary(train_tokenizer(["go ahead", "say again"], size=300))
TEXTS = ("go ahead", "", "say again " * 30, "go")


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> SampleSettings:
    folder = tmp_path_factory.mktemp("store")
    sequences = [
        EventSequence(name, np.arange(4.0), np.array([3, 5, 3, 5], np.int16), TEXTS, (None,) * 4)
        for name in ("b", "a")
    ]
    columns, _ = ShardColumns.from_sequences(
        sequences, paths=["b", "a"], splits=["train"] * 2, tokenise=TextTokeniser(VOCABULARY)
    )
    columns.write(str(folder / "sequences" / "000000.parquet"))
    return SampleSettings(
        store=StoreSettings(str(folder), "x", 56, tick=1.0),
        compression=Compression("none"),
        template=TemplateSettings("dense", images="none", image_tokens=4, time_bytes=2),
        max_tokens=120,
        overlap_fraction=0.5,
        time_from=None,
        time_to=None,
        split="train",
        max_sequences=0,
        targets_delta=0.0,
        packed=False,
        seed=0,
    )


def _read(samples: SampleSettings, texts: TextSettings) -> list[ScoredSequence]:
    return read_sequences(SequenceSettings(samples, (3, 5), texts))


def test_words_are_those_of_the_texts(samples: SampleSettings):
    ids = VOCABULARY.encode_texts(list(TEXTS))
    [first, _] = _read(samples, TextSettings(has_lengths=True, num_words=4000))
    assert first.sequence_id == "a"
    assert first.past.text_lengths.tolist() == [len(tokens) for tokens in ids]
    assert first.past.words is not None
    rows = first.past.words.padded(np.arange(4))
    expected = [[token + 1 for token in tokens] for tokens in ids]
    expected[2] = expected[2][: MAX_WORDS // 2] + expected[2][-MAX_WORDS // 2 :]
    assert [[row for row in text if row != NO_WORD] for text in rows.tolist()] == expected


def test_whole_sequences_have_the_same_words(samples: SampleSettings):
    texts = TextSettings(has_lengths=True, num_words=7)
    whole = read_whole_sequences(SequenceSettings(samples, (3, 5), texts))
    for (name, past), scored in zip(whole, _read(samples, texts), strict=True):
        assert name == scored.sequence_id
        assert past.words is not None
        assert scored.past.words is not None
        assert np.array_equal(past.words.rows, scored.past.words.rows)
        assert past.words.rows.max() <= 7


@pytest.mark.parametrize("has_lengths", [True, False])
def test_words_are_not_read_unasked(samples: SampleSettings, has_lengths: bool):
    for sequence in _read(samples, TextSettings(has_lengths)):
        assert sequence.past.words is None
        assert sequence.past.text_lengths.any() == has_lengths


def test_an_event_has_the_words_of_the_event_before(samples: SampleSettings):
    sequences = _read(samples, TextSettings(has_lengths=True, num_words=4000))
    past = PastEvents.join(sequence.past for sequence in sequences)
    memory = MemorySettings.fit(past, tick=1.0, seconds_per_unit=1.0)
    events = NextEvents.from_sequences(memory, sequences, tick=1.0)
    assert past.words is not None
    assert np.array_equal(events.words.numpy(), past.words.padded(np.array([0, 1, 2, 4, 5, 6])))
    plain = NextEvents.from_sequences(memory, without_words(sequences), tick=1.0)
    assert plain.words.shape == (6, 0)
    assert np.array_equal(plain.memory.numpy(), events.memory.numpy())
