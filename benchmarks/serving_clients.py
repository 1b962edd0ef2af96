"""Clients that send events to a live service and measure it; used by the benchmarks of services.

The service runs behind HAProxy (``RAY_SERVE_ENABLE_HA_PROXY=1``), which Ray installs and which
needs a token, or behind Serve's own proxy. Its processes have the priority of others
(``RAY_worker_niceness=0``), because Ray's default lets every other process of the machine pass.
"""

import asyncio
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import orjson
import psutil
from ray import serve

from cluster.ports import free_ports
from mmtpp.api.forecaster import Forecaster
from mmtpp.core.events import EventSequence
from mmtpp.serve.app import build
from mmtpp.serve.settings import ServeSettings

HAPROXY = "RAY_SERVE_ENABLE_HA_PROXY"
MAX_DIFFERENCE = 1e-4  # floor
TOKEN = "of-the-benchmark"  # of a service that only this machine reaches
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
LEVELS = (0.05, 0.5, 0.95)


@contextmanager
def service(model: str, **arguments: Any) -> Iterator[str]:
    """A service of a model with its events on the disk; yields its address.

    Args:
        model: Folder of the model.
        arguments: Further arguments of the application.
    """
    port = free_ports(["serve"])["serve"]
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    with tempfile.TemporaryDirectory() as state:
        token = Path(state) / "token"
        token.write_text(TOKEN)
        settings = ServeSettings(
            model_uri=model, state_folder=state, token_file=str(token), **arguments
        )
        serve.run(build(settings), name="mmtpp")
        yield f"http://127.0.0.1:{port}"
        serve.shutdown()


def ray_environment() -> dict[str, str]:
    """Variables that Ray reads when it is imported, so before this process imported it."""
    return {"RAY_AUTH_MODE": "token", "RAY_worker_niceness": "0"}


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
        async with aiohttp.ClientSession(headers=HEADERS) as session:
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
            is_of_ray = command.startswith("ray::") and part in command
            is_haproxy = kind == "proxy" and process.info["name"] == "haproxy"
            if (is_of_ray or is_haproxy) and process.info["cpu_times"]:
                seconds[kind] += sum(process.info["cpu_times"][:2])
    seconds["clients"] = sum(psutil.Process().cpu_times()[:2])
    return seconds
