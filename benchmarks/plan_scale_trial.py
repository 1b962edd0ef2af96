"""Measurements of one plan, each in a process of its own: see ``plan_scale.py``."""

import os

os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray reads it on import

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.peers.measured_process import peak_mib, run_as_trial
from mmtpp.data.samples.feed import FIRST_CHUNK, SAMPLES_PER_BLOCK, rank_samples
from mmtpp.data.samples.make_plan import plan_windows
from mmtpp.data.samples.plan import load_plan, samples_table
from mmtpp.data.samples.sequence_windows import PLAN_SCHEMA
from mmtpp.storage.cache import DiskCache

EVENTS_PER_WINDOW, WINDOWS_PER_SEQUENCE = 50, 4
MAX_TOKENS = 2048
_WINDOWS_PER_TASK = 10**6
_STEPS, _SAMPLES_PER_STEP, _NUM_RANKS = 1000, 64, 8
MIB = 2**20


def run(part: str, **arguments: object) -> dict[str, float]:
    """Measure one part: ``make`` or ``load``."""
    return {"make": make, "load": load}[part](**arguments)  # pyright: ignore[reportArgumentType]


def make(uri: str, num_windows: int) -> dict[str, float]:
    """Make and save a plan of windows, as the driver does."""
    table = pa.concat_tables(task_tables(num_windows)).combine_chunks()
    started = time.perf_counter()
    plan = plan_windows(table, "f", max_tokens=MAX_TOKENS)
    planned = time.perf_counter()
    plan.save(uri)
    return {
        "windows_mib": table.nbytes / MIB,
        "peak_mib": peak_mib(),
        "plan_s": planned - started,
        "save_s": time.perf_counter() - planned,
        "file_mib": Path(uri).stat().st_size / MIB,
        "samples": float(plan.num_samples),
    }


def load(uri: str, cache: str) -> dict[str, float]:
    """Load a plan and find the first samples, as a worker does."""
    _load_libraries(f"{cache}.small.parquet")
    before, started = private_mib(), time.perf_counter()
    plan = load_plan(uri, lambda: DiskCache(Path(cache), max_bytes=20 * 2**30))
    loaded = time.perf_counter()
    after = private_mib()
    samples = rank_samples(
        plan,
        seed=0,
        first_step=0,
        end_step=_STEPS,
        samples_per_step=_SAMPLES_PER_STEP,
        rank=0,
        num_ranks=_NUM_RANKS,
    )
    ordered = time.perf_counter()
    for start in range(0, FIRST_CHUNK, SAMPLES_PER_BLOCK):
        samples_table(plan, samples[start : start + SAMPLES_PER_BLOCK])
    return {
        "load_s": loaded - started,
        "order_s": ordered - loaded,
        "first_samples_ms": (time.perf_counter() - ordered) * 1e3,
        "plan_mib": after - before,
        "order_mib": private_mib() - after,
        "peak_mib": peak_mib() - before,
    }


def _load_libraries(uri: str) -> None:
    """Load a small plan, so that the memory of libraries is not that of the plan."""
    (table,) = task_tables(1)
    plan_windows(table, "f", max_tokens=MAX_TOKENS).save(uri)
    samples_table(load_plan(uri), np.zeros(1, dtype=np.int64))


def task_tables(num_windows: int) -> Iterator[pa.Table]:
    """Tables of windows, ``PLAN_SCHEMA``, as the tasks that cut sequences return them."""
    rng = np.random.default_rng(0)
    for first in range(0, num_windows, _WINDOWS_PER_TASK):
        number = np.arange(first, min(first + _WINDOWS_PER_TASK, num_windows))
        place = number % WINDOWS_PER_SEQUENCE * EVENTS_PER_WINDOW
        tokens = rng.integers(MAX_TOKENS // 10, MAX_TOKENS // 2, len(number))
        columns = {
            "sequence_id": _names("video_", number // WINDOWS_PER_SEQUENCE, ""),
            "file": _names("data/part-", number // 2000, ".parquet"),
            "start": place,
            "end": place + EVENTS_PER_WINDOW,
            "first_scored": place,
            "num_tokens": tokens,
            "similar": pa.array([bytes(-(-EVENTS_PER_WINDOW // 8))]).take([0] * len(number)),
            "num_events": np.full(len(number), EVENTS_PER_WINDOW),
            "longest_text": pa.nulls(len(number), pa.int32()),
            "long_texts": pa.nulls(len(number), pa.string()),
            "problem": pa.nulls(len(number), pa.string()),
        }
        zeros = dict.fromkeys(set(PLAN_SCHEMA.names) - columns.keys(), np.zeros(len(number)))
        yield pa.table(columns | zeros).select(PLAN_SCHEMA.names).cast(PLAN_SCHEMA)


def _names(prefix: str, numbers: np.ndarray, suffix: str) -> pa.Array:
    return pa.array(np.char.mod(f"{prefix}%010d{suffix}", numbers))


def private_mib() -> float:
    """Memory of this process that no other process shares, in MiB."""
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private")) / 1024


if __name__ == "__main__":
    run_as_trial(run)
