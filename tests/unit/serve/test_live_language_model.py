"""Live sequences with a language model: batches, kept keys and values, futures and texts."""

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from mmtpp.core.errors import MmtppError
from mmtpp.model.decoding.continued_rows import PASS_TOKENS
from mmtpp.predict.forecast_result import Forecast
from mmtpp.serve.build_live_model import build_live_model
from mmtpp.serve.event_log import IN_MEMORY, EventLog
from mmtpp.serve.forecast_json import forecasts_to_json
from mmtpp.serve.live_model import ForecastRequest
from mmtpp.serve.live_sequences import AppendRequest, LiveSequences
from tests.helpers.live_models import KNOWN, TYPES, language_forecaster

LEVELS = (0.05, 0.5, 0.95)
TASKS = ("time", "type", "text")


def _events(name: str, size: int, *, start: int = 0) -> list[dict[str, object]]:
    return [
        {
            "sequence": name,
            "time": 2.5 * place,
            "type": TYPES[KNOWN[place % len(KNOWN)]],
            "text": f"UA{place} to IAH",
        }
        for place in range(start, start + size)
    ]


def _live(*, max_cache_bytes: int = 2**24, seed: int = 0, **values: object) -> LiveSequences:
    forecaster = language_forecaster(values, seed=seed, tasks=TASKS)
    model = build_live_model(forecaster, max_sequences=1, max_cache_bytes=max_cache_bytes)
    return LiveSequences(EventLog(IN_MEMORY), model, max_text=100)


def _check(live: LiveSequences, requests: list[ForecastRequest]) -> None:
    """Compare the answers with those of the whole sequences, one after the other."""
    forecaster = live.model.forecaster
    for request, answer in zip(requests, live.forecast(requests), strict=True):
        assert isinstance(answer, Forecast), answer
        expected = forecaster.forecast(
            live.log.read(request.sequence_id),
            futures=request.futures,
            horizon=request.horizon,
            text=request.text,
            seed=request.seed,
        )
        found, right = forecasts_to_json([answer, expected], quantiles=LEVELS)
        assert found.keys() == right.keys()
        for key, value in right.items():
            assert found[key] == (
                pytest.approx(value, rel=1e-4, abs=1e-6)
                if isinstance(value, float | dict)
                else value
            )


@pytest.fixture(scope="module")
def live() -> Iterator[LiveSequences]:
    return _live()


def test_requests_are_forecast_together(live: LiveSequences):
    """Several requests may ask for the same sequence."""
    for turn in range(3):
        for name, size in (("a", 3), ("b", 17), ("c", 1)):
            live.append([AppendRequest(_events(name, size, start=turn * size))])
        _check(live, [ForecastRequest(name) for name in "abca"])
    counts = live.model.counts()
    assert counts["histories"] == counts["histories_computed"] == 3
    assert counts["history_tokens_kept"] > 500
    assert 0 < counts["history_bytes"] <= 2**24


def test_futures_and_texts_continue_the_kept_history(live: LiveSequences):
    live.append([AppendRequest(_events("decoded", 12))])
    _check(live, [ForecastRequest("decoded")])
    before = live.model.counts()
    wishes = {"futures": 3, "horizon": 60.0, "text": True, "seed": 3}
    passed: list[int] = []
    model: Any = live.model
    layers = model._language._loaded.model.language_model

    def count(module: object, arguments: tuple, named: dict) -> None:
        del module, arguments
        tokens = named.get("inputs_embeds", named.get("input_ids"))
        passed.append(int(tokens.shape[1]))

    hook = layers.register_forward_pre_hook(count, with_kwargs=True)
    live.forecast([ForecastRequest("decoded", **wishes)])
    hook.remove()
    num_history = len(model._language.cache.get("decoded"))
    assert len(passed) > 3
    assert max(passed) < num_history / 2  # questions and sampled events alone
    _check(live, [ForecastRequest("decoded", **wishes)])
    after = live.model.counts()
    assert after["history_tokens_computed"] == before["history_tokens_computed"]
    live.append([AppendRequest(_events("decoded", 2, start=12))])
    _check(live, [ForecastRequest("decoded", **wishes), ForecastRequest("decoded", futures=1)])


