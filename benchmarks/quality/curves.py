"""Learning curves: NLL of the validation split against CPU seconds and training events.

    python -m benchmarks.quality.curves [--sets flights,taxi] [--seeds 0] [--only NHP] [--small]

The models are trained with the budget of ``benchmarks.quality.run``. Finished curves are stored in
``curves.jsonl`` next to this file and not repeated; the table and the figure are written next to
it. ``--small`` only checks that the curves run; its files are in the work folder.
"""

import argparse
import json
import os
from collections.abc import Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_AUTH_MODE", "token")

from benchmarks.quality import run as quality
from benchmarks.quality.curve_report import read_curves, write_report
from benchmarks.quality.curve_trials import EXPERT, run_curve
from benchmarks.quality.results import BUDGET, SMALL, Budget, Trial, finished_records
from benchmarks.quality.soft_trial import SOFT
from benchmarks.quality.variants import PLAIN
from benchmarks.quality.workers import run_trials

HERE = Path(__file__).parent
NEURAL = ("IntensityFree", "NHP", "S2P2")
NOT_CURVED = ("earthquake_given",)  # the events of ``earthquake`` with another split


def trials_of(name: str, seeds: list[int]) -> list[Trial]:
    """The curves of a data set, all models of a seed before the next seed.

    Args:
        name: Name of the data set.
        seeds: Seeds of the trainings.
    """
    models = [("expert", EXPERT.name), ("soft", SOFT), ("ours", PLAIN)]
    models += [("neural", model) for model in NEURAL]
    return [Trial(name, kind, model, seed) for seed in seeds for kind, model in models]


def run(
    sets: list[str],
    seeds: list[int],
    *,
    budget: Budget,
    path: Path,
    only: Sequence[str] = (),
    workers: int,
) -> None:
    """Run the unfinished curves.

    Args:
        sets: Names of the data sets.
        seeds: Seeds of the trainings.
        budget: Budget of ``benchmarks.quality.run``.
        path: File of the finished curves, one JSON object per line.
        only: Names of the models; none for all of them.
        workers: Number of trials at a time, each with one core.

    Raises:
        ValueError: A curve was run with another budget.
    """
    quality.WORK.mkdir(parents=True, exist_ok=True)
    records = read_curves(path) if path.exists() else []
    # in turn over the sets, so that all sets have the same progress when the command is stopped
    of_sets = zip_longest(*(trials_of(name, seeds) for name in sets))
    remaining = [
        trial
        for batch in of_sets
        for trial in batch
        if trial is not None
        and (not only or trial.name in only)
        and not finished_records(records, trial, budget, path=path)
    ]
    available = quality.data_sets(quality.WORK)
    for name in dict.fromkeys(trial.set for trial in remaining):
        quality.prepare_set(available[name], budget)
    if remaining:
        run_trials(
            remaining, partial(run_curve, budget=budget), partial(_add, path), workers=workers
        )


def _add(path: Path, record: dict[str, Any]) -> None:
    """Append a record to the file, and print what its training took."""
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")
    keys = ("error", "epochs", "events_per_s", "seconds")
    shown = {key: record[key] for key in keys if key in record}
    print(record["set"], record["name"], record["seed"], shown, flush=True)


def main() -> None:
    """Run the curves, and write their table and figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", default="")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--only", default="", help="names of models, separated by semicolons")
    parser.add_argument("--small", action="store_true")
    arguments = parser.parse_args()
    only = [name for name in arguments.only.split(";") if name]
    known = [trial.name for trial in trials_of("", [0])]
    if unknown := [name for name in only if name not in known]:
        parser.error(f"--only: unknown models {unknown}; known: {known}")
    available = [name for name in quality.data_sets(quality.WORK) if name not in NOT_CURVED]
    path = quality.WORK / "small_curves.jsonl" if arguments.small else HERE / "curves.jsonl"
    run(
        arguments.sets.split(",") if arguments.sets else available,
        [int(seed) for seed in arguments.seeds.split(",")],
        budget=SMALL if arguments.small else BUDGET,
        path=path,
        only=only,
        workers=len(os.sched_getaffinity(0)),
    )
    write_report(path)


if __name__ == "__main__":
    main()
