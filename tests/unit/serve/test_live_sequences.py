"""Live sequences: the same forecasts as for whole sequences, and an outcome for every event."""

import gc
import weakref
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from mmtpp.api.forecaster import Forecaster
from mmtpp.core.errors import ConfigError, ModelError, StorageError
from mmtpp.predict.forecast_result import Forecast
from mmtpp.serve.build_live_model import build_live_model
from mmtpp.serve.event_log import IN_MEMORY, EventLog
from mmtpp.serve.live_events import RejectedEvent
from mmtpp.serve.live_model import ForecastRequest
from mmtpp.serve.live_sequences import Accepted, AppendRequest, LiveSequences, outcome_name
from tests.helpers.live_models import KNOWN, TYPES, expert_forecaster

LEVELS = (0.05, 0.5, 0.95)


@pytest.fixture(scope="module")
def forecaster() -> Forecaster:
    return expert_forecaster()


def _live(forecaster: Forecaster, *, max_sequences: int = 100, path: str = IN_MEMORY):
    return LiveSequences(
        EventLog(path), build_live_model(forecaster, max_sequences=max_sequences), max_text=100
    )


@pytest.fixture
def live(forecaster: Forecaster) -> LiveSequences:
    return _live(forecaster)


def _events(name: str, number: int, seed: int) -> list[dict]:
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.choice([0.0, 0.5, 3.0], number))
    texts = rng.choice(["", "UA1545 to IAH", "AA1141 to MIA"], number)
    return [
        {"sequence": name, "time": float(time), "type": TYPES[code], "text": str(text)}
        for time, code, text in zip(times, rng.choice(KNOWN, number), texts, strict=True)
    ]


def _check_same(forecast: object, expected: Forecast) -> None:
    assert isinstance(forecast, Forecast)
    np.testing.assert_allclose(forecast.quantiles(LEVELS), expected.quantiles(LEVELS), rtol=1e-4)
    assert forecast.mean == pytest.approx(expected.mean, rel=1e-4)
    assert forecast.type_probabilities == pytest.approx(expected.type_probabilities, abs=1e-5)
    assert (forecast.events, forecast.last_time) == (expected.events, expected.last_time)
    assert forecast.last_type == expected.last_type


def _expected(forecaster: Forecaster, events: list[dict], **options) -> Forecast:
    columns = {name: [event[name] for event in events] for name in ("time", "type", "text")}
    sequence = forecaster.sequence(
        columns["time"], columns["type"], texts=columns["text"], sequence_id=events[0]["sequence"]
    )
    return forecaster.forecast(sequence, **options)


@pytest.mark.parametrize("max_sequences", [100, 2])
def test_forecasts_equal_those_of_whole_sequences(forecaster: Forecaster, max_sequences: int):
    """Also where the states of most sequences are dropped and computed again."""
    live = _live(forecaster, max_sequences=max_sequences)
    events = {f"s{index}": _events(f"s{index}", 20, index) for index in range(6)}
    for step in range(0, 20, 2):
        for index in (step, step + 1):
            requests = [AppendRequest([of_sequence[index]]) for of_sequence in events.values()]
            assert all(isinstance(outcome, Accepted) for [outcome] in live.append(requests))
        answers = live.forecast([ForecastRequest(name) for name in events])
        for answer, of_sequence in zip(answers, events.values(), strict=True):
            _check_same(answer, _expected(forecaster, of_sequence[: step + 2]))
    counts = live.model.counts()
    assert (counts["states_computed"] > 0) == (max_sequences == 2)
    assert counts["states"] == min(max_sequences, 6)


def test_events_of_one_request_equal_single_ones(forecaster: Forecaster, live: LiveSequences):
    events = _events("s", 30, 3)
    [outcomes] = live.append([AppendRequest(events)])
    assert [outcome.position for outcome in outcomes if isinstance(outcome, Accepted)] == [
        *range(30)
    ]
    [answer] = live.forecast([ForecastRequest("s", futures=3, horizon=9.0, seed=5)])
    expected = _expected(forecaster, events, futures=3, horizon=9.0, seed=5)
    _check_same(answer, expected)
    assert isinstance(answer, Forecast)
    assert answer.futures == expected.futures


