"""Speed of the temporal expert's forecasts, compared with an earlier version in the same run.

    python -m benchmarks.expert_forecasts --before CHECKOUT

CHECKOUT is a folder with an earlier version of this repository. An expert of three networks is
trained on each data set by this version, and both versions forecast the same test sequences with
it, in alternation. Needs MMTPP_TEST_DATA.
"""

import os

os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray reads it on import

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.measure import finish, machine
from benchmarks.peers.bench import markdown_table
from benchmarks.peers.evaluation_rows import evaluation_config
from benchmarks.quality.expert_trial import train_expert
from benchmarks.quality.results import BUDGET
from benchmarks.quality.run import WORK, prepare_set
from benchmarks.quality.sets import data_sets
from mmtpp.model.folders.record import write_tasks

HERE = Path(__file__)
RESULT = HERE.with_suffix(".md")
NUM_TEST = {"earthquake": 100, "danmaku": 4, "taxi": 0}  # tested sequences; 0 for all
NUM_NETWORKS = (3, 1)
QUESTIONS = ("whole distributions", "likelihoods alone")
VERSIONS = ("before", "now")
Trials = dict[str, list[dict[str, Any]]]  # results by version


def train(name: str, steps: int) -> Path:
    """Train an expert, or find the trained one; returns its folder."""
    folder = WORK / "expert_forecasts" / f"{name}_{steps}"
    prepare_set(data_sets(WORK)[name], BUDGET)
    if not (folder / "tokenizer.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        trained = train_expert(evaluation_config(name, 0), seed=0, max_steps=steps)
        trained.expert.save(folder)
        write_tasks(trained.inputs.trained_tasks, folder)
        (folder / "tokenizer.json").write_text("{}", encoding="utf-8")  # complete; texts are read
    return folder


def measure(checkout: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Run a trial with the version of a checkout, in a process of its own."""
    script = HERE.with_name("expert_forecasts_trial.py")
    done = subprocess.run(
        [sys.executable, "-P", str(script), json.dumps(arguments)],
        env=os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def speed_lines(name: str, networks: int, trials: Trials) -> list[tuple[str, ...]]:
    """Rows of the table of speeds."""
    rows = []
    for question in QUESTIONS:
        rates = {
            version: [trial[question]["targets_per_cpu_s"] for trial in trials[version]]
            for version in VERSIONS
        }
        ratios = [now / before for before, now in zip(*rates.values(), strict=True)]
        figures = [
            f"{statistics.median(r):,.0f} [{min(r):,.0f}-{max(r):,.0f}]" for r in rates.values()
        ]
        span = f"**{statistics.median(ratios):.2f}** [{min(ratios):.2f}-{max(ratios):.2f}]"
        targets = f"{trials['now'][0]['targets']:,}"
        rows.append((name, targets, str(networks), question, *figures, span))
    return rows


def metric_lines(name: str, trials: Trials) -> list[tuple[str, ...]]:
    """Rows of the table of metrics that differ between the versions."""
    before, now = (trials[version][0]["metrics"] for version in VERSIONS)
    return [
        (name, metric, f"{before[metric]:.6g}", f"{value:.6g}")
        for metric, value in now.items()
        if f"{value:.6g}" != f"{before[metric]:.6g}"
    ]


def main() -> int:
    """Measure, print and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, required=True, help="checkout of an earlier version")
    parser.add_argument("--sets", default=",".join(NUM_TEST), help="data sets, separated by commas")
    parser.add_argument("--steps", type=int, default=800, help="updates of a network")
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    checkouts = {"before": arguments.before.absolute(), "now": HERE.absolute().parents[1]}
    speeds, metrics = [], []
    for name in arguments.sets.split(","):
        folder = train(name, arguments.steps)
        for networks in NUM_NETWORKS:
            wanted = {
                "set_name": name,
                "folder": str(folder),
                "num_test": NUM_TEST[name],
                "networks": networks,
            }
            trials: Trials = {version: [] for version in VERSIONS}
            for _ in range(arguments.repetitions):
                for version, checkout in checkouts.items():
                    trials[version].append(measure(checkout, wanted))
            speeds += speed_lines(name, networks, trials)
            if networks == NUM_NETWORKS[0]:
                metrics += metric_lines(name, trials)
    head = ("data", "targets", "networks", "question", *VERSIONS, "ratio")
    lines = [
        "# Forecasts of the temporal expert",
        "",
        f"`python -m benchmarks.expert_forecasts --before CHECKOUT --sets {arguments.sets}`; "
        f"{machine('torch', 'numpy')}. Targets per CPU second of one thread, median [range] of "
        f"{arguments.repetitions} repetitions in alternation. *Whole distributions* is the table "
        "of targets that `evaluate` writes, from the memory of the past to quantiles, CRPS and "
        "types; *likelihoods alone* is the NLL of time and type. Networks of width 64 and "
        f"{arguments.steps} updates.",
        "",
        *markdown_table(head, speeds),
        "",
        "Metrics of three networks that differ in six digits:",
        "",
        *markdown_table(("data", "metric", *VERSIONS), metrics),
        "",
    ]
    return finish("\n".join(lines), RESULT)


if __name__ == "__main__":
    sys.exit(main())
