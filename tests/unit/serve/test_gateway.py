"""What a gateway answers when a shard is away, slow, full or faulty.

The shards are stand-ins, but for those of a gateway with its own.
"""

import asyncio
import json
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import HTTPException
from ray import serve
from ray.exceptions import ActorDiedError, RayTaskError

from mmtpp.api.forecaster import Forecaster
from mmtpp.core.errors import StorageError
from mmtpp.serve.event_log import EventLog
from mmtpp.serve.gateway import Gateway, GatewayWithShard, MixedEvents, shard_of, web_application
from mmtpp.serve.live_sequences import AppendRequest
from mmtpp.serve.settings import ServeSettings
from mmtpp.serve.shard_requests import ShardAppend, ShardForecast
from tests.helpers.live_models import KNOWN, TYPES, expert_forecaster


class _Shard:
    """Accepts every event; with an error, every request raises it.

    Args:
        error: The error; None for a shard that works.
    """

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error
        self.accepted: list[object] = []

    async def append(self, asked: ShardAppend) -> dict[str, Any]:
        self._raise()
        events = asked.request.events
        self.accepted += events
        outcomes = [{"position": index, "repeated": False} for index in range(len(events))]
        return {"outcomes": outcomes, "forecasts": {}}

    async def forecast(self, asked: ShardForecast) -> dict[str, Any]:
        self._raise()
        return {"forecast": {"sequence_id": asked.request.sequence_id}}

    async def events(self, sequence_id: str, last: int) -> list[dict[str, Any]]:
        self._raise()
        return [{"time": 0.0}][:last]

    async def remove(self, sequence_id: str) -> int:
        self._raise()
        return 1

    async def ready(self) -> str:
        self._raise()
        return "model"

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error


class _SilentShard(_Shard):
    """Never answers."""

    async def append(self, asked: ShardAppend) -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def forecast(self, asked: ShardForecast) -> dict[str, Any]:
        return await self.append(ShardAppend(AppendRequest([])))


def _gateway(*shards: _Shard) -> Gateway:
    gateway = Gateway(ServeSettings(model_uri="m", timeout_s=0.01), [])
    gateway._shards = list(shards)
    return gateway


def _name_of(shard: int) -> str:
    """A sequence of a shard, of two."""
    return next(name for name in map(str, range(100)) if shard_of(name, 2) == shard)