def test_an_expert_with_images_reads_events_without(live: LiveSequences):
    forecaster = expert_forecaster(images=True)
    live, events = _live(forecaster), _events("s", 5, 0)
    live.append([AppendRequest(events)])
    _check_same(live.forecast([ForecastRequest("s")])[0], _expected(forecaster, events))


def test_the_log_is_continued(forecaster: Forecaster, tmp_path):
    path, events = str(tmp_path / "log.sqlite"), _events("s", 12, 1)
    first = _live(forecaster, path=path)
    first.append([AppendRequest(events[:7])])
    first.log.close()
    second = _live(forecaster, path=path)
    second.append([AppendRequest(events[7:], after=7, all_or_none=True)])
    _check_same(second.forecast([ForecastRequest("s")])[0], _expected(forecaster, events))


def _cause(outcome: object) -> str:
    assert isinstance(outcome, RejectedEvent)
    return outcome.cause


def test_every_event_of_a_mixed_request_has_its_own_outcome(live: LiveSequences):
    late, early = {"sequence": "a", "time": 5, "type": 0}, {"sequence": "a", "time": 4, "type": 0}
    raw = [late, early, {"sequence": "b", "time": 1, "type": 1}, 7, late]
    [outcomes] = live.append([AppendRequest(raw)])
    assert outcomes[0] == Accepted("a", 0)
    assert _cause(outcomes[1]) == "out_of_order"
    assert "time is 4.0, before that of the last event, 5.0" in outcomes[1].message  # pyright: ignore[reportAttributeAccessIssue]
    assert outcomes[2] == Accepted("b", 0)
    assert _cause(outcomes[3]) == "not_an_object"
    assert outcomes[4] == Accepted("a", 1)  # without a key, an equal event is another one
    assert Counter(map(outcome_name, outcomes)) == {
        "accepted": 3,
        "rejected/out_of_order": 1,
        "rejected/not_an_object": 1,
    }


def test_all_or_none(live: LiveSequences):
    good = {"sequence": "a", "time": 5, "type": 0, "key": "k"}
    bad = {"sequence": "a", "time": 4, "type": 0}
    both = live.append(
        [
            AppendRequest([good, bad], all_or_none=True),
            AppendRequest([{**good, "time": 3}], all_or_none=True),  # the same key is free again
        ]
    )
    assert [_cause(outcome) for outcome in both[0]] == ["rejected_with_others", "out_of_order"]
    assert both[1] == [Accepted("a", 0)]
    assert live.log.read("a").times.tolist() == [3.0]


def test_a_refused_request_between_others_leaves_their_events(live: LiveSequences):
    """All in one write: events of the same sequence before it, and one after it."""
    first, good, bad, last = (
        {"sequence": "a", "time": time, "type": 0, "key": key}
        for time, key in ((1, "k"), (7, "l"), (0, "m"), (2, "l"))
    )
    outcomes = live.append(
        [
            AppendRequest([first]),
            AppendRequest([good, bad], all_or_none=True),
            AppendRequest([last]),
        ]
    )
    assert outcomes[0] == [Accepted("a", 0)]
    assert [outcome_name(outcome) for outcome in outcomes[1]] == [
        "rejected/rejected_with_others",
        "rejected/out_of_order",
    ]
    assert outcomes[2] == [Accepted("a", 1)]
    assert live.log.read("a").times.tolist() == [1.0, 2.0]


def test_a_request_that_is_sent_again_adds_nothing(live: LiveSequences):
    events = [{"sequence": "a", "time": time, "type": 0} for time in (1, 2)]
    again = [AppendRequest(events, after=0, all_or_none=True)] * 2
    first, second = live.append(again)
    assert first == [Accepted("a", 0), Accepted("a", 1)]
    assert [_cause(outcome) for outcome in second] == ["wrong_position", "rejected_with_others"]
    assert second[0].num_events == 2  # pyright: ignore[reportAttributeAccessIssue]
    [gap] = live.append([AppendRequest(events[1:], after=3, all_or_none=True)])
    assert _cause(gap[0]) == "wrong_position"
    assert len(live.log.read("a")) == 2


