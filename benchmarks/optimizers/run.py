"""Optimisers and low precision compared with the theory.

    make bench-optimizers    two hours; resumes where it stopped

(a) A linear model of several classes: how close mini-batch steepest descent comes to the largest
margin (``margins``). (b) The tiny model on real data: loss of every optimiser by learning rate and
by mantissa bits (``training``). Finished trials are stored in ``results.jsonl`` next to this file
and not repeated; remove the file to start again.
"""

import argparse
import json
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_AUTH_MODE", "token")

from benchmarks.optimizers import margins, training
from benchmarks.optimizers.report import write_report
from benchmarks.quality.sets import DATA, data_sets
from benchmarks.quality.trial import start_engine
from mmtpp.data.prepare import prepare

HERE = Path(__file__).parent
WORK = Path(os.environ.get("MMTPP_HOME", ".mmtpp")).absolute() / "optimizers"
SETS = ("flights", "danmaku")

Trial = dict[str, Any]


def trials_of(sets: Sequence[str], seeds: Sequence[int]) -> list[Trial]:
    """All trials, seed by seed, so that the first results are useful early."""
    trials: list[Trial] = [{"kind": "counterexample", "norm": norm} for norm in margins.EXAMPLES]
    for seed in seeds:
        trials += [{"kind": "margins", "norm": norm, "seed": seed} for norm in margins.NORMS]
        trials += [
            {"kind": "training", "set": name, "seed": seed, "changes": changes}
            for changes in training.trials()
            for name in sets
        ]
    return trials


def run_trial(trial: Trial) -> Any:
    """Run a trial in this process and return its results."""
    if trial["kind"] == "counterexample":
        return margins.run_counterexample(trial["norm"])
    if trial["kind"] == "margins":
        return margins.compare(trial["seed"], trial["norm"])
    data = data_sets(WORK)[trial["set"]]
    return training.run(data, _store(trial["set"]), trial["changes"], trial["seed"])


def _store(name: str) -> str:
    return str(WORK / f"{name}_store")


def run(trials: Sequence[Trial], path: Path, *, workers: int) -> None:
    """Run the unfinished trials, one core per trial, and append each result to ``path``."""
    WORK.mkdir(parents=True, exist_ok=True)
    lines = path.read_text().splitlines() if path.exists() else []
    done = [json.loads(line)["trial"] for line in lines]
    remaining = [trial for trial in trials if trial not in done]
    for name in sorted({trial["set"] for trial in remaining if "set" in trial}):
        prepare(training.configuration(data_sets(WORK)[name], _store(name)))
    print(f"{len(remaining)} of {len(trials)} trials to run", flush=True)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=start_engine) as pool:
        running = {pool.submit(run_trial, trial): trial for trial in remaining}
        for number, future in enumerate(as_completed(running), 1):
            record = {"trial": running[future], "found": future.result()}
            with path.open("a") as file:
                file.write(json.dumps(record) + "\n")
            print(f"{number} of {len(remaining)}: {record['trial']}", flush=True)


def main() -> None:
    """Run the trials and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--only", default="", help="counterexample, margins or training")
    arguments = parser.parse_args()
    available = [name for name in SETS if name in data_sets(WORK)]
    if len(available) < len(SETS):
        print(f"{DATA} is not set: only {', '.join(available)}", flush=True)
    trials = trials_of(available, [int(seed) for seed in arguments.seeds.split(",")])
    chosen = [trial for trial in trials if arguments.only in ("", trial["kind"])]
    run(chosen, HERE / "results.jsonl", workers=len(os.sched_getaffinity(0)))
    write_report(HERE / "results.jsonl", HERE)


if __name__ == "__main__":
    main()
