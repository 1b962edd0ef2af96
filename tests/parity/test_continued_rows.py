"""Forecasts from kept keys and values equal those of the whole history, event after event."""

import numpy as np
import pytest
import torch

from mmtpp.api.forecaster import Forecaster
from mmtpp.api.language_forecaster import LanguageForecaster
from mmtpp.core.events import EventSequence
from mmtpp.model.cpu_bfloat16 import adapt_to_processor
from mmtpp.model.decoding import continued_rows
from mmtpp.model.decoding.history_cache import HistoryCache
from mmtpp.model.loaded_model import LoadedModel
from mmtpp.model.row_forecaster import RowForecasts
from tests.helpers.live_models import KNOWN, language_forecaster

# Largest difference of a probability of a bin, and of the logarithm of the probability of a type,
# which reaches -39. The largest measured ones are 2.8e-6 and 2.3e-5 (2026-11-30).
MASS, LOG = 2e-5, 2e-4
LARGE = 2**24
TEMPORAL = {"compression.strategy": "temporal", "compression.delta": 0.3}
RUNS = {**TEMPORAL, "compression.run_encoding": "run_length"}


def _sequence(size: int, seed: int = 0, name: str = "s") -> EventSequence:
    rng = np.random.default_rng(seed)
    texts = rng.choice(["", "UA1545 to IAH", "AA1141 to MIA, 757-223"], size).tolist()
    return EventSequence(
        name,
        np.cumsum(rng.choice([0.0, 0.5, 2.0, 2.25, 17.0], size)),
        rng.choice(np.array(KNOWN, dtype=np.int16), size),
        tuple(texts),
        (None,) * size,
    )


def _first(sequence: EventSequence, size: int) -> EventSequence:
    return EventSequence(
        sequence.sequence_id,
        sequence.times[:size],
        sequence.types[:size],
        sequence.texts[:size],
        sequence.images[:size],
    )


def _compare(found: RowForecasts, language: LanguageForecaster, sequence: EventSequence) -> None:
    """Compare with the forecasts of the whole row, without the cache."""
    seen = language.read(sequence)
    right = language.whole_row(seen)
    assert found.time is not None
    assert right.time is not None
    assert found.type is not None
    assert right.type is not None
    for name in ("mass", "zero", "outside"):
        expected = getattr(right.time.interval, name)
        np.testing.assert_allclose(getattr(found.time.interval, name), expected, rtol=0, atol=MASS)
    np.testing.assert_allclose(
        found.type.log_probability, right.type.log_probability, rtol=0, atol=LOG
    )
    assert found.time.event.tolist() == right.time.event.tolist()


@pytest.mark.parametrize(
    "values",
    [
        {"template.style": "paper"},
        {"template.style": "compact"},
        {"template.style": "minimal"},
        {"template.style": "dense", "template.time_bytes": 2},
        {"template.style": "paper", **TEMPORAL},
        TEMPORAL,
        {"compression.strategy": "random_drop"},
        {"template.calendar": "minute"},
        {"template.types": "words"},
        {"template.max_text_tokens": 3},
    ],
    ids=str,
)
def test_every_token_of_a_growing_history_passes_the_model_once(values: dict[str, object]):
    language = language_forecaster(values).language_forecaster(max_cache_bytes=LARGE)
    cache, sequence = language.cache, _sequence(40)
    for size in range(1, 41):
        part = _first(sequence, size)
        _compare(language.forecast_rows([language.read(part)])["s"], language, part)
    assert cache.tokens_computed == len(language.read(sequence).row.history_ids)
    assert (cache.num_computed, cache.num_cut, cache.num_uncached) == (1, 0, 0)


def test_a_rewritten_run_is_cut_back_to_the_last_equal_token():
    """The count and the span of a run change with its last event."""
    language = language_forecaster(RUNS).language_forecaster(max_cache_bytes=LARGE)
    cache, sequence = language.cache, _sequence(40)
    for size in range(1, 41):
        part = _first(sequence, size)
        _compare(language.forecast_rows([language.read(part)])["s"], language, part)
    assert cache.num_computed == 1
    assert 0 < cache.num_cut < 20
    history = len(language.read(sequence).row.history_ids)
    assert history < cache.tokens_computed < 2 * history


