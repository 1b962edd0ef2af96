"""Machines that vanish, return or hang during training: the curve stays that of the whole run."""

import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import groupby

import pytest
from mlflow.tracking import MlflowClient

from benchmarks.watch import checkpoints_known
from mmtpp.storage.paths import list_files, read_bytes, write_bytes
from mmtpp.train.launch import pretrain
from tests.on_ray.curves import curve
from tests.on_ray.machines import machine
from tests.on_ray.settings import RUNS, make_config

NOTICE_S = 60  # half of what clouds give
CPUS = 3  # of a worker; the head has 4, so that the second one needs a machine of its own


def _config(name: str, **changes: object):
    return make_config(**{"run.name": name, "training.cpus_per_worker": float(CPUS), **changes})


@contextmanager
def _after_checkpoint(run: str, act: Callable[[], None]) -> Iterator[None]:
    """Do something once the run has its first checkpoint."""
    done: list[bool] = []
    failed: list[Exception] = []

    def wait() -> None:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and not done:
            if checkpoints_known(f"{RUNS}/{run}"):
                done.append(True)
                try:
                    act()
                except Exception as error:
                    failed.append(error)
            time.sleep(0.05)

    write_bytes(f"{RUNS}/{run}/.exists", b"")
    watcher = threading.Thread(target=wait)
    watcher.start()
    try:
        yield
    finally:
        done.append(True)
        watcher.join()
    assert not failed, failed


def _curve(stack, result: dict) -> dict[int, float]:
    return curve(MlflowClient(stack.mlflow_uri), result["run_id"])


def _workers(stack, result: dict) -> list[int]:
    """How many workers made each step."""
    points = MlflowClient(stack.mlflow_uri).get_metric_history(result["run_id"], "train/workers")
    return [int(point.value) for point in sorted(points, key=lambda point: point.timestamp)]


def _points_of_run(stack, name: str, metric: str) -> list:
    """What MLflow shows of a run under way."""
    client = MlflowClient(stack.mlflow_uri)
    (experiment,) = client.search_experiments(filter_string="name = 'mmtpp'")
    runs = client.search_runs([experiment.experiment_id], f"attributes.run_name = '{name}'")
    return client.get_metric_history(runs[0].info.run_id, metric) if runs else []


def _steps_of_run(stack, name: str) -> int:
    return max((point.step for point in _points_of_run(stack, name, "train/workers")), default=0)


def _workers_so_far(stack, name: str) -> set[int]:
    return {int(point.value) for point in _points_of_run(stack, name, "train/workers")}


@pytest.mark.slow
def test_a_lost_machine_shrinks_the_group(base, stack):
    """2 workers, then 1, with the batches and the losses of the uninterrupted run."""
    settings = {"training.min_workers": 1, "training.max_failures": 3}
    with machine(CPUS) as second:
        with _after_checkpoint("elastic", second.lose):
            result = pretrain(_config("elastic", **settings))
        assert result["steps"] == 12
        assert _curve(stack, base) == pytest.approx(_curve(stack, result), abs=1e-4)
        workers = _workers(stack, result)
        assert (workers[0], workers[-1]) == (2, 1)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_group_shrinks_and_grows_again(base, stack):
    """2 workers, then 1, then 2.

    Steps since the last checkpoint are made again by the next group: its losses must be those of
    the group before.
    """
    long = {
        "training.num_steps": 200,
        "training.samples_per_step": 16,
        "training.learning_rate": 1e-3,
        "training.checkpoint_every": 20,
    }
    name = "breathing"
    settings = {**long, "training.min_workers": 1, "training.max_failures": 3}
    with ExitStack() as machines:
        second = machines.enter_context(machine(CPUS))

        def lose_and_bring() -> None:
            second.lose()
            deadline = time.monotonic() + 300
            while 1 not in _workers_so_far(stack, name):
                assert time.monotonic() < deadline, "the group did not shrink"
                time.sleep(1.0)
            machines.enter_context(machine(CPUS))

        with _after_checkpoint(name, lose_and_bring):
            result = pretrain(_config(name, **settings))
    workers = _workers(stack, result)
    assert [count for count, _ in groupby(workers)] == [2, 1, 2]
    again: dict[int, list[float]] = defaultdict(list)
    for point in _points_of_run(stack, name, "train/loss_per_token"):
        again[point.step].append(point.value)
    assert set(range(1, 201)) == set(again)
    twice = [losses for losses in again.values() if len(losses) > 1]
    assert twice
    # measured 2026-11-23: 2e-7 over 17 steps that one worker had made, and two made again
    assert all(max(losses) - min(losses) < 1e-4 for losses in twice)


@pytest.mark.slow
def test_a_notice_brings_a_checkpoint_in_time(base, stack):
    """The machine is told to go long before a checkpoint is due."""
    name = "preempted"
    settings = {
        "training.min_workers": 1,
        "training.max_failures": 3,
        "training.checkpoint_every": 1000,
        "training.num_steps": 200,
    }
    with machine(CPUS) as second:
        told: list[float] = []

        def tell() -> None:
            while _steps_of_run(stack, name) < 3 or not second.workers():
                time.sleep(0.5)
            second.notice(NOTICE_S)
            told.append(time.time())
            deadline = time.monotonic() + NOTICE_S
            while time.monotonic() < deadline and not checkpoints_known(f"{RUNS}/{name}"):
                time.sleep(0.1)
            told.append(time.time())
            second.lose()

        write_bytes(f"{RUNS}/{name}/.exists", b"")
        teller = threading.Thread(target=tell)
        teller.start()
        result = pretrain(_config(name, **settings))
        teller.join()
    assert result["steps"] == 200
    assert told[1] - told[0] < NOTICE_S
    curve = _curve(stack, result)
    assert set(range(1, 201)) == set(curve)


@pytest.mark.slow
def test_a_rank_that_hangs_is_named_and_the_run_goes_on(base, stack):
    settings = {"training.hang_timeout_s": 20.0, "training.max_failures": 2}
    stopped: list[float] = []
    with machine(CPUS) as second:

        def stop() -> None:
            (worker,) = second.workers()
            worker.send_signal(signal.SIGSTOP)
            stopped.append(time.time())

        with _after_checkpoint("hung", stop):
            result = pretrain(_config("hung", **settings))
    assert result["steps"] == 12
    assert _curve(stack, base) == pytest.approx(_curve(stack, result), abs=1e-4)
    reports = list_files(f"{RUNS}/hung/hangs", ".txt")
    assert reports
    text = read_bytes(f"s3://{reports[0].path}").decode()
    reporter = int(reports[0].base_name.removesuffix(".txt").rpartition("-")[2])
    assert text.startswith(f"rank {1 - reporter} hangs: ")
    # named soon, however long the group takes to start again; 20 s from its step's beginning
    assert 10 < reports[0].mtime.timestamp() - stopped[0] < 60
