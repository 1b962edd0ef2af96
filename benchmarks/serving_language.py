"""Live forecasts by a language model under load.

    python -m benchmarks.serving_language        make bench-serve

A model of the preset ``tiny`` with random weights is served by Ray Serve on this machine, in one
process behind HAProxy; the speed does not depend on the weights. Clients replay comments on one
video of danmaku under many names. Every sequence has 50 events before the load begins. A request
appends one event, and its answer has the forecast of the next one. In the open loop a request is
due at a fixed time, whether earlier ones are answered or not, and its latency counts from then.

At the end, forecasts of the service are compared with those of ``Forecaster.forecast`` for the
whole sequences. The time of the model is measured in this process, without a server: the whole
history for every forecast, and only the new tokens.
"""

import argparse
import asyncio
import logging
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import aiohttp
import orjson
import ray

from benchmarks.measure import finish_section, machine, table
from benchmarks.quality.results import BUDGET
from benchmarks.quality.run import WORK, configuration
from benchmarks.quality.sets import data_sets
from benchmarks.serving import RESULT
from benchmarks.serving_clients import (
    HAPROXY,
    HEADERS,
    LEVELS,
    MAX_DIFFERENCE,
    Load,
    cpu_seconds,
    ray_environment,
    replayed,
    service,
)
from mmtpp.api.forecaster import Forecaster
from mmtpp.config.load import with_values
from mmtpp.config.schema import RunConfig
from mmtpp.data.from_config import build_sample_settings
from mmtpp.data.prepare import prepare
from mmtpp.data.prepared_store import store_vocabulary
from mmtpp.data.samples.interval_range import interval_range
from mmtpp.model.base_folder import build_tiny, save_base
from mmtpp.model.folders.record import TrainedTasks, write_template
from mmtpp.serve.build_live_model import build_live_model
from mmtpp.serve.event_log import IN_MEMORY, EventLog
from mmtpp.serve.live_model import ForecastRequest
from mmtpp.serve.live_sequences import AppendRequest, LiveSequences
from mmtpp.storage.manifest import load_manifest

RATE, MAX_P99_MS = 100.0, 150.0  # floors
HISTORY = 50  # events of a sequence before the load
CLIENTS, SEQUENCES = 16, 4
TOGETHER = 16  # sequences that are forecast together in this process
ROUNDS = 8
SETTINGS = {
    "model.preset": "tiny",
    "template.style": "compact",
    "template.time_bytes": 4,
    "window.max_tokens": 4096,
}


def tiny_model() -> tuple[str, RunConfig]:
    """Write the model, or find it; returns its folder and its settings."""
    config = with_values(configuration(data_sets(WORK)["danmaku"], BUDGET), SETTINGS)
    prepare(config)
    folder = WORK / "serving" / "language"
    if (folder / "config.json").is_file():
        return str(folder), config
    manifest = load_manifest(config.store.uri)
    vocabulary = store_vocabulary(config.store.uri, manifest)
    settings = build_sample_settings(config.sample_sections, manifest, split="train")
    folder.mkdir(parents=True, exist_ok=True)
    trained_tasks = TrainedTasks(
        tasks=("time", "type"),
        interval_range=interval_range(settings),
        type_codes=tuple(manifest.occurring_types),
        type_names=tuple(manifest.type_names),
        seconds_per_unit=manifest.seconds_per_unit,
        trains_history=False,
    )
    write_template(config.sample_sections, folder, trained_tasks)
    save_base(build_tiny(vocabulary, seed=0), vocabulary, folder)
    return str(folder), config


def turns(events: list[dict[str, Any]], names: list[str]) -> Iterator[dict[str, Any]]:
    """The events of sequences after their first ones, one sequence after the other."""
    for place in count(HISTORY):
        for name in names:
            yield {**events[place], "sequence": name}


