"""The cost of a cluster with many machines for its head and for the driver of a job.

    make bench-cluster      ten minutes; 24 GiB

Ray's autoscaler launches real Ray nodes on this machine, without a cloud and without a network.
The nodes share the CPUs of this machine, so the times are upper bounds of Ray's own work. To save
memory, the nodes run no dashboard agents and no idle workers, and their logs are not sent to the
driver. For each number of machines the benchmark measures: launching them, polling the cluster like
a waiting job, Ray Train with one worker per machine that only reports its start, and a preparation
whose tasks run on all machines. Writes ``clusters.md`` next to this file.
"""

import os

os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray reads it on import
os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = (
    "900"  # the default of 60 s is too short here
)

import json
import logging
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil
import ray
import ray.train
from ray.train import ScalingConfig, TrainingFailedError
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from benchmarks.fake_cloud import ROOT, autoscaled, machines_with, node_type
from benchmarks.measure import finish, machine, table
from mmtpp.config.load import config_from_tree
from mmtpp.core.errors import ClusterError
from mmtpp.data.prepare import prepare
from mmtpp.runtime.machines import ResourceDemand, has_autoscaler, machines, wait_for_machines
from mmtpp.storage.paths import write_bytes

RESULT = Path(__file__).with_suffix(".md")
SIZES = (4, 16, 64)
LOT = 8  # machines launched at a time: Ray's agents time out when many start on few CPUs
POLLS = 20
FILES = 512
SPARE_BYTES = 3 * 2**30  # free memory that the next size must leave
LABELS = {"role": "any"}
MIB = 2**20


def _report_start(arguments: dict[str, str]) -> None:
    rank = ray.train.get_context().get_world_rank()
    (Path(arguments["folder"]) / str(rank)).write_text(str(time.time()))


def _train_start(workers: int, storage: str) -> dict[str, float]:
    """Seconds of Ray Train with idle workers: until the last worker runs, and in total."""
    folder = Path(storage) / f"ranks-{workers}"
    folder.mkdir(parents=True)
    started = time.time()
    trainer = DataParallelTrainer(
        _report_start,
        train_loop_config={"folder": str(folder)},
        scaling_config=ScalingConfig(num_workers=workers, label_selector=LABELS),
        run_config=ray.train.RunConfig(name=f"start-{workers}", storage_path=storage),
    )
    trainer.fit()
    total = time.time() - started
    times = [float(path.read_text()) for path in folder.iterdir()]
    assert len(times) == workers
    return {"until all run": max(times) - started, "in all": total}


def _prepare(workers: int) -> float:
    """Seconds to prepare small files with tasks on all machines."""
    config = config_from_tree(
        {
            "source": {"kind": "mmtpp", "uri": "s3://mmtpp/scale/raw"},
            "store": {"uri": f"s3://mmtpp/scale/store-{workers}", "machine_labels": LABELS},
            "model": {"tokenizer_size": 512},
        }
    )
    started = time.monotonic()
    report = prepare(config)
    assert report["events_kept"] == 2 * FILES
    return time.monotonic() - started


def _publish() -> None:
    """Write source files of two events."""
    events = [
        {
            "time": float(index),
            "text": "x",
            "image_path": None,
            "TPP_attribute": {"event_type": 0, "time_since_last_event": 1.0},
        }
        for index in range(2)
    ]
    for index in range(FILES):
        write_bytes(f"s3://mmtpp/scale/raw/{index:06d}.json", json.dumps(events).encode())


def _gcs() -> psutil.Process:
    """The GCS process of the newest head."""
    servers = [
        process
        for process in psutil.process_iter(["name", "create_time"])
        if process.info["name"] == "gcs_server"
    ]
    return max(servers, key=lambda process: process.info["create_time"])


def measure(size: int, storage: str) -> dict[str, object]:
    """Measure one row of the table; the machines of the previous size run already."""
    before = len(machines_with())
    started = time.monotonic()
    for count in range(before + LOT, size + LOT, LOT):
        needed = ResourceDemand("machines", min(count, size), {"CPU": 1.0}, LABELS, "SIZES")
        wait_for_machines(needed, patience_s=600)
    launching = time.monotonic() - started
    polls = []
    for _ in range(POLLS):
        started = time.monotonic()
        assert size <= len(machines(LABELS))
        assert has_autoscaler()
        polls.append(time.monotonic() - started)
    start = _train_start(size, storage)
    preparing = _prepare(size)
    return {
        "machines": size,
        "launch, s per machine": f"{launching / max(1, size - before):.1f}",
        "poll of the cluster, ms": f"{1e3 * statistics.median(polls):.0f}",
        "Train: all workers run, s": f"{start['until all run']:.1f}",
        "Train: total, s": f"{start['in all']:.1f}",
        "prepare, s": f"{preparing:.1f}",
        "GCS, MiB": f"{_gcs().memory_info().rss / MIB:.0f}",
        "driver, MiB": f"{psutil.Process().memory_info().rss / MIB:.0f}",
    }


def main() -> int:
    """Measure each size that fits this machine; returns 1 if the largest did not fit."""
    largest = SIZES[-1]
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as scratch:
        # twice the number: a machine that fails to start counts as well
        types = {"any": node_type(1, LABELS, 2 * largest, is_bare=True)}
        cloud = Path(scratch) / "cloud"
        with autoscaled(cloud, types, max_machines=2 * largest, idle_minutes=30) as stack:
            os.environ.update(stack.environment())
            ray.init(
                runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}}, logging_level=logging.WARNING
            )
            try:
                _publish()
                for size in SIZES:
                    used = psutil.virtual_memory().used
                    try:
                        rows.append(measure(size, f"{scratch}/runs"))
                    except (ClusterError, TrainingFailedError) as error:
                        if not rows:
                            raise
                        print(error, file=sys.stderr)
                        break
                    print(rows[-1], flush=True)
                    taken = psutil.virtual_memory().used - used
                    growth = taken / size * (SIZES[min(len(rows), len(SIZES) - 1)] - size)
                    if psutil.virtual_memory().available - growth < SPARE_BYTES:
                        print(f"not enough memory for more than {size} machines", file=sys.stderr)
                        break
            finally:
                ray.shutdown()
    figures = {
        name: " / ".join(str(row[name]) for row in rows) for name in rows[0] if name != "machines"
    }
    sizes = " / ".join(str(row["machines"]) for row in rows)
    how = f"`make bench-cluster`, {sizes} machines; {machine('ray', used='shared by all')}."
    missed = (
        [] if rows[-1]["machines"] == largest else [f"{largest} machines did not fit this machine"]
    )
    return finish(table("Many machines", how, figures), RESULT, missed)


if __name__ == "__main__":
    sys.exit(main())
