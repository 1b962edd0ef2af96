"""Speed and memory of ``prepare`` where the events of a sequence lie in a file for each day.

    python -m benchmarks.joined_files              2 M and 10 M events
    python -m benchmarks.joined_files EVENTS       EVENTS in place of 2 M, and five times as many

The same events are prepared from files of whole sequences and from files of days, with two
processes and a real S3 server. Writes ``joined_files.md``; fails if a requirement is missed.
"""

import os

os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray reads it on import

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import ray

from benchmarks.measure import finish, machine
from benchmarks.prepare import ResourceWatch, connect, in_new_process
from benchmarks.stack import own_stack
from mmtpp.config.load import config_from_tree
from mmtpp.data.prepare import prepare
from mmtpp.storage.manifest import load_manifest
from mmtpp.storage.paths import join, write_bytes

BUCKET = "s3://mmtpp/joined"
NUM_EVENTS, LARGER = 2_000_000, 5
NUM_DAYS, EVENTS_PER_USER, NUM_TEXTS = 30, 200, 2000
MIN_SPEED, MAX_MEMORY = 0.6, 1.2
RESULT = Path(__file__).with_name("joined_files.md")


@dataclass(frozen=True, slots=True)
class Run:
    """One preparation.

    Attributes:
        events: Number of events.
        seconds: Its duration.
        peak: Largest private memory of the driver and the workers together, in bytes.
        worker_cpu: CPU seconds of the workers.
    """

    events: int
    seconds: float
    peak: int
    worker_cpu: float

    @property
    def speed(self) -> float:
        """Events per second."""
        return self.events / self.seconds


def publish(folder: str, num_events: int, *, num_users: int, by_day: bool) -> None:
    """Write the events of users as CSV, in a file for each day or for each group of users.

    Files have the same size in all runs: ``LARGER`` times the events are in as many times the
    files.
    """
    for index, frame in enumerate(_frames(num_events, num_users=num_users, by_day=by_day)):
        write_bytes(join(folder, f"{index:05d}.csv"), frame.to_csv(index=False).encode())


def _frames(num_events: int, *, num_users: int, by_day: bool) -> Iterator[pd.DataFrame]:
    draw = np.random.default_rng(0)
    num_files = max(1, NUM_DAYS * num_events // NUM_EVENTS)
    frame = pd.DataFrame(
        {
            "user": draw.integers(0, num_users, num_events),
            "time": np.sort(draw.integers(0, 86_400 * num_files, num_events)),
            "kind": draw.integers(0, 20, num_events),
            "text": draw.integers(0, NUM_TEXTS, num_events),
        }
    )
    frame["text"] = "a text about the event number " + frame["text"].astype(str)
    file = frame["time"] // 86_400 if by_day else frame["user"] % num_files
    for _, part in frame.groupby(file):
        yield part


def measure(source: str, store: str, partitioning: str) -> Run:
    """Prepare a store in a new process."""
    connect()
    config = config_from_tree(
        {
            "source": {
                "uri": source,
                "kind": "columns",
                "columns": {"time": "time", "sequence": "user", "type": "kind", "text": "text"},
                "partitioning": partitioning,
                "max_processes": 2,
            },
            "store": {"uri": store},
            "model": {"tokenizer_size": 1000},
        }
    )
    watch, started = ResourceWatch(), time.perf_counter()
    watch.start()
    prepare(config)
    seconds = time.perf_counter() - started
    worker_cpu, _ = watch.stop()
    events = load_manifest(store).events_kept
    ray.shutdown()
    return Run(events, seconds, peak=max(watch.memory), worker_cpu=worker_cpu)


def main(num_events: int) -> int:
    """Run the benchmark, write its table and check the requirements."""
    runs: dict[str, Run] = {}
    published: set[str] = set()
    with own_stack():
        for name, size, users, by_day, partitioning in (
            ("whole sequences", num_events, 0, False, "file"),
            ("days", num_events, 0, True, "sequence"),
            ("days, found by itself", num_events, 0, True, "auto"),
            ("days, five times as many", LARGER * num_events, 0, True, "sequence"),
            ("days, one sequence", num_events, 1, True, "sequence"),
        ):
            folder = f"{BUCKET}/{size}-{users}-{by_day}"
            num_users = users or size // EVENTS_PER_USER
            if folder not in published:
                publish(folder, size, num_users=num_users, by_day=by_day)
                published.add(folder)
            store = f"{BUCKET}/store-{len(runs)}"
            runs[name] = in_new_process(measure, folder, store, partitioning)
            print(name, runs[name], flush=True)
    text, missed = report(runs)
    return finish(text, RESULT, missed)


def report(runs: dict[str, Run]) -> tuple[str, list[str]]:
    """The table of the runs, and the requirements that are not met."""
    whole, days = runs["whole sequences"], runs["days"]
    speed = days.speed / whole.speed
    memory = runs["days, five times as many"].peak / days.peak
    lines = [
        "# Sequences that several files hold",
        "",
        f"`python -m benchmarks.joined_files`: events of users with {EVENTS_PER_USER} events each, "
        "as CSV files on an S3 server of the same machine, with two processes. Required of the "
        f"days: at least {MIN_SPEED:g} of the events per second of whole sequences, and with "
        f"{LARGER} times the events at most {MAX_MEMORY:g} times the memory. *Found by itself* is "
        "`source.partitioning = auto`, which first reads some files as whole sequences. *One "
        "sequence* has all events in one sequence, which one process joins in memory.",
        "",
        f"{machine('ray', 'pyarrow', 'obstore', used='shared with the server')}. One run each.",
        "",
        "| files of | events | s | events/s | relative | peak MiB | relative | CPU s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {run.events:,} | {run.seconds:.0f} | {run.speed:,.0f} | "
        f"{run.speed / whole.speed:.2f} | {run.peak / 2**20:,.0f} | {run.peak / days.peak:.2f} | "
        f"{run.worker_cpu:.0f} |"
        for name, run in runs.items()
    ]
    missed = []
    if speed < MIN_SPEED:
        missed.append(f"days have {speed:.2f} of the speed of whole sequences, not {MIN_SPEED:g}")
    if memory > MAX_MEMORY:
        missed.append(f"{LARGER} times the events need {memory:.2f} times the memory")
    return "\n".join([*lines, ""]), missed


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else NUM_EVENTS))