class LanguageClients:
    """Clients of a service.

    Args:
        url: Address of the service.
        events: Events that each sequence replays.
        seconds: Duration of each load.

    Attributes:
        sent: Number of events by sequence.
    """

    def __init__(self, url: str, events: list[dict[str, Any]], *, seconds: float) -> None:
        self._url, self._events, self._seconds, self._number = url, events, seconds, 0
        self.sent: dict[str, int] = {}

    def load(self, *, clients: int, rate: float = 0.0) -> tuple[Load, dict[str, float]]:
        """Send events for some seconds to sequences of ``HISTORY`` events.

        Args:
            clients: Number of clients, each with ``SEQUENCES`` sequences of its own.
            rate: Requests per second of all clients; 0 for as many as are answered.

        Returns:
            The load, and the CPU seconds of each kind of process.
        """
        self._number += 1
        result, before = Load(), {}
        asyncio.run(self._load(result, before, clients, clients / rate if rate else 0.0))
        return result, {kind: after - before[kind] for kind, after in cpu_seconds().items()}

    async def _load(
        self, result: Load, before: dict[str, float], clients: int, period: float
    ) -> None:
        names = [
            [f"{self._number}-{client}-{index}" for index in range(SEQUENCES)]
            for client in range(clients)
        ]
        async with aiohttp.ClientSession(headers=HEADERS) as session:
            for name in (name for of_client in names for name in of_client):
                await self._send(
                    session, [{**event, "sequence": name} for event in self._events[:HISTORY]]
                )
            before.update(cpu_seconds())
            started = time.perf_counter()
            end = started + self._seconds
            await asyncio.gather(
                *(self._client(session, result, of_client, end, period) for of_client in names)
            )
            result.elapsed_s = time.perf_counter() - started

    async def _client(
        self,
        session: aiohttp.ClientSession,
        result: Load,
        names: list[str],
        end: float,
        period: float,
    ) -> None:
        following = turns(self._events, names)
        due = time.perf_counter() + random.random() * period
        while time.perf_counter() < end:
            if period:
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
            else:
                due = time.perf_counter()
            await self._send(session, [next(following)])
            result.seconds.append(time.perf_counter() - due)
            result.num_events += 1
            due += period

    async def _send(self, session: aiohttp.ClientSession, events: list[dict[str, Any]]) -> None:
        body = orjson.dumps({"events": events, "forecast": True})
        async with session.post(
            f"{self._url}/v1/events", data=body, headers={"content-type": "application/json"}
        ) as answer:
            content = await answer.read()
            if answer.status != 200:
                raise RuntimeError(f"status {answer.status}: {content[:500]!r}")
        name = events[0]["sequence"]
        self.sent[name] = self.sent.get(name, 0) + len(events)


async def compare(
    clients: LanguageClients, url: str, events: list[dict[str, Any]], forecaster: Forecaster
) -> float:
    """The largest relative difference of a mean or a quantile from that of the whole sequence."""
    levels = "&".join(f"quantiles={level}" for level in LEVELS)
    columns = ("interval_mean", *(f"interval_q{100 * level:g}" for level in LEVELS))
    worst = 0.0
    chosen = random.Random(0).sample(sorted(clients.sent), 16)
    async with aiohttp.ClientSession(headers=HEADERS) as session:
        for name in chosen:
            async with session.get(f"{url}/v1/sequences/{name}/forecast?{levels}") as response:
                answer = await response.json()
            sent = events[: clients.sent[name]]
            times, types, texts = (
                [event[key] for event in sent] for key in ("time", "type", "text")
            )
            sequence = forecaster.sequence(times, types, texts=texts, sequence_id=name)
            expected = forecaster.forecast(sequence).as_row(LEVELS)
            if answer["events"] != len(sent) or answer["type"] != expected["type"]:
                raise RuntimeError(f"{name}: {answer} instead of {expected}")
            for column in columns:
                right = float(str(expected[column]))
                worst = max(worst, abs(float(answer[column]) - right) / max(abs(right), 1e-9))
    return worst


