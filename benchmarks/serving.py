"""Live forecasts under load, and while processes are killed.

    python -m benchmarks.serving        make bench-serve

A temporal expert, trained on real danmaku, is served by Ray Serve on this machine: one gateway, one
shard, events in a log on the disk. Clients replay events of the test split under their own names.

- Load: clients send events of many sequences in requests, and each answer has the forecasts of all
  of them. In the open loop a request is due at a fixed time, whether earlier ones are answered or
  not, and its latency counts from then.
- Chaos: clients append events one by one with ``after`` while a random process is killed every
  20 s. At the end every sequence is compared with what was sent, and its forecast with that of
  ``Forecaster.forecast`` for the whole sequence.
- Memory: the growth of a process that holds the states of 100,000 sequences.
"""

import argparse
import asyncio
import logging
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_AUTH_MODE", "token")

import aiohttp
import numpy as np
import orjson
import psutil
import ray
from ray import serve
from ray.util.state import list_actors

from benchmarks.measure import finish_section, machine, table
from benchmarks.quality.results import BUDGET
from benchmarks.quality.run import WORK, configuration
from benchmarks.quality.sets import data_sets
from cluster.ports import free_ports
from mmtpp.api.forecaster import Forecaster
from mmtpp.config.load import with_values
from mmtpp.core.events import EventSequence
from mmtpp.data.prepare import prepare
from mmtpp.serve.app import build
from mmtpp.serve.event_log import IN_MEMORY, EventLog
from mmtpp.serve.live_model import live_model
from mmtpp.serve.live_model_interface import ForecastRequest
from mmtpp.serve.live_sequences import AppendRequest, LiveSequences
from mmtpp.serve.settings import ServeSettings
from mmtpp.train.launch import pretrain

RESULT = Path(__file__).with_suffix(".md")
LEVELS = (0.05, 0.5, 0.95)
RATE, MAX_P99_MS = 2000.0, 25.0  # floors
BATCH, CLIENTS = 50, 4
LOAD_S, KILL_EVERY_S = 20.0, 20.0
STATES, MAX_GIB = 100_000, 2.0
MAX_DIFFERENCE = 1e-4
CHAOS_CLIENTS, CHAOS_PAUSE_S = 8, 0.05


def train() -> str:
    """Train the expert, or find the trained one; returns its folder."""
    data = data_sets(WORK)["danmaku"]
    config = with_values(
        configuration(data, BUDGET),
        {
            "model.preset": "expert",
            "run.storage_uri": str(WORK / "serving"),
            "run.name": "expert",
            "tracking.uri": f"sqlite:///{WORK / 'serving.db'}",
        },
    )
    prepare(config)
    return str(pretrain(config)["model_uri"])


def replayed(sequence: EventSequence, forecaster: Forecaster) -> list[dict[str, Any]]:
    """The events of a sequence as clients send them."""
    names = [forecaster.trained_tasks.name_of(int(code)) for code in sequence.types]
    columns = zip(sequence.times.tolist(), names, sequence.texts, strict=True)
    return [{"time": time, "type": name, "text": text} for time, name, text in columns]


def endless(events: list[dict[str, Any]], names: list[str]) -> Iterator[list[dict[str, Any]]]:
    """The next event of all sequences, again and again, later each time."""
    span = events[-1]["time"] - events[0]["time"] + 1.0
    for turn in count():
        for event in events:
            later = {**event, "time": event["time"] + turn * span}
            yield [{**later, "sequence": name} for name in names]


@dataclass
class Load:
    """Latencies of requests.

    Attributes:
        seconds: Latency of each request.
        num_events: Number of events of all requests.
        elapsed_s: Time of the whole part.
    """

    seconds: list[float] = field(default_factory=list)
    num_events: int = 0
    elapsed_s: float = 0.0

    def percentile(self, level: float) -> float:
        """A percentile of the latencies, in ms."""
        return 1e3 * float(np.percentile(self.seconds, level))

    @property
    def rate(self) -> float:
        """Events per second."""
        return self.num_events / self.elapsed_s


