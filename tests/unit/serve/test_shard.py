"""A shard between two batches of forecasts."""

import asyncio
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

from mmtpp.serve.build_live_model import build_live_model
from mmtpp.serve.event_log import IN_MEMORY, EventLog
from mmtpp.serve.live_model import ForecastRequest
from mmtpp.serve.live_sequences import AppendRequest, LiveSequences
from mmtpp.serve.shard import Shard
from mmtpp.serve.shard_requests import ShardForecast
from mmtpp.track.registered_model import RegisteredModel
from tests.helpers.live_models import TYPES, language_forecaster


def _shard(live: LiveSequences) -> Any:
    """A shard without Serve, whose counters need a replica."""
    shard: Any = object.__new__(Shard)
    shard._live, shard._model = live, RegisteredModel("language", "", "")
    shard._forecasts = SimpleNamespace(inc=lambda _: None)
    shard._turn = asyncio.Lock()
    return shard


def test_other_requests_are_carried_out_between_two_batches():
    live = LiveSequences(
        EventLog(IN_MEMORY), build_live_model(language_forecaster(), max_sequences=1), max_text=100
    )
    names = [f"s{index}" for index in range(40)]
    events = [{"sequence": name, "time": 1.0, "type": TYPES[0]} for name in names]
    live.append([AppendRequest(events)])
    sizes: list[int] = []
    forecast = live.forecast

    def counted(requests: Any) -> Any:
        sizes.append(len(requests))
        return forecast(requests)

    live.forecast = counted
    num_before: list[int] = []

    async def append_next() -> None:
        """Append an event of the next sequence whenever the shard is free."""
        for name in names:
            live.append([AppendRequest([{"sequence": name, "time": 2.0, "type": TYPES[1]}])])
            num_before.append(len(sizes))
            await asyncio.sleep(0)

    async def run() -> list[dict[str, Any]]:
        asked = [ShardForecast(ForecastRequest(name)) for name in names]
        answers, _ = await asyncio.gather(_shard(live)._answers(asked), append_next())
        return answers

    answers = asyncio.run(run())
    assert sizes == [16, 16, 8]
    assert num_before[:2] == [1, 2]  # one event after the first batch, the next after the second
    assert [answer["forecast"]["sequence_id"] for answer in answers] == names
    # the second batch saw the event of no sequence of its own; the appended ones were in the first
    assert {answer["forecast"]["events"] for answer in answers} == {1}


def test_batches_of_many_requests_take_turns():
    live = LiveSequences(
        EventLog(IN_MEMORY), build_live_model(language_forecaster(), max_sequences=1), max_text=100
    )
    names = [f"s{index}" for index in range(9)]
    events = [{"sequence": name, "time": 1.0, "type": TYPES[0]} for name in names]
    live.append([AppendRequest(events)])
    num_batches, at_turns = 0, []
    forecast = live.forecast

    def counted(requests: Any) -> Any:
        nonlocal num_batches
        num_batches += 1
        return forecast(requests)

    live.forecast = counted

    async def check_health() -> None:
        while num_batches < len(names):
            at_turns.append(num_batches)
            await asyncio.sleep(0)

    async def run() -> None:
        shard = _shard(live)
        waiting = [shard._answers([ShardForecast(ForecastRequest(name))]) for name in names]
        await asyncio.gather(check_health(), *waiting)

    asyncio.run(run())
    assert all(later - before <= 1 for before, later in pairwise(at_turns))
    assert len(set(at_turns)) == len(names)
