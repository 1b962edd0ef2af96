"""The feed of samples to the ranks on a real cluster: the order is always that of the plan."""

import json
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import ray.train
from ray.train import TrainingFailedError
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.util.placement_group import placement_group, remove_placement_group

from mmtpp.core.errors import StorageError
from mmtpp.core.representation.row import PackedRow
from mmtpp.data.from_config import build_sample_settings
from mmtpp.data.prepared_store import store_vocabulary
from mmtpp.data.samples import feed
from mmtpp.data.samples.assemble import Assembler
from mmtpp.data.samples.feed import iter_rows, rank_samples
from mmtpp.data.samples.make_plan import make_plan
from mmtpp.data.samples.plan import Plan, load_plan, samples_table
from mmtpp.data.samples.row_table import row_from_arrow
from mmtpp.storage.filesystems import filesystem_of
from mmtpp.storage.manifest import load_manifest
from mmtpp.storage.paths import exists, list_files, read_bytes, write_bytes
from tests.helpers.job_settings import STORE, make_config

GROUP = "s3://mmtpp/t/feed"
SAMPLES_PER_STEP, NUM_STEPS = 6, 12


def _settings(**changes: object):
    config = make_config(**{"window.max_tokens": 128, **changes})
    manifest = load_manifest(STORE)
    token_ids = store_vocabulary(STORE, manifest).token_ids()
    return build_sample_settings(config.sample_sections, manifest, split="train"), token_ids


@pytest.fixture(scope="module")
def plan(store) -> Plan:
    settings, token_ids = _settings()
    plan = make_plan(settings, token_ids)
    assert plan.num_samples < SAMPLES_PER_STEP * NUM_STEPS  # steps straddle epochs
    plan.save(f"{GROUP}/plan.parquet")
    return plan


def test_planning_on_the_cluster_gives_the_same_plan(plan, monkeypatch):
    monkeypatch.setattr("mmtpp.data.samples.map_files.FILES_HERE", 0)
    monkeypatch.setattr("mmtpp.data.samples.map_files.FILES_PER_TASK", 1)
    on_cluster = make_plan(*_settings())
    assert on_cluster.windows.equals(plan.windows)
    assert on_cluster.offsets.tolist() == plan.offsets.tolist()
    assert on_cluster.fingerprint == plan.fingerprint


@pytest.mark.parametrize(("num_ranks", "chunk"), [(1, 256), (2, 5), (3, 256)])
def test_the_feed_delivers_the_plan_at_any_world_size(plan, monkeypatch, num_ranks: int, chunk):
    monkeypatch.setattr("mmtpp.data.samples.feed.CHUNK", chunk)
    settings, token_ids = _settings()
    consumed = []
    for rank in range(num_ranks):
        samples = rank_samples(
            plan,
            seed=0,
            first_step=3,
            end_step=NUM_STEPS,
            samples_per_step=SAMPLES_PER_STEP,
            rank=rank,
            num_ranks=num_ranks,
        )
        rows = list(iter_rows(plan, samples, settings, token_ids))
        assert samples.tolist() == [row.sample_id for row in rows]
        assert all(len(row.input_ids) <= 128 for row in rows)
        consumed.append(samples.reshape(NUM_STEPS - 3, -1))
    whole = rank_samples(
        plan,
        seed=0,
        first_step=0,
        end_step=NUM_STEPS,
        samples_per_step=SAMPLES_PER_STEP,
        rank=0,
        num_ranks=1,
    )
    expected = whole[3 * SAMPLES_PER_STEP :]
    assert expected.tolist() == np.concatenate(consumed, axis=1).ravel().tolist()
    for epoch in range(len(whole) // plan.num_samples):
        of_epoch = whole[epoch * plan.num_samples :][: plan.num_samples]
        assert list(range(plan.num_samples)) == sorted(of_epoch.tolist())


def test_errors_of_a_task_are_those_of_the_store(plan):
    settings, token_ids = _settings()
    store = replace(settings.store, data_uri="s3://mmtpp/t/no_such_store")
    rows = feed._start_task(plan, np.arange(2), replace(settings, store=store), token_ids)
    with pytest.raises(StorageError, match="no_such_store"):
        list(rows)


@pytest.mark.timeout(120)
def test_rows_are_assembled_while_workers_hold_all_cpus(plan):
    """A sweep fills the machine with trials; assembling must not wait for the end of a trial."""
    settings, token_ids = _settings()
    all_cpus = [{"CPU": node["Resources"]["CPU"]} for node in ray.nodes() if node["Alive"]]
    held = placement_group(all_cpus)
    try:
        ray.get(held.ready())
        rows = list(iter_rows(plan, np.arange(plan.num_samples), settings, token_ids))
        assert len(rows) == plan.num_samples
    finally:
        remove_placement_group(held)


def _same(first: PackedRow, second: PackedRow) -> bool:
    names = [name for name in PackedRow.__slots__ if name != "sample_id"]
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in names)


