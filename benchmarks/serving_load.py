"""The load part of ``benchmarks.serving``: one way to reach the service, in a process of its own.

    python -m benchmarks.serving_load MODEL EVENTS RESULT

Writes a JSON object: figures by name as text, and ``rate`` and ``p99_ms`` of the load with a floor.
"""

import logging
import sys
from pathlib import Path

import orjson
import ray

from benchmarks.serving_clients import Clients, Load, cpu_seconds, service

BATCH, CLIENTS = 50, 4
RATE = 2000.0
LOAD_S = 20.0


def figures(url: str, events: list[dict[str, object]]) -> dict[str, object]:
    """Figures of a service under several loads."""
    clients = Clients(url, events)
    clients.load(batch=BATCH, clients=2, seconds=5)  # warm up
    before = cpu_seconds()
    most = clients.load(batch=BATCH, clients=CLIENTS, seconds=LOAD_S)
    used = {kind: after - before[kind] for kind, after in cpu_seconds().items()}
    paced = clients.load(batch=BATCH, clients=CLIENTS, seconds=LOAD_S, rate=RATE)
    half = clients.load(batch=BATCH, clients=CLIENTS, seconds=LOAD_S, rate=RATE / 2)
    smaller = clients.load(batch=BATCH // 2, clients=2 * CLIENTS, seconds=LOAD_S, rate=RATE)
    single = clients.load(batch=1, clients=1, seconds=LOAD_S)
    many = clients.load(batch=1, clients=16, seconds=LOAD_S)
    shown = {
        f"{RATE:,.0f} events per second, {BATCH} a request": paced,
        f"{RATE:,.0f} events per second, {BATCH // 2} a request": smaller,
        f"{RATE / 2:,.0f} events per second, {BATCH} a request": half,
        f"closed loop, {CLIENTS} clients, {BATCH} events a request": most,
        "closed loop, 1 client, 1 event a request": single,
        "closed loop, 16 clients, 1 event a request": many,
    }
    cpu = ", ".join(
        f"{kind} {1e3 * spent / most.num_events:.2f}" for kind, spent in used.items() if spent
    )
    texts = {name: _shown(load) for name, load in shown.items()}
    texts[f"CPU of {CLIENTS} clients with {BATCH} events a request, ms per event"] = cpu
    return {"figures": texts, "rate": paced.rate, "p99_ms": paced.percentile(99)}


def _shown(load: Load) -> str:
    low, high = load.percentile(50), load.percentile(99)
    return f"{load.rate:,.0f} events/s; p50 {low:.0f} ms, p99 {high:.0f} ms"


def main() -> int:
    """Run the load against a service in this process's cluster; returns the exit status."""
    model, events = sys.argv[1], orjson.loads(Path(sys.argv[2]).read_bytes())
    ray.init(logging_level=logging.WARNING)
    with service(model) as url:
        Path(sys.argv[3]).write_bytes(orjson.dumps(figures(url, events)))
    ray.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