class Clients:
    """Clients of a service.

    Args:
        url: Address of the service.
        events: Events that each sequence replays.
    """

    def __init__(self, url: str, events: list[dict[str, Any]]) -> None:
        self._url, self._events, self._number = url, events, 0

    def load(self, *, batch: int, clients: int, seconds: float, rate: float = 0.0) -> Load:
        """Send events for some seconds.

        Args:
            batch: Number of events of a request, each of another sequence.
            clients: Number of clients.
            seconds: Duration.
            rate: Events per second of all clients; 0 for as many as are answered.
        """
        self._number += 1
        result = Load()
        started = time.perf_counter()
        asyncio.run(self._load(result, batch, clients, started + seconds, rate))
        result.elapsed_s = time.perf_counter() - started
        return result

    async def _load(self, result: Load, batch: int, clients: int, end: float, rate: float) -> None:
        async with aiohttp.ClientSession() as session:
            await asyncio.gather(
                *(
                    self._client(session, result, f"{self._number}-{index}", batch, end,
                                 clients * batch / rate if rate else 0.0)
                    for index in range(clients)
                )
            )  # fmt: skip

    async def _client(
        self,
        session: aiohttp.ClientSession,
        result: Load,
        name: str,
        batch: int,
        end: float,
        period: float,
    ) -> None:
        requests = endless(self._events, [f"{name}-{index}" for index in range(batch)])
        due = time.perf_counter() + random.random() * period
        while time.perf_counter() < end:
            if period:
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
            else:
                due = time.perf_counter()
            body = orjson.dumps({"events": next(requests), "forecast": True})
            async with session.post(
                f"{self._url}/v1/events", data=body, headers={"content-type": "application/json"}
            ) as answer:
                content = await answer.read()
                if answer.status != 200:
                    raise RuntimeError(f"status {answer.status}: {content[:500]!r}")
            result.seconds.append(time.perf_counter() - due)
            result.num_events += batch
            due += period


def cpu_seconds() -> dict[str, float]:
    """CPU seconds so far of the processes of the service, by kind, and of this one."""
    kinds = {"shard": "shard-", "gateway": ":gateway", "proxy": "ProxyActor"}
    seconds = dict.fromkeys([*kinds, "clients"], 0.0)
    for process in psutil.process_iter(["name", "cmdline", "cpu_times"]):
        command = " ".join(process.info["cmdline"] or [])
        for kind, part in kinds.items():
            if command.startswith("ray::") and part in command and process.info["cpu_times"]:
                seconds[kind] += sum(process.info["cpu_times"][:2])
    seconds["clients"] = sum(psutil.Process().cpu_times()[:2])
    return seconds


@dataclass
class Chaos:
    """What happened while processes were killed.

    Attributes:
        sent: Accepted events by sequence.
        answers: Number of answers by status; 0 for a broken connection.
        kills: Number of killed processes by kind.
    """

    sent: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    answers: Counter[int] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)


async def send_one_by_one(
    url: str, name: str, events: list[dict[str, Any]], end: float, chaos: Chaos
) -> None:
    """Append events of one sequence until the end; the same event again after an error."""
    following = (event for [event] in endless(events, [name]))
    to_send: list[dict[str, Any]] = []
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        sent = 0
        is_unknown = False  # whether the last event may have been accepted without an answer
        while is_unknown or time.perf_counter() < end:
            if sent == len(to_send):
                to_send.append(next(following))
            status, answer = 0, {}
            try:
                async with session.post(
                    f"{url}/v1/sequences/{name}/events",
                    json={"events": [_without_sequence(to_send[sent])], "after": sent},
                ) as response:
                    status, answer = response.status, await response.json(content_type=None)
            except (aiohttp.ClientError, TimeoutError, ValueError):
                status = 0
            chaos.answers[status] += 1
            is_unknown = status not in (200, 409)
            if status == 200:
                sent += 1
                await asyncio.sleep(CHAOS_PAUSE_S)
            elif status == 409 and answer["detail"]["rejected"][0].get("events") == sent + 1:
                sent += 1  # it was accepted, and its answer was lost
            elif status in (0, 502, 503, 504):
                await asyncio.sleep(0.2)
            else:
                raise RuntimeError(f"status {status}: {answer}")
        chaos.sent[name] = to_send[:sent]