@pytest.mark.parametrize(("style", "max_tokens"), [("paper", 350), ("compact", 200)])
def test_a_window_that_slides_is_read_again(style: str, max_tokens: int):
    values = {"template.style": style, "window.max_tokens": max_tokens}
    language = language_forecaster(values).language_forecaster(max_cache_bytes=LARGE)
    cache, sequence = language.cache, _sequence(30)
    slid = 0
    for size in range(1, 31):
        part = _first(sequence, size)
        seen = language.read(part)
        slid += len(seen.times) < size
        _compare(language.forecast_rows([seen])["s"], language, part)
    assert slid > 5
    assert 0 < cache.num_cut <= slid


def test_older_events_are_not_kept():
    """The vector of an older event holds what its token id does not say."""
    values = {"compression.strategy": "recent_full", "window.max_tokens": 200}
    language = language_forecaster(values).language_forecaster(max_cache_bytes=LARGE)
    cache, sequence = language.cache, _sequence(30)
    num_older = 0
    for size in range(1, 31):
        part = _first(sequence, size)
        seen = language.read(part)
        num_older += bool(seen.row.older)
        _compare(language.forecast_rows([seen])["s"], language, part)
    assert num_older > 5
    assert cache.num_uncached == num_older


def test_sequences_of_different_lengths_pass_together(monkeypatch: pytest.MonkeyPatch):
    """Also in several passes, and where a history is longer than a pass."""
    language = language_forecaster(TEMPORAL).language_forecaster()
    sequences = [_sequence(size, seed=size, name=f"s{size}") for size in (1, 60, 7, 8, 33)]
    for pass_tokens in (10_000, 130):
        monkeypatch.setattr(continued_rows, "PASS_TOKENS", pass_tokens)
        cache = language.cache = HistoryCache(LARGE)
        for missing in (5, 0):  # first without the newest events
            parts = [_first(sequence, max(1, len(sequence) - missing)) for sequence in sequences]
            found = language.forecast_rows([language.read(part) for part in parts])
            for part in parts:
                _compare(found[part.sequence_id], language, part)
        assert len(cache) == 5
        assert cache.num_computed == 5
        assert cache.tokens_kept > 500


def test_histories_that_were_dropped_are_computed_again():
    language = language_forecaster().language_forecaster()
    sequences = [_sequence(12, seed=seed, name=f"s{seed}") for seed in range(3)]
    whole = language.cache = HistoryCache(LARGE)
    language.forecast_rows([language.read(sequence) for sequence in sequences])
    room = 2 * whole.num_bytes // 3
    cache = language.cache = HistoryCache(room)
    for turn in range(2):
        for sequence in sequences:
            part = _first(sequence, 11 + turn)
            _compare(
                language.forecast_rows([language.read(part)])[part.sequence_id], language, part
            )
            assert cache.num_bytes <= room
    assert len(cache) == 2
    assert (cache.num_computed, cache.num_dropped) == (6, 4)
    nothing = language.cache = HistoryCache(0)
    part = sequences[0]
    for _ in range(2):
        _compare(language.forecast_rows([language.read(part)])["s0"], language, part)
    assert (len(nothing), nothing.num_bytes, nothing.num_computed) == (0, 0, 2)


def test_another_history_of_the_same_name_has_its_own_forecast():
    """A sequence that was removed and begins again shares at most its first tokens."""
    language = language_forecaster().language_forecaster(max_cache_bytes=LARGE)
    cache = language.cache
    for seed in (0, 1):
        sequence = _sequence(15, seed=seed)
        _compare(language.forecast_rows([language.read(sequence)])["s"], language, sequence)
    assert cache.num_cut == 1
    cache.remove("s")
    cache.remove("unknown")
    assert (len(cache), cache.num_bytes) == (0, 0)


def test_a_model_in_bfloat16(monkeypatch: pytest.MonkeyPatch):
    """Keys and values are kept in the type of the attention, float32 on a CPU."""
    forecaster: Forecaster = language_forecaster()
    loaded = forecaster.model
    assert isinstance(loaded, LoadedModel)
    loaded.model.to(torch.bfloat16)
    adapt_to_processor(torch.device("cpu"), torch.bfloat16)
    # a step of bfloat16 in a logit of 16 to 32 is 0.125; measured: no difference (2026-11-30)
    monkeypatch.setattr(f"{__name__}.MASS", 0.1)
    monkeypatch.setattr(f"{__name__}.LOG", 0.25)
    language = forecaster.language_forecaster(max_cache_bytes=LARGE)
    cache, sequence = language.cache, _sequence(12)
    for size in range(1, 13):
        part = _first(sequence, size)
        _compare(language.forecast_rows([language.read(part)])["s"], language, part)
    assert cache.num_computed == 1