def test_a_request_that_decodes_is_a_batch_of_its_own(live: LiveSequences):
    plain, decoded = ForecastRequest("a"), ForecastRequest("a", futures=2)
    size = live.model.batch_size
    assert size([plain] * 40) == live.model.max_batch == 16
    assert size([plain] * 3) == 3
    assert size([plain, plain, decoded, plain]) == 2
    assert size([decoded, plain]) == size([ForecastRequest("a", text=True)] * 2) == 1


def test_a_request_that_cannot_be_answered_does_not_fail_others():
    forecaster = language_forecaster()  # writes no texts
    model = build_live_model(forecaster, max_sequences=1)
    live = LiveSequences(EventLog(IN_MEMORY), model, max_text=100)
    live.append([AppendRequest(_events("s", 2))])
    unknown, text, plain = live.forecast(
        [ForecastRequest("unknown"), ForecastRequest("s", text=True), ForecastRequest("s")]
    )
    assert unknown is None
    assert isinstance(text, MmtppError)
    assert "tasks.text" in str(text)
    assert isinstance(plain, Forecast)


def test_a_removed_sequence_is_forgotten(live: LiveSequences):
    live.append([AppendRequest(_events("removed", 5))])
    _check(live, [ForecastRequest("removed")])
    kept = live.model.counts()["histories"]
    assert live.remove("removed") == 5
    assert live.model.counts()["histories"] == kept - 1
    live.append([AppendRequest(_events("removed", 4, start=7))])
    _check(live, [ForecastRequest("removed")])


def test_another_model_has_no_keys_of_the_one_before(live: LiveSequences):
    live.append([AppendRequest(_events("kept", 5))])
    _check(live, [ForecastRequest("kept")])
    before = live.model
    other = build_live_model(language_forecaster(seed=7, tasks=TASKS), max_sequences=1)
    live.replace_model(other)
    assert other.counts()["histories"] == 0
    _check(live, [ForecastRequest("kept")])
    live.replace_model(before)


def test_a_small_cache_drops_the_history_that_was_not_used_for_longest():
    live = _live(max_cache_bytes=400_000)
    names = [f"s{index}" for index in range(4)]
    for turn in range(2):
        for name in names:
            live.append([AppendRequest(_events(name, 4, start=4 * turn))])
            _check(live, [ForecastRequest(name)])
    counts = live.model.counts()
    assert counts["history_bytes"] <= 400_000
    assert counts["histories"] < 4
    assert counts["histories_dropped"] == counts["histories_computed"] - counts["histories"]
    assert counts["histories_dropped"] > 2


def test_histories_that_are_read_together_fit_one_pass():
    """Their keys and values are beyond the limit of the cache until the pass ends."""
    live = _live(max_cache_bytes=0)
    names = [f"s{index}" for index in range(6)]
    for name in names:
        live.append([AppendRequest(_events(name, 25))])
    model: Any = live.model
    language, sizes = model._language, []
    forecast_rows = language._continue

    def counted(rows: Any, keys: Any) -> Any:
        sizes.append(
            [len(row.input_ids) - len(known) for row, known in zip(rows, keys, strict=True)]
        )
        return forecast_rows(rows, keys)

    language._continue = counted
    live.forecast([ForecastRequest(name) for name in names])
    assert sum(map(len, sizes)) == len(names)
    assert len(sizes) > 1
    assert all(sum(of_pass) <= PASS_TOKENS or len(of_pass) == 1 for of_pass in sizes)
    assert live.model.counts()["histories"] == 0


def test_a_replaced_model_is_freed_at_once():
    live = _live()
    live.append([AppendRequest(_events("s", 3))])
    live.forecast([ForecastRequest("s", futures=1)])
    model: Any = live.model
    language = weakref.ref(model._language)
    gc.disable()  # a cycle would keep the weights until the next collection
    try:
        live.replace_model(build_live_model(language_forecaster(tasks=TASKS), max_sequences=1))
        del model
        assert language() is None
    finally:
        gc.enable()