def _without_sequence(event: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in event.items() if key != "sequence"}


async def kill_processes(end: float, chaos: Chaos) -> None:
    """Kill a gateway or a shard at random, every ``KILL_EVERY_S``."""
    while time.perf_counter() < end - KILL_EVERY_S:
        await asyncio.sleep(KILL_EVERY_S)
        alive: list[Any] = await asyncio.to_thread(
            list_actors,
            ray.get_runtime_context().gcs_address,
            filters=[("state", "=", "ALIVE")],
            limit=1000,
        )
        named = [(actor.pid, actor.name or "") for actor in alive]
        found = [(pid, name) for pid, name in named if "#shard-" in name or "#gateway" in name]
        if found:
            pid, name = random.choice(found)
            os.kill(pid, signal.SIGKILL)
            chaos.kills["shard" if "#shard-" in name else "gateway"] += 1


async def run_chaos(url: str, events: list[dict[str, Any]], seconds: float) -> Chaos:
    """Send events while processes are killed."""
    chaos, end = Chaos(), time.perf_counter() + seconds
    names = [f"chaos-{index}" for index in range(CHAOS_CLIENTS)]
    sending = (send_one_by_one(url, name, events, end, chaos) for name in names)
    await asyncio.gather(kill_processes(end, chaos), *sending)
    return chaos


async def compare(url: str, chaos: Chaos, forecaster: Forecaster) -> tuple[list[float], int]:
    """Compare every sequence with what was sent.

    Returns:
        The largest relative difference of each sequence's forecast from the right one, and the
        number of lost or doubled events of all sequences.
    """
    levels = "&".join(f"quantiles={level}" for level in LEVELS)
    result: list[float] = []
    num_wrong = 0
    async with aiohttp.ClientSession() as session:
        for name, sent in chaos.sent.items():
            async with session.get(f"{url}/v1/sequences/{name}/forecast?{levels}") as response:
                answer = await response.json()
            num_wrong += abs(answer["events"] - len(sent))
            columns = ([event[key] for event in sent] for key in ("time", "type", "text"))
            times, types, texts = columns
            sequence = forecaster.sequence(times, types, texts=texts, sequence_id=name)
            expected = forecaster.forecast(sequence).as_row(LEVELS)
            pairs = [
                (float(answer[key]), float(str(expected[key])))
                for key in ("interval_mean", *(f"interval_q{100 * level:g}" for level in LEVELS))
            ]
            result.append(max(abs(a - b) / max(abs(b), 1e-9) for a, b in pairs))
    return result, num_wrong


def in_process(forecaster: Forecaster, events: list[dict[str, Any]]) -> float:
    """Events per CPU second of one process without a server: appended, and forecast in batches."""
    with tempfile.TemporaryDirectory() as folder:
        log = EventLog(f"{folder}/log.sqlite")
        live = LiveSequences(log, live_model(forecaster, max_sequences=1000), max_text=10_000)
        names = [f"s{index}" for index in range(BATCH)]
        requests = endless(events, names)
        rates: list[float] = []
        for _ in range(5):
            started = time.process_time()
            for _ in range(40):
                live.append([AppendRequest(next(requests))])
                live.forecast([ForecastRequest(name) for name in names])
            rates.append(40 * BATCH / (time.process_time() - started))
        log.close()
    return statistics.median(rates[1:])


def gib_of_states(forecaster: Forecaster, events: list[dict[str, Any]]) -> float:
    """Growth of this process with the states of ``STATES`` sequences, in GiB."""
    log = EventLog(IN_MEMORY)
    live = LiveSequences(log, live_model(forecaster, max_sequences=STATES), max_text=10_000)
    process = psutil.Process()
    before = process.memory_info().rss
    for start in range(0, STATES, 1000):
        names = [f"s{index}" for index in range(start, start + 1000)]
        for event in events[:3]:
            live.append([AppendRequest([{**event, "sequence": name} for name in names])])
    assert live.model.counts()["states"] == STATES
    return (process.memory_info().rss - before) / 2**30