def _post(gateway: Gateway, body: object) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Status, headers and body of the answer to a request of many sequences, sent by HTTP."""
    return asyncio.run(_answer(gateway, body))


async def _answer(gateway: Gateway, body: object) -> tuple[int, dict[str, str], dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/events",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
        "client": ("127.0.0.1", 5),
    }
    web = web_application(ServeSettings(model_uri="m"), gateway)
    with suppress(RayTaskError):  # Starlette raises it again after the answer, for the log
        await web(scope, receive, send)
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, json.loads(sent[1]["body"])


def test_a_shard_that_does_not_answer_in_time_is_503():
    with pytest.raises(HTTPException) as refused:
        asyncio.run(_gateway(_SilentShard()).forecast("a"))
    assert refused.value.status_code == 503
    assert refused.value.headers == {"Retry-After": "1"}
    assert "does not answer (TimeoutError); send the request again" in refused.value.detail


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (StorageError("the disk is full", where="events-0-of-1.sqlite"), "the disk is full"),
        (ActorDiedError(), r"does not answer \(ActorDiedError\)"),
    ],
)
@pytest.mark.parametrize(
    ("method", "arguments"),
    [("forecast", ("a",)), ("events", ("a", 1)), ("remove", ("a",)), ("ready", ())],
)
def test_a_shard_that_refuses_or_is_away_is_503(
    error: Exception, message: str, method: str, arguments: tuple
):
    gateway = _gateway(_Shard(error))
    with pytest.raises(HTTPException, match=message) as refused:
        asyncio.run(getattr(gateway, method)(*arguments))
    assert (refused.value.status_code, refused.value.headers) == (503, {"Retry-After": "1"})


def test_a_fault_of_the_program_is_raised():
    """It is answered with 500: nobody should send such a request again and again."""
    fault = RayTaskError("append", "Traceback …", ValueError("wrong"))
    with pytest.raises(RayTaskError):
        asyncio.run(_gateway(_Shard(fault)).forecast("a"))
    body = MixedEvents(events=[{"sequence": "a", "time": 0, "type": 0}])
    with pytest.raises(RayTaskError):
        asyncio.run(_gateway(_Shard(fault)).append_mixed(body))


@pytest.mark.parametrize("dead", [_Shard(ActorDiedError()), _SilentShard()], ids=["away", "silent"])
def test_events_of_a_dead_shard_are_unknown_and_those_of_the_other_are_appended(dead: _Shard):
    working = _Shard()
    events = [{"sequence": _name_of(shard), "time": 0, "type": 0} for shard in (0, 1, 0)]
    status, _, answer = _post(_gateway(working, dead), {"events": events})
    assert status == 503
    assert working.accepted == [events[0], events[2]]
    assert (answer["accepted"], answer["repeated"], answer["rejected"]) == (2, 0, [])
    [unknown] = answer["unknown"]
    assert unknown["index"] == 1
    assert "the process of this sequence does not answer" in unknown["message"]


def test_working_shards_get_the_events_of_their_sequences():
    shards = [_Shard(), _Shard()]
    events = [{"sequence": _name_of(shard), "time": 0, "type": 0} for shard in (1, 0, 1)]
    status, _, answer = _post(_gateway(*shards), {"events": events})
    assert (status, answer["accepted"], answer["unknown"]) == (200, 3, [])
    assert [shard.accepted for shard in shards] == [[events[1]], [events[0], events[2]]]
    assert asyncio.run(_gateway(*shards).ready()) == {"shards": 2, "models": ["model"]}


def test_a_gateway_with_its_shard_answers_in_one_process(tmp_path: Path, monkeypatch):
    """Serve's batches belong to the event loop in which the first one was carried out."""
    forecaster = expert_forecaster()
    name = TYPES[KNOWN[0]]
    monkeypatch.setattr(Forecaster, "from_pretrained", lambda *_, **__: forecaster)
    # they ask the replica that they are in for one number
    replica = SimpleNamespace(_deployment_config=SimpleNamespace(max_ongoing_requests=1000))
    monkeypatch.setattr(serve, "get_replica_context", lambda: replica)
    gateway = GatewayWithShard(ServeSettings(model_uri="m", state_folder=str(tmp_path)))

    def is_full(*_: object) -> None:
        raise StorageError("the disk is full", where="events")

    async def append_and_forecast() -> None:
        await gateway.reconfigure({"model_uri": "m", "base_uri": ""})
        events = [{"sequence": "a", "time": time, "type": name} for time in (1.0, 3.0)]
        status, _, answer = await _answer(gateway, {"events": events, "forecast": True})
        assert (status, answer["accepted"]) == (200, 2)
        sequence = forecaster.sequence([1.0, 3.0], [name] * 2, sequence_id="a")
        expected = forecaster.forecast(sequence).mean
        assert answer["forecasts"][0]["interval_mean"] == pytest.approx(expected, rel=1e-4)
        gateway.check_health()
        calls = [gateway.forecast("a"), gateway.forecast("unknown")]
        known, unknown = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(known, dict)
        assert known["events"] == 2
        assert isinstance(unknown, HTTPException)
        assert unknown.status_code == 404

    async def append_to_a_full_disk() -> None:
        monkeypatch.setattr(EventLog, "append", is_full)
        event = {"time": 9.0, "type": name}
        bodies = [MixedEvents(events=[{"sequence": one, **event}]) for one in "abc"]
        for answer in await asyncio.gather(*map(gateway.append_mixed, bodies)):
            assert answer["accepted"] == 0
            assert "the disk is full" in answer["unknown"][0]["message"]

    with asyncio.Runner() as runner:
        runner.run(append_and_forecast())
        runner.run(append_to_a_full_disk())


def test_a_fault_of_the_program_is_answered_in_json():
    """Proxies answer 500 in plain text for a process that died."""
    fault = RayTaskError("append", "Traceback …", ValueError("wrong"))
    status, headers, answer = _post(
        _gateway(_Shard(fault)), {"events": [{"sequence": "a", "time": 0, "type": 0}]}
    )
    assert (status, headers["content-type"]) == (500, "application/json")
    assert answer == {"detail": "the service has a fault: RayTaskError"}
