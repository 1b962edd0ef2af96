"""Live forecasts under load.

    python -m benchmarks.serving        make bench-serve

A temporal expert, trained on real danmaku, is served by Ray Serve on this machine: one process, its
events in a log on the disk. Clients replay events of the test split under their own names. They
send events of many sequences in requests, and each answer has the forecasts of all of them. In the
open loop a request is due at a fixed time, whether earlier ones are answered or not, and its
latency counts from then.

Memory is the growth of a process that holds the states of 100,000 sequences.
"""

import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray reads it when it is imported

import orjson
import psutil
import ray

from benchmarks.measure import finish_section, machine
from benchmarks.quality.results import BUDGET
from benchmarks.quality.run import WORK, configuration
from benchmarks.quality.sets import data_sets
from benchmarks.serving_clients import HAPROXY, endless, ray_environment, replayed
from benchmarks.serving_load import BATCH, RATE
from mmtpp.api.forecaster import Forecaster
from mmtpp.config.load import with_values
from mmtpp.data.prepare import prepare
from mmtpp.serve.build_live_model import build_live_model
from mmtpp.serve.event_log import IN_MEMORY, EventLog
from mmtpp.serve.live_model import ForecastRequest
from mmtpp.serve.live_sequences import AppendRequest, LiveSequences
from mmtpp.train.launch import pretrain

RESULT = Path(__file__).with_suffix(".md")
MAX_P99_MS = 25.0  # floor
STATES, MAX_GIB = 100_000, 2.0
LAYOUTS = {"HAProxy": "1", "Serve's proxy": "0"}


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


def expert_and_events() -> tuple[str, list[dict[str, Any]]]:
    """The folder of the expert, and the events of the longest test sequence for clients."""
    ray.init(logging_level=logging.WARNING)
    model = train()
    ray.shutdown()
    store = data_sets(WORK)["danmaku"].name
    forecaster = Forecaster.from_pretrained(model)
    sequences = forecaster.load_sequences(str(WORK / f"{store}_store"), split="test")
    return model, replayed(max(sequences, key=len), forecaster)


def loads(model: str, events: list[dict[str, Any]], haproxy: str) -> dict[str, Any]:
    """What ``benchmarks.serving_load`` finds; Ray reads its environment when it is imported."""
    with tempfile.TemporaryDirectory() as folder:
        sent, result = Path(folder) / "events.json", Path(folder) / "result.json"
        sent.write_bytes(orjson.dumps(events))
        subprocess.run(
            [sys.executable, "-m", "benchmarks.serving_load", model, str(sent), str(result)],
            env={**os.environ, **ray_environment(), HAPROXY: haproxy},
            check=True,
        )
        return orjson.loads(result.read_bytes())


def in_process(forecaster: Forecaster, events: list[dict[str, Any]]) -> float:
    """Events per CPU second of one process without a server: appended, and forecast in batches."""
    with tempfile.TemporaryDirectory() as folder:
        log = EventLog(f"{folder}/log.sqlite")
        live = LiveSequences(log, build_live_model(forecaster, max_sequences=1000), max_text=10_000)
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
    live = LiveSequences(log, build_live_model(forecaster, max_sequences=STATES), max_text=10_000)
    process = psutil.Process()
    before = process.memory_info().rss
    for start in range(0, STATES, 1000):
        names = [f"s{index}" for index in range(start, start + 1000)]
        for event in events[:3]:
            live.append([AppendRequest([{**event, "sequence": name} for name in names])])
    assert live.model.counts()["states"] == STATES
    return (process.memory_info().rss - before) / 2**30


def main() -> int:
    """Run all parts and write their section of the page; returns the exit status."""
    model, events = expert_and_events()
    found = {name: loads(model, events, haproxy) for name, haproxy in LAYOUTS.items()}
    forecaster = Forecaster.from_pretrained(model)
    rate, gib = in_process(forecaster, events), gib_of_states(forecaster, events)
    best = found["HAProxy"]
    names = list(best["figures"])
    rows = [
        f"| {name} | " + " | ".join(found[layout]["figures"][name] for layout in LAYOUTS) + " |"
        for name in names
    ]
    on = machine("ray", "fastapi", "torch", used="shared by clients and service")
    text = "\n".join(
        [
            "# Live forecasts",
            "",
            f"`python -m benchmarks.serving`; {on}. An expert trained on danmaku, in one process; "
            f"{len(events):,} comments on one video of the test split, replayed under many names; "
            "every event is appended, and its sequence forecast. "
            f"Floors: {RATE:,.0f} events per second with p99 below {MAX_P99_MS:g} ms; {STATES:,} "
            f"states in less than {MAX_GIB:g} GiB.",
            "",
            f"| | {' | '.join(LAYOUTS)} |",
            "|---|---|---|",
            *rows,
            "",
            "| | |",
            "|---|---|",
            f"| states of {STATES:,} sequences, GiB | **{gib:.2f}** |",
            f"| events per CPU second without a server, {BATCH} at once | {rate:,.0f} |",
            "",
        ]
    )
    is_kept = best["rate"] >= 0.98 * RATE and best["p99_ms"] < MAX_P99_MS
    checks = {"events per second": is_kept, "memory of states": gib < MAX_GIB}
    return finish_section(text, RESULT, [name for name, holds in checks.items() if not holds])


if __name__ == "__main__":
    sys.exit(main())