def main() -> int:
    """Run all parts and write the page; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chaos-seconds", type=float, default=1800.0)
    seconds: float = parser.parse_args().chaos_seconds
    ray.init(logging_level=logging.WARNING)
    model = train()
    forecaster = Forecaster.from_pretrained(model)
    store = data_sets(WORK)["danmaku"].name
    [longest] = sorted(
        forecaster.load_sequences(str(WORK / f"{store}_store"), split="test"), key=len
    )[-1:]
    events = replayed(longest, forecaster)
    port = free_ports(["serve"])["serve"]
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as state:
        serve.run(build(ServeSettings(model_uri=model, state_folder=state)), name="mmtpp")
        clients = Clients(url, events)
        clients.load(batch=BATCH, clients=2, seconds=5)  # warm up
        before = cpu_seconds()
        most = clients.load(batch=BATCH, clients=CLIENTS, seconds=LOAD_S)
        used = {kind: after - before[kind] for kind, after in cpu_seconds().items()}
        paced = clients.load(batch=BATCH, clients=CLIENTS, seconds=LOAD_S, rate=RATE)
        half = clients.load(batch=BATCH, clients=CLIENTS, seconds=LOAD_S, rate=RATE / 2)
        single = clients.load(batch=1, clients=1, seconds=LOAD_S)
        many = clients.load(batch=1, clients=16, seconds=LOAD_S)
        chaos = asyncio.run(run_chaos(url, events, seconds))
        differences, num_wrong = asyncio.run(compare(url, chaos, forecaster))
        serve.shutdown()
    ray.shutdown()
    rate, gib = in_process(forecaster, events), gib_of_states(forecaster, events)
    worst = max(differences)
    num_accepted = sum(map(len, chaos.sent.values()))
    kept = paced.rate >= 0.98 * RATE and paced.percentile(99) < MAX_P99_MS
    floors = {
        f"events per second, each appended and forecast, with p99 below {MAX_P99_MS:g} ms (floor "
        f"{RATE:,.0f})": f"{paced.rate:,.0f}; p50 {paced.percentile(50):.0f} ms, p99 "
        f"{paced.percentile(99):.0f} ms",
        f"states of {STATES:,} sequences, GiB (below {MAX_GIB:g})": f"{gib:.2f}",
        f"largest difference from recomputation (below {MAX_DIFFERENCE:g})": f"{worst:.1e}",
        "chaos: lost or doubled events (none)": f"{num_wrong:,}",
    }
    figures = {
        f"closed loop, {CLIENTS} clients, {BATCH} events a request": _shown(most),
        "CPU of it, ms per event": ", ".join(
            f"{kind} {1e3 * spent / most.num_events:.2f}" for kind, spent in used.items()
        ),
        f"open loop, {RATE / 2:,.0f} events per second": _shown(half),
        "closed loop, 1 client, 1 event a request": _shown(single),
        "closed loop, 16 clients, 1 event a request": _shown(many),
        "events per CPU second without a server": f"{rate:,.0f}",
        f"chaos, {seconds:,.0f} s: killed": ", ".join(
            f"{kind} {number}" for kind, number in sorted(chaos.kills.items())
        ),
        "chaos: accepted events": f"{num_accepted:,}",
        "chaos: answers by status (0: broken connection)": ", ".join(
            f"{status}: {number:,}" for status, number in sorted(chaos.answers.items())
        ),
    }
    on = machine("ray", "fastapi", "torch", used="shared by clients and service")
    how = (
        f"`make bench-serve CHAOS_SECONDS={seconds:g}`; {on}. An expert trained on danmaku; "
        f"{len(events):,} comments on one video of the test split, replayed under many names."
    )
    fails = (not kept, gib >= MAX_GIB, worst >= MAX_DIFFERENCE, num_wrong > 0)
    missed = [name for name, is_missed in zip(floors, fails, strict=True) if is_missed]
    return finish_section(table("Live forecasts", how, figures, floors=floors), RESULT, missed)


def _shown(load: Load) -> str:
    low, high = load.percentile(50), load.percentile(99)
    return f"{load.rate:,.0f} events/s; p50 {low:.0f} ms, p99 {high:.0f} ms"


if __name__ == "__main__":
    sys.exit(main())