def in_process(forecaster: Forecaster, events: list[dict[str, Any]]) -> dict[str, str]:
    """CPU time of a request without a server, by the way in which its forecast is computed."""
    live = LiveSequences(
        EventLog(IN_MEMORY), build_live_model(forecaster, max_sequences=1), max_text=10_000
    )
    names = [f"s{index}" for index in range(TOGETHER)]
    for name in names:
        live.append([AppendRequest([{**event, "sequence": name} for event in events[:HISTORY]])])
    live.forecast([ForecastRequest(name) for name in names])
    place = count(HISTORY)

    def milliseconds(forecast: Callable[[], object], size: int) -> str:
        """Median of the rounds, for one of ``size`` requests."""
        spent: list[float] = []
        for _ in range(ROUNDS):
            event = events[next(place)]
            started = time.process_time()
            for name in names[:size]:
                live.append([AppendRequest([{**event, "sequence": name}])])
            forecast()
            spent.append(1e3 * (time.process_time() - started) / size)
        return f"{statistics.median(spent):.1f}"

    def together() -> object:
        return live.forecast([ForecastRequest(name) for name in names])

    def one_by_one() -> object:
        return [live.forecast([ForecastRequest(name)]) for name in names]

    def whole() -> object:
        return [forecaster.forecast(live.log.read(name)) for name in names]

    return {
        "CPU of a request without a server, ms: the whole history": milliseconds(whole, TOGETHER),
        "only new tokens, one sequence at a time": milliseconds(one_by_one, TOGETHER),
        f"only new tokens, {TOGETHER} sequences together": milliseconds(together, TOGETHER),
    }


def main() -> int:
    """Run all parts and write their section of the page; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--note", default="", help="added to the description of the run")
    parser.add_argument("--seconds", type=float, default=20.0, help="duration of each load")
    arguments = parser.parse_args()
    note: str = arguments.note
    if HAPROXY not in os.environ:  # Ray reads its environment when it is imported
        environment = {**os.environ, **ray_environment(), HAPROXY: "1"}
        command = [sys.executable, "-m", "benchmarks.serving_language", *sys.argv[1:]]
        return subprocess.run(command, env=environment, check=False).returncode
    ray.init(logging_level=logging.WARNING)
    model, config = tiny_model()
    forecaster = Forecaster.from_pretrained(model)
    [longest] = sorted(forecaster.load_sequences(config.store.uri, split="test"), key=len)[-1:]
    events = replayed(longest, forecaster)
    with service(model) as url:
        clients = LanguageClients(url, events, seconds=arguments.seconds)
        clients.load(clients=2)  # warm up
        paced, _ = clients.load(clients=CLIENTS, rate=RATE)
        most, used = clients.load(clients=CLIENTS)
        single, _ = clients.load(clients=1)
        worst = asyncio.run(compare(clients, url, events, forecaster))
    ray.shutdown()
    kept = paced.rate >= 0.98 * RATE and paced.percentile(99) < MAX_P99_MS
    floors = {
        f"requests per second, each an event and a forecast, with p99 below {MAX_P99_MS:g} ms "
        f"(floor {RATE:g})": _shown(paced),
        f"largest difference from recomputation (below {MAX_DIFFERENCE:g})": f"{worst:.1e}",
    }
    figures = {
        f"closed loop, {CLIENTS} clients": _shown(most),
        "CPU of it, ms per request": ", ".join(
            f"{kind} {1e3 * spent / most.num_events:.1f}" for kind, spent in used.items()
        ),
        "closed loop, 1 client": _shown(single),
        **in_process(forecaster, events),
    }
    on = machine("ray", "fastapi", "torch", used="shared by clients and service")
    how = (
        f"`python -m benchmarks.serving_language`{note and ', '}{note}; {on}. A model of the "
        f"preset tiny; comments on one video of danmaku, replayed under many names; {HISTORY} "
        "events in a sequence before the load."
    )
    fails = (not kept, worst >= MAX_DIFFERENCE)
    missed = [name for name, is_missed in zip(floors, fails, strict=True) if is_missed]
    text = table("A language model", how, figures, floors=floors)
    return finish_section(f"#{text}", RESULT, missed)


def _shown(load: Load) -> str:
    return f"{load.rate:,.0f}; p50 {load.percentile(50):.0f} ms, p99 {load.percentile(99):.0f} ms"


if __name__ == "__main__":
    sys.exit(main())
