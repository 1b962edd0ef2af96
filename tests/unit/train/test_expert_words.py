"""A training reads words where the training events have texts, and only there."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mmtpp.core.past.event_words import EventWords, TextSettings
from mmtpp.core.past.past_events import PastEvents
from mmtpp.expert.fit import ExpertFit
from mmtpp.expert.network_losses import Ranks
from mmtpp.expert.next_events import ScoredSequence
from mmtpp.train import build_expert_fit
from tests.helpers.small_experts import SETTINGS

NUM_WORDS = 9


def _sequences(num_words: int, lengths: np.ndarray) -> list[ScoredSequence]:
    """One sequence whose texts have some lengths, read with or without words."""
    times = np.cumsum(np.random.default_rng(0).integers(1, 9, len(lengths))).astype(float)
    offsets = np.append(0, np.cumsum(lengths))
    ids = np.arange(offsets[-1], dtype=np.int32)
    words = EventWords.from_tokens(ids, offsets, num_words) if num_words else None
    past = PastEvents.from_sequence(times, np.arange(len(times)) % 2, lengths, words)
    return [ScoredSequence("a", past, np.arange(len(times)) > 0)]


def _train(monkeypatch: pytest.MonkeyPatch, lengths: np.ndarray, num_words: int) -> ExpertFit:
    """A few updates of a training that reads its sequences from a stand-in of the store."""
    monkeypatch.setattr(
        build_expert_fit,
        "read_sequences",
        lambda settings: _sequences(settings.texts.num_words, lengths),
    )
    sequences = SimpleNamespace(
        sample_settings=SimpleNamespace(store=SimpleNamespace(data_uri="/store")),
        type_codes=(0, 1),
        texts=TextSettings(has_lengths=True, num_words=num_words),
    )
    inputs: Any = SimpleNamespace(
        train_sequence_settings=sequences,
        validation_sequence_settings=sequences,
        tick=1.0,
        trained_tasks=SimpleNamespace(seconds_per_unit=1.0),
        time_zone="UTC",
        calendar=False,
        continued=None,
        fit_settings=replace(
            SETTINGS, num_networks=1, width=8, num_components=4, events_per_step=10
        ),
    )
    fit = build_expert_fit.build_fit(inputs, Ranks())
    for _ in range(5):
        fit.run_step()
    return fit


def test_without_texts_the_training_is_the_same(monkeypatch: pytest.MonkeyPatch):
    empty = np.zeros(50, dtype=np.int64)
    asked, unasked = (_train(monkeypatch, empty, number).tensors() for number in (NUM_WORDS, 0))
    assert asked.keys() == unasked.keys()
    for name, tensor in asked.items():
        assert torch.equal(tensor, unasked[name]), name


def test_with_texts_the_network_reads_words(monkeypatch: pytest.MonkeyPatch):
    lengths = np.arange(50) % 4
    fit = _train(monkeypatch, lengths, NUM_WORDS)
    assert fit.tensors()["network.word_embedding.weight"].shape[0] == NUM_WORDS + 1
    plain = _train(monkeypatch, lengths, 0)
    assert "network.word_embedding.weight" not in plain.tensors()
