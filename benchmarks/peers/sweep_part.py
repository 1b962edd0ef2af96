"""Sweeps: what a trial costs besides its training, with plain Optuna and with this project."""

import statistics
import uuid
from dataclasses import dataclass

from benchmarks.peers.bench import Bench, errors, figure, markdown_table, values
from benchmarks.peers.trials import Record, Trial
from benchmarks.stack import danmaku_folder

ALONE, OPTUNA, OURS = "alone, one after the other", "Optuna", "mmtpp"
MODES = {ALONE: "alone", OPTUNA: "optuna", OURS: "ours"}
ADDS = (
    "one MLflow run a trial under a run of the sweep; trials in parallel on the machines of the "
    "cluster; a trial that is killed resumes from its checkpoint; bad trials end early; "
    "populations exchange weights; a budget in hours or GPU hours; a failed trial is recorded with "
    "its cause and does not end the sweep; a report with the front of two metrics."
)


@dataclass(frozen=True, slots=True)
class SweepRecords:
    """All trials of the part.

    Attributes:
        empty: A study of Optuna whose trials do nothing.
        trainings: The same trainings, by who runs them.
    """

    empty: Record
    trainings: dict[str, list[Record]]


def measure(bench: Bench) -> SweepRecords:
    """Run the trials on one local cluster."""
    seeds, num_steps = ([0], 2) if bench.smoke else ([0, 1], 20)
    folder = str(danmaku_folder())
    with bench.stack():
        empty = bench.run(Trial("sweep_trial", _arguments("empty", [], 0)))

        def run(trial: Trial) -> Record:
            runs = f"s3://mmtpp/peers/runs/{uuid.uuid4().hex}"  # a finished run is not repeated
            return bench.run(trial, {"folder": folder, "runs": runs})

        trials = {
            name: Trial("sweep_trial", _arguments(mode, seeds, num_steps))
            for name, mode in MODES.items()
        }
        return SweepRecords(empty, bench.interleave(trials, run))


def _arguments(mode: str, seeds: list[int], num_steps: int) -> dict[str, object]:
    return {"mode": mode, "seeds": seeds, "num_steps": num_steps}


def section(records: SweepRecords) -> list[str]:
    """Lines of the report."""
    alone = values(records.trainings[ALONE], "s_per_trial")
    num_trials = len(records.trainings[ALONE][0].trial.arguments["seeds"])
    rows = []
    for name, of_name in records.trainings.items():
        seconds = values(of_name, "s_per_trial")
        added = "-"
        if name != ALONE and alone and seconds:
            added = f"{statistics.median(seconds) - statistics.median(alone):.2f}"
        rows.append((name, figure(seconds, 2), added))
    return [
        "## Sweeps",
        "",
        f"{num_trials} short trainings of one worker on Ray Train, which differ in their seeds, "
        "one at a time: seconds per trial, and those that the sweep adds to the training, with its "
        "own start and end.",
        "",
        *markdown_table(("trials", "s per trial", "added, s"), rows),
        "",
        "Optuna with a study in SQLite takes "
        f"{figure(values([records.empty], 'ms_per_trial'), 1)} ms for a trial that does nothing. "
        f"For what mmtpp adds, it does more: {ADDS}",
        "",
        *errors(records.trainings),
    ]
