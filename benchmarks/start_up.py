"""Seconds from the command of a training to its first update, by part, and after a SIGKILL.

    make bench-start-up        a quarter of an hour

Each round starts a cluster on this machine and runs the same small training several times: first on
the cluster that has just started, then again, then through ``ray job submit``, then with one
worker, then with a worker that is killed. A training reports the parts of its start-up itself
(``mmtpp/runtime/start_up.py``); the part before its job begins, interpreter and imports, is the
rest of the time since the command. Imports are measured in processes of their own, in CPU seconds.
Prints tables and, with all cases, writes them to ``start_up.md`` next to this file.

    python -m benchmarks.start_up --cases warm killed        only these two cases
    python -m benchmarks.start_up --cases                    only the imports; a minute
"""

import os

os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray reads it on import

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from mlflow.tracking import MlflowClient

from benchmarks.measure import finish, machine
from benchmarks.peers.measured_process import Meter, num_cores
from benchmarks.stack import own_stack
from benchmarks.watch import WorkerWatch
from cluster.services import Stack
from mmtpp.data.prepare import prepare
from mmtpp.storage.paths import write_bytes
from mmtpp.sweep.best_config import as_toml
from tests.helpers.job_settings import RUNS, SOURCE, make_config
from tests.helpers.published_events import publish_events

JOB = "jobs/pretrain.py"
CHANGES = {"training.checkpoint_every": 20, "training.max_failures": 2}
RESULT = Path(__file__).with_name("start_up.md")
PREFIX = "start_up/"
KILL = "killed"
RAY, RAY_WORKER, LOOP = "Ray", "Ray and the worker of Ray Train", "all that a worker imports"
IMPORTS = {
    RAY: "import ray",
    RAY_WORKER: "import ray.train.v2._internal.execution.worker_group.worker",
    "what a driver imports before the workers start": "import mmtpp.train.launch",
    "MLflow, beside other work": "import mlflow.tracking",
    LOOP: "from mmtpp.compat.deepspeed_hooks import import_without_mlflow; "
    "import_without_mlflow(); import mmtpp.train.loop",
}
CPU_OF_IMPORT = """
import resource
from mmtpp.runtime.fast_imports import fast_imports
with fast_imports():
    {}
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_utime + used.ru_stime)
"""
MANY_WORKERS = 64


@dataclass(frozen=True, slots=True)
class Case:
    """One way to start the training.

    Attributes:
        title: Title of its column.
        num_workers: Number of workers.
        is_submitted: Whether ``ray job submit`` starts it.
        num_steps: Number of updates.
    """

    title: str
    num_workers: int = 2
    is_submitted: bool = False
    num_steps: int = 4


CASES = {
    "cold": Case("two workers, cluster just started"),
    "warm": Case("two workers"),
    "submitted": Case("two workers, `ray job submit`", is_submitted=True),
    "one": Case("one worker", num_workers=1),
    KILL: Case("two workers, one killed", num_steps=60),
}


def train(case: Case, run: str, settings: Path, stack: Stack) -> dict[str, float]:
    """Seconds of the parts of a training's start-up, and the CPU seconds of the whole training.

    Args:
        case: How to start it.
        run: Name of the run.
        settings: File of the settings.
        stack: Cluster that runs it.
    """
    command = [sys.executable, JOB, "--config", str(settings)]
    command += ["--set", f"run.name={run}", "--set", f"training.num_workers={case.num_workers}"]
    command += ["--set", f"training.num_steps={case.num_steps}"]
    if case.is_submitted:
        ray = str(Path(sys.executable).with_name("ray"))
        command = [ray, "job", "submit", "--working-dir", ".", "--", "python", *command[1:]]
    head = int((stack.home / "ray.pid").read_text().split()[0])
    meter, started = Meter((head,)), time.time()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    cpu_s, seconds = meter.cpu_s, time.time() - started
    client = MlflowClient(stack.mlflow_uri)
    run_id = find_run(client, run)
    metrics = client.get_run(run_id).data.metrics
    parts = {
        name.removeprefix(PREFIX).removesuffix("_s"): client.get_metric_history(run_id, name)[0]
        for name in metrics
        if name.startswith(PREFIX)
    }
    total = parts.pop("total")
    values = {name: point.value for name, point in parts.items()}
    first_update = total.timestamp / 1000 - started
    return {
        "to the first update": first_update,
        "before the job": first_update - total.value,
        **values,
        "whole command": seconds,
        "CPU seconds": cpu_s,
    }


