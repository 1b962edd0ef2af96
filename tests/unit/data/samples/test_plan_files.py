"""Plans as files: what is saved is read, and processes share the memory of a large plan."""

from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmtpp.core.representation.packing import pack
from mmtpp.core.training.sample_order import Replay
from mmtpp.data.samples.plan import WINDOW_SCHEMA, Plan, load_plan, samples_table
from mmtpp.storage.cache import DiskCache

NUM_WINDOWS = 300_000  # more than one batch of rows, and a plan that is shared


@pytest.fixture(scope="module")
def plan() -> Plan:
    """Windows of 10 to 60 events and tokens, packed; a window's first event is its number."""
    numbers = np.arange(NUM_WINDOWS)
    lengths = 10 + numbers % 51
    samples = pack(lengths, max_tokens=100, seed=0)
    columns = {
        "sequence_id": [f"s{number}" for number in numbers],
        "file": ["a.parquet"] * NUM_WINDOWS,
        "start": numbers,
        "end": numbers + lengths,
        "first_scored": numbers,
        "num_tokens": lengths,
        "similar": [b"\0" * 8] * NUM_WINDOWS,
    }
    other = dict.fromkeys(set(WINDOW_SCHEMA.names) - columns.keys(), np.zeros(NUM_WINDOWS))
    windows = pa.table(columns | other).select(WINDOW_SCHEMA.names).cast(WINDOW_SCHEMA)
    return Plan(
        windows.take(pa.array(samples.windows)),
        samples.offsets,
        num_events=int(lengths.sum()),
        num_similar=0,
        fingerprint="f",
        replay=Replay(7, 3),
    )


@pytest.mark.parametrize("is_cached", [True, False])
def test_a_saved_plan_is_read(plan: Plan, tmp_path: Path, is_cached: bool):
    uri = str(tmp_path / "plan.parquet")
    plan.save(uri)
    folder = tmp_path / "cache"
    open_cache = partial(DiskCache, folder, max_bytes=10**9) if is_cached else lambda: None
    loaded = load_plan(uri, open_cache)
    assert loaded.windows.equals(plan.windows)
    assert loaded.offsets.tolist() == plan.offsets.tolist()
    assert loaded.metrics() == plan.metrics()
    assert loaded.replay == plan.replay
    assert (tmp_path / "cache").exists() == is_cached
    # the second process of the machine reads the table that the first one has written
    again = load_plan(uri, open_cache)
    assert samples_table(again, np.array([5, 0])).equals(samples_table(plan, np.array([5, 0])))


def test_the_memory_of_a_large_plan_is_shared(plan: Plan, tmp_path: Path):
    uri = str(tmp_path / "plan.parquet")
    plan.save(uri)
    open_cache = partial(DiskCache, tmp_path / "cache", max_bytes=10**9)
    load_plan(uri, open_cache)
    before = pa.total_allocated_bytes()
    loaded = load_plan(uri, open_cache)
    assert plan.windows.nbytes > 20 * 2**20
    assert pa.total_allocated_bytes() - before < 2**20
    assert loaded.windows.num_rows == NUM_WINDOWS


def test_a_small_plan_opens_no_cache(plan: Plan, tmp_path: Path):
    small = plan.with_single_windows(np.arange(10))
    small.save(str(tmp_path / "plan.parquet"))
    loaded = load_plan(str(tmp_path / "plan.parquet"), lambda: pytest.fail("it opened the cache"))
    assert loaded.windows.equals(small.windows)


def test_a_sample_has_its_windows_wherever_they_are(plan: Plan, tmp_path: Path):
    """Windows of a sample may be in two batches of the file."""
    uri = str(tmp_path / "plan.parquet")
    plan.save(uri)
    loaded = load_plan(uri, partial(DiskCache, tmp_path / "cache", max_bytes=10**9))
    assert loaded.windows["start"].num_chunks > 1
    starts = plan.windows["start"].to_numpy()
    border = int(np.searchsorted(plan.offsets, len(loaded.windows["start"].chunk(0)))) - 1
    chosen = np.array([border + 1, border, 0, plan.num_samples - 1, border])
    table = samples_table(loaded, chosen)
    assert table["sample_id"].to_pylist() == chosen.tolist()
    for sample, windows in zip(chosen, table["windows"].to_pylist(), strict=True):
        rows = slice(*plan.offsets[sample : sample + 2])
        assert [window["start"] for window in windows] == starts[rows].tolist()
        assert sum(window["num_tokens"] for window in windows) <= 100
    assert samples_table(loaded, chosen[:0]).num_rows == 0


def test_a_plan_whose_windows_are_not_sorted_is_read(plan: Plan, tmp_path: Path):
    """Earlier versions kept the windows in order of their sequences, each with its place."""
    uri = str(tmp_path / "plan.parquet")
    plan.save(uri)
    table = pq.read_table(uri)
    places = np.arange(NUM_WINDOWS) - np.repeat(plan.offsets[:-1], np.diff(plan.offsets))
    table = table.append_column("place", pa.array(places))
    shuffled = table.take(pa.array(np.random.default_rng(0).permutation(NUM_WINDOWS)))
    pq.write_table(shuffled, uri)
    loaded = load_plan(uri)
    assert loaded.windows.equals(plan.windows)
    assert loaded.offsets.tolist() == plan.offsets.tolist()


def test_a_plan_of_some_windows(plan: Plan):
    chosen = plan.with_single_windows([4, 2])
    assert chosen.num_samples == 2
    assert chosen.windows.equals(plan.windows.take([4, 2]))
    is_chosen = np.zeros(NUM_WINDOWS, dtype=np.bool_)
    is_chosen[[2, 4]] = True
    assert plan.with_single_windows(is_chosen).windows.equals(plan.windows.take([2, 4]))
    assert plan.with_single_windows([]).num_samples == 0