def test_rows_are_equal_from_memory_disk_and_server(plan, tmp_path):
    """Also with a disk cache that is too small for the files."""
    rows = {}
    changes = [{"store.cache_gib": 0.0}] + 2 * [
        {"store.cache_gib": size, "store.cache_path": str(tmp_path / str(size))}
        for size in (1.0, 1e-5)
    ]
    for index, change in enumerate(changes):
        settings, token_ids = _settings(**change)
        assembler, samples = (
            Assembler(settings, token_ids),
            samples_table(plan, np.arange(plan.num_samples)),
        )
        table = assembler(samples)
        assert table.equals(assembler(samples))  # now from memory
        rows[index] = [row_from_arrow(table, i, image_px=56) for i in range(len(table))]
    assert len(list((tmp_path / "1.0/tables").iterdir())) >= 2
    assert sum(path.stat().st_size for path in (tmp_path / "1e-05/tables").iterdir()) < 10**6
    for index in range(1, len(changes)):
        assert all(map(_same, rows[0], rows[index]))


def _consume(task: dict) -> None:
    """A worker that records its rows instead of training, and kills itself at a given step."""
    rank = ray.train.get_context().get_world_rank()
    num_ranks = ray.train.get_context().get_world_size()
    cursor = f"{GROUP}/{task['name']}/cursor.json"
    step = json.loads(read_bytes(cursor))["step"] if exists(cursor) else 0
    plan = load_plan(f"{GROUP}/plan.parquet")
    settings, token_ids = _settings()
    samples = rank_samples(
        plan,
        seed=0,
        first_step=step,
        end_step=NUM_STEPS,
        samples_per_step=SAMPLES_PER_STEP,
        rank=rank,
        num_ranks=num_ranks,
    )
    rows = iter_rows(plan, samples, settings, token_ids)
    while step < NUM_STEPS:
        if step == task["die_at"] and rank == num_ranks - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        fed = [next(rows) for _ in range(SAMPLES_PER_STEP // num_ranks)]
        record = [[row.sample_id, int(row.input_ids.sum())] for row in fed]
        write_bytes(
            f"{GROUP}/{task['name']}/{step:03d}/{num_ranks}-{rank}", json.dumps(record).encode()
        )
        step += 1
        ray.train.report({"step": step})  # a barrier
        if step % 2 == 0 and rank == 0:
            write_bytes(cursor, json.dumps({"step": step}).encode())


def _train(name: str, *, num_ranks: int, die_at: int) -> None:
    filesystem, path = filesystem_of("s3://mmtpp/t/feed-runs")
    trainer = DataParallelTrainer(
        _consume,
        train_loop_config={"name": name, "die_at": die_at},
        scaling_config=ray.train.ScalingConfig(num_workers=num_ranks),
        run_config=ray.train.RunConfig(
            name=f"{name}-{num_ranks}", storage_path=path, storage_filesystem=filesystem
        ),
    )
    if die_at < NUM_STEPS:
        with pytest.raises(TrainingFailedError):
            trainer.fit()
    else:
        trainer.fit()


def _recorded(name: str) -> list[list[list[int]]]:
    """The rows of each step in the order of the ranks; a repeated step counts once."""
    steps: dict[str, dict[str, dict[int, list]]] = {}
    for info in list_files(f"{GROUP}/{name}", ""):
        if "-" in info.base_name:
            num_ranks, rank = info.base_name.split("-")
            step = info.path.split("/")[-2]
            steps.setdefault(step, {}).setdefault(num_ranks, {})[int(rank)] = json.loads(
                read_bytes(f"s3://{info.path}")
            )
    fed = []
    for _, groups in sorted(steps.items()):
        whole = {
            num_ranks: [pair for _, part in sorted(parts.items()) for pair in part]
            for num_ranks, parts in groups.items()
            if len(parts) == int(num_ranks)  # a killed group may have an incomplete step
        }
        assert len({json.dumps(part) for part in whole.values()}) == 1, "a repeated step differs"
        fed.append(next(iter(whole.values())))
    return fed


@pytest.mark.slow
def test_a_run_resumed_with_2_3_and_1_workers_gets_the_rows_of_an_uninterrupted_run(plan):
    _train("whole", num_ranks=1, die_at=NUM_STEPS)
    _train("killed", num_ranks=2, die_at=5)
    _train("killed", num_ranks=3, die_at=9)
    _train("killed", num_ranks=1, die_at=NUM_STEPS)
    whole, killed = _recorded("whole"), _recorded("killed")
    assert len(whole) == NUM_STEPS
    assert killed == whole
    ids = [sample for step in whole for sample, _ in step]
    expected = rank_samples(
        plan,
        seed=0,
        first_step=0,
        end_step=NUM_STEPS,
        samples_per_step=SAMPLES_PER_STEP,
        rank=0,
        num_ranks=1,
    )
    assert ids == expected.tolist()