def find_run(client: MlflowClient, run: str) -> str:
    """Id of the only MLflow run with a name."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    (found,) = client.search_runs(experiments, f"attributes.run_name = '{run}'")
    return found.info.run_id


def killed(run: str, settings: Path, stack: Stack) -> dict[str, float]:
    """Seconds from SIGKILL of a worker to the next update, and the parts of the worker's start.

    Args:
        run: Name of the run.
        settings: File of the settings.
        stack: Cluster that runs it.
    """
    write_bytes(f"{RUNS}/{run}/.exists", b"")
    watch = WorkerWatch(f"{RUNS}/{run}", checkpoints=1)
    watch.start()
    try:
        train(CASES[KILL], run, settings, stack)
    finally:
        watch.end()
    assert watch.killed_at is not None, "no worker was killed"
    client = MlflowClient(stack.mlflow_uri)
    run_id = find_run(client, run)
    history = client.get_metric_history(run_id, "train/loss_per_token")
    times = sorted(point.timestamp / 1000 for point in history)
    # the last update before the kill may be logged after it; the longest pause is the restart
    _, resumed = max(pairwise(times), key=lambda pair: pair[1] - pair[0])
    names = [name for name in client.get_run(run_id).data.metrics if name.startswith(PREFIX)]
    histories = {name: client.get_metric_history(run_id, name) for name in names}
    parts = {
        name.removeprefix(PREFIX).removesuffix("_s"): points[-1].value
        for name, points in histories.items()
        if points[-1].step > 1
    }
    total = parts.pop("total")
    restart = resumed - watch.killed_at
    return {"to the next update": restart, "until the new process": restart - total, **parts}


def measure(cases: Sequence[str], rounds: int) -> dict[str, list[dict[str, float]]]:
    """Seconds of some cases in every round, by the name of the case."""
    results: dict[str, list[dict[str, float]]] = {name: [] for name in cases}
    home = Path(tempfile.mkdtemp())
    try:
        settings = home / "settings.toml"
        for number in range(rounds + 1 if cases else 0):
            with own_stack(home) as stack:
                config = make_config(**CHANGES)  # with the addresses of this stack
                settings.write_text(as_toml(config, JOB))
                if number == 0:  # the store is prepared on a cluster of its own
                    publish_events(SOURCE)
                    prepare(config)
                    continue
                for name in cases:
                    run = f"{name}-{number}"
                    if name == KILL:
                        result = killed(run, settings, stack)
                    else:
                        result = train(CASES[name], run, settings, stack)
                    print(
                        run, {part: round(value, 2) for part, value in result.items()}, flush=True
                    )
                    results[name].append(result)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    return results


def measure_imports(rounds: int) -> dict[str, list[float]]:
    """CPU seconds of new processes that only import something."""
    seconds: dict[str, list[float]] = {name: [] for name in IMPORTS}
    for _ in range(rounds):
        for name, code in IMPORTS.items():
            program = CPU_OF_IMPORT.format(code)
            command = [sys.executable, "-c", program]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            seconds[name].append(float(output.splitlines()[-1]))
    return seconds


def imports_section(seconds: Mapping[str, list[float]]) -> list[str]:
    """Markdown of the imports, and what they mean for many workers on this machine."""
    ray, bare, whole = (statistics.median(seconds[name]) for name in (RAY, RAY_WORKER, LOOP))
    cores = os.cpu_count() or 1
    least, training = (MANY_WORKERS * (ray + worker) / cores for worker in (bare, whole))
    rows = [f"| {name} | {_spread(values, digits=2)} |" for name, values in seconds.items()]
    return [
        "## Imports",
        "",
        "CPU seconds of a new process.",
        "",
        "| | |",
        "|---|---|",
        *rows,
        "",
        "Ray starts a worker with a runtime environment in two interpreters, both of which import "
        f"Ray. So {MANY_WORKERS} workers of Ray Train on the {cores} cores of this machine need at "
        f"least {MANY_WORKERS} x ({ray:.2f} + {bare:.2f}) / {cores} = {least:.0f} s before they "
        f"call any function, and {MANY_WORKERS} workers of a training {training:.0f} s before they "
        "build a model, if nothing else runs. On separate machines they start in parallel.",
        "",
    ]


def as_table(results: Mapping[str, list[dict[str, float]]]) -> list[str]:
    """Lines of a Markdown table with a row of each part and a column of each case."""
    rows = list(dict.fromkeys(part for rounds in results.values() for part in rounds[0]))
    lines = ["| | " + " | ".join(CASES[name].title for name in results) + " |"]
    lines += ["|---" * (1 + len(results)) + "|"]
    for row in rows:
        cells = [
            _spread([round_[row] for round_ in rounds if row in round_])
            for rounds in results.values()
        ]
        lines.append(f"| {row.replace('_', ' ')} | " + " | ".join(cells) + " |")
    return lines


def _spread(values: list[float], *, digits: int = 1) -> str:
    if not values:
        return ""
    numbers = (statistics.median(values), min(values), max(values))
    middle, low, high = (f"{number:.{digits}f}" for number in numbers)
    return f"{middle} [{low}-{high}]"


def main() -> int:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description="Measure the start-up of a training.")
    parser.add_argument("--rounds", type=int, default=3, help="number of runs of every case")
    parser.add_argument("--cases", nargs="*", choices=[*CASES], default=[*CASES])
    options = parser.parse_args()
    imports = measure_imports(options.rounds)
    results = measure(options.cases, options.rounds)
    starts = {name: rounds for name, rounds in results.items() if name != KILL}
    # with other work on these cores, the CPU seconds say more than the seconds
    load = f"{num_cores()} used, with {os.getloadavg()[2]:.0f} processes ready to run in the mean"
    described = machine("ray", "torch", "deepspeed", used=load)
    lines = [
        "# Start-up",
        "",
        f"`python -m benchmarks.start_up --rounds {options.rounds} --cases "
        f"{' '.join(options.cases)}`; {described}; seconds, median [range]. The tiny model on 24 "
        "short sequences with images.",
        "",
    ]
    if starts:
        lines += [*as_table(starts), ""]
    if KILL in results:
        lines += ["## After SIGKILL of a worker", "", *as_table({KILL: results[KILL]}), ""]
    lines += imports_section(imports)
    report = "\n".join(lines)
    if set(options.cases) != set(CASES):  # the page has all cases
        print(report)
        return 0
    return finish(report, RESULT)


if __name__ == "__main__":
    sys.exit(main())
