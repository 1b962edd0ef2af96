"""Live forecasts while processes are killed.

    python -m benchmarks.serving_chaos        make bench-serve

Clients append events one by one with ``after`` while a random process of the service is killed
every 20 s. At the end every sequence is compared with what was sent, and its forecast with that of
``Forecaster.forecast`` for the whole sequence. First the service is one process behind HAProxy,
then two shards with their gateway behind Serve's proxy.
"""

import argparse
import asyncio
import logging
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import ray
from ray.util.state import list_actors

from benchmarks.measure import finish_section, machine
from benchmarks.quality.run import WORK
from benchmarks.serving import RESULT, expert_and_events
from benchmarks.serving_clients import (
    HAPROXY,
    HEADERS,
    LEVELS,
    MAX_DIFFERENCE,
    endless,
    ray_environment,
    service,
)
from mmtpp.api.forecaster import Forecaster

KILL_EVERY_S = 20.0
CLIENTS, PAUSE_S = 8, 0.05


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
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(timeout=timeout, headers=HEADERS) as session:
        sent = 0
        is_unknown = False  # whether the last event may have been accepted without an answer
        while is_unknown or time.perf_counter() < end:
            if sent == len(to_send):
                to_send.append(next(following))
            status, content, is_json = 0, b"", False
            try:
                async with session.post(
                    f"{url}/v1/sequences/{name}/events",
                    json={"events": [_without_sequence(to_send[sent])], "after": sent},
                ) as response:
                    status, content = response.status, await response.read()
                    is_json = response.content_type == "application/json"
            except (aiohttp.ClientError, TimeoutError):
                status = 0
            chaos.answers[status] += 1
            is_unknown = status not in (200, 409)
            if status == 200:
                sent += 1
                await asyncio.sleep(PAUSE_S)
            elif status == 409 and _next_position(content) == sent + 1:
                sent += 1  # it was accepted, and its answer was lost
            elif status in (0, 408, 502, 503, 504) or (status == 500 and not is_json):
                await asyncio.sleep(0.2)
            else:
                raise RuntimeError(f"status {status}: {content!r}")
        chaos.sent[name] = to_send[:sent]


def _next_position(refused: bytes) -> int | None:
    """The number of events that the service has, from its answer to a wrong ``after``."""
    return orjson.loads(refused)["detail"]["rejected"][0].get("events")


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
    names = [f"chaos-{index}" for index in range(CLIENTS)]
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
    async with aiohttp.ClientSession(headers=HEADERS) as session:
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


def measure(num_shards: int, seconds: float) -> dict[str, Any]:
    """Run one layout in this process's cluster; returns its figures."""
    model, events = expert_and_events()
    forecaster = Forecaster.from_pretrained(model)
    ray.init(logging_level=logging.WARNING)
    with service(model, num_shards=num_shards) as url:
        chaos = asyncio.run(run_chaos(url, events, seconds))
        differences, num_wrong = asyncio.run(compare(url, chaos, forecaster))
    ray.shutdown()
    return {
        "killed": dict(sorted(chaos.kills.items())),
        "accepted": sum(map(len, chaos.sent.values())),
        "wrong": num_wrong,
        "difference": max(differences),
        "answers": {str(status): number for status, number in sorted(chaos.answers.items())},
    }


def _row(name: str, seconds: float, found: dict[str, Any]) -> str:
    killed = ", ".join(f"{kind} {number}" for kind, number in found["killed"].items())
    answers = ", ".join(f"{status}: {number:,}" for status, number in found["answers"].items())
    return (
        f"| {name} | {seconds:,.0f} | {killed} | {found['accepted']:,} | **{found['wrong']}** | "
        f"**{found['difference']:.1e}** | {answers} |"
    )


def main() -> int:
    """Run both layouts and write their section of the page; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1800.0, help="of the first layout")
    parser.add_argument("--num-shards", type=int, default=0, help="measure one layout only")
    parser.add_argument("--result", type=Path, help="file of the figures of one layout")
    arguments = parser.parse_args()
    seconds: float = arguments.seconds
    if arguments.num_shards:
        arguments.result.write_bytes(orjson.dumps(measure(arguments.num_shards, seconds)))
        return 0
    rows: list[str] = []
    missed: list[str] = []
    layouts = {
        "one process, HAProxy": (1, "1", seconds),
        "gateway and two shards, Serve's proxy": (2, "0", max(60.0, seconds / 3)),
    }
    for name, (num_shards, haproxy, duration) in layouts.items():
        result = WORK / "serving" / f"chaos-{num_shards}.json"
        command = [sys.executable, "-m", "benchmarks.serving_chaos", "--result", str(result)]
        subprocess.run(
            [*command, "--num-shards", str(num_shards), "--seconds", str(duration)],
            env={**os.environ, **ray_environment(), HAPROXY: haproxy},
            check=True,
        )
        found = orjson.loads(result.read_bytes())
        rows.append(_row(name, duration, found))
        if not found["killed"] or found["wrong"] or found["difference"] >= MAX_DIFFERENCE:
            missed.append(name)
    on = machine("ray", "fastapi", "torch", used="shared by clients and service")
    text = "\n".join(
        [
            "## While processes are killed",
            "",
            f"`python -m benchmarks.serving_chaos --seconds {seconds:g}`; {on}. {CLIENTS} clients "
            "append one event after the other; a process of the service is killed every "
            f"{KILL_EVERY_S:g} s. A client sends an event again after a broken connection (0) and "
            "after 408, 502, 503 and 504. It also does so after a plain 500, which is of a proxy "
            "whose process died. 409 says that the event had been appended.",
            "",
            "| service | s | killed | accepted events | lost or doubled | largest difference from "
            "recomputation | answers by status |",
            "|---|---|---|---|---|---|---|",
            *rows,
            "",
        ]
    )
    return finish_section(text, RESULT, missed)


if __name__ == "__main__":
    sys.exit(main())