def test_keys_recognise_repeated_events(live: LiveSequences):
    event = {"sequence": "a", "time": 1, "type": 0, "key": "k"}
    [outcomes] = live.append([AppendRequest([event, event])])
    assert outcomes == [Accepted("a", 0), Accepted("a", None)]
    [[late]] = live.append([AppendRequest([{"sequence": "a", "time": 2, "type": 0}])])
    assert late == Accepted("a", 1)
    [outcomes] = live.append([AppendRequest([event, {**event, "time": 3}])])
    assert outcomes[0] == Accepted("a", None)
    assert _cause(outcomes[1]) == "key_in_use"
    [[other]] = live.append([AppendRequest([{**event, "sequence": "b"}])])
    assert other == Accepted("b", 0)
    assert len(live.log.read("a")) == 2


@pytest.mark.parametrize(
    ("part", "method", "num_events"),
    [
        pytest.param("log", "append", 3, id="the write fails: nothing changes"),
        pytest.param("model", "advance", 4, id="what follows fails: no old state is used"),
    ],
)
def test_an_error_leaves_the_forecasts_right(
    live: LiveSequences,
    forecaster: Forecaster,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    method: str,
    num_events: int,
):
    events = _events("s", 5, 0)
    live.append([AppendRequest(events[:3])])

    def fail(_) -> None:
        raise StorageError("full")

    with monkeypatch.context() as patch:
        patch.setattr(getattr(live, part), method, fail)
        with pytest.raises(StorageError, match="full"):
            live.append([AppendRequest(events[3:4])])
    _check_same(
        live.forecast([ForecastRequest("s")])[0], _expected(forecaster, events[:num_events])
    )
    live.append([AppendRequest(events[num_events:])])
    _check_same(live.forecast([ForecastRequest("s")])[0], _expected(forecaster, events))


def test_requests_without_an_answer(live: LiveSequences):
    live.append([AppendRequest(_events("s", 2, 0))])
    unknown, text, known = live.forecast(
        [ForecastRequest("t"), ForecastRequest("s", text=True), ForecastRequest("s")]
    )
    assert unknown is None
    assert isinstance(text, ConfigError)
    assert isinstance(known, Forecast)


def test_a_removed_sequence_begins_anew(live: LiveSequences, forecaster: Forecaster):
    events = _events("s", 6, 0)
    live.append([AppendRequest(events)])
    assert live.remove("s") == 6
    assert live.forecast([ForecastRequest("s")]) == [None]
    live.append([AppendRequest(events[:2])])
    _check_same(live.forecast([ForecastRequest("s")])[0], _expected(forecaster, events[:2]))


def test_another_model_forecasts_the_same_events(live: LiveSequences):
    events, other = _events("s", 9, 0), expert_forecaster(seed=1)
    live.append([AppendRequest(events[:8])])
    before = live.forecast([ForecastRequest("s")])[0]
    live.replace_model(build_live_model(other, max_sequences=10))
    live.append([AppendRequest(events[8:])])
    after = live.forecast([ForecastRequest("s")])[0]
    _check_same(after, _expected(other, events))
    assert isinstance(before, Forecast)
    assert isinstance(after, Forecast)
    assert abs(after.mean - before.mean) > 1e-3


def test_a_model_that_does_not_know_a_type_of_the_log_is_refused(live: LiveSequences):
    """The present model stays."""
    events = _events("s", 9, 0)
    live.append([AppendRequest(events)])
    other = expert_forecaster(seed=1)
    fewer = replace(other, trained_tasks=replace(other.trained_tasks, type_codes=KNOWN[:2]))
    with pytest.raises(ModelError, match="types that the model does not know: check"):
        live.replace_model(build_live_model(fewer, max_sequences=10))
    assert isinstance(live.forecast([ForecastRequest("s")])[0], Forecast)


def test_a_replaced_expert_is_freed_at_once(forecaster: Forecaster):
    live = _live(forecaster)
    live.append([AppendRequest(_events("s", 3, 0))])
    live.forecast([ForecastRequest("s")])
    replaced = weakref.ref(live.model)
    gc.disable()  # a cycle would keep the states until the next collection
    try:
        live.replace_model(build_live_model(forecaster, max_sequences=1))
        assert replaced() is None
    finally:
        gc.enable()
