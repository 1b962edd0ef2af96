"""Little data: the temporal expert and the classical baselines with 20 training sequences.

    python -m benchmarks.quality.little_data [--sets flights,taxi] [--draws 0,1,2]
        [--held-out validation]

Every draw has 20 sequences of at most 64 events from the training split of a data set, 3 of them
for validation. The expert has its default settings. Finished trials are stored in
``little_data.jsonl`` next to this file and not repeated. ``--held-out validation`` tests on the
validation split of the full data set instead, to choose settings without its test split; these
trials are stored in the work folder.
"""

import argparse
import os
import time
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault("RAY_AUTH_MODE", "token")

from benchmarks.quality import run as quality
from benchmarks.quality.expert_trial import EXPERTS, run_expert
from benchmarks.quality.little_report import BASELINE, write_report
from benchmarks.quality.little_sets import LITTLE, Draw, Limits, publish_draw
from benchmarks.quality.results import BUDGET, Budget, Results, Trial
from benchmarks.quality.sets import DataSet
from mmtpp.config.schema import RunConfig
from mmtpp.data.prepare import prepare

HERE = Path(__file__).parent
EXPERT = EXPERTS[0]  # with the default settings
NOT_DRAWN = ("earthquake_given",)  # the events of ``earthquake`` with another split


def prepare_draw(data: DataSet, draw: Draw) -> RunConfig:
    """Write the store of a draw, and the full store that it is drawn from, unless they exist.

    Args:
        data: The full data set.
        draw: The draw.
    """
    if data.publish:
        data.publish()
    full = quality.configuration(data, BUDGET)
    prepare(full)
    folder = quality.WORK / "little_raw" / draw.name
    config = quality.configuration(publish_draw(full.store.uri, draw, folder), BUDGET)
    prepare(config)
    return config


def run_baselines(config: RunConfig, draw: Draw, results: Results, budget: Budget) -> None:
    """Fit and test the classical baselines of a draw, unless they are finished.

    Args:
        config: Settings of the drawn store.
        draw: The draw.
        results: Finished trials.
        budget: The budget; baselines have none.
    """
    if results.has(Trial(draw.set, BASELINE, "marginal", draw.number), budget):
        return
    started = time.process_time()
    records = quality.run_classical(config, draw.set)
    seconds = time.process_time() - started
    head = {"kind": BASELINE, "seed": draw.number, "seconds": seconds}
    results.add([{**record, **head} for record in records])


def run_trial(config: RunConfig, draw: Draw, results: Results, budget: Budget) -> None:
    """Train and test the expert on a draw, unless it is finished; its seed is the draw's number.

    Args:
        config: Settings of the drawn store.
        draw: The draw.
        results: Finished trials.
        budget: Largest number of updates of a network of the expert.
    """
    trial = Trial(draw.set, "expert", EXPERT.name, draw.number)
    if not results.has(trial, budget):
        record = run_expert(config, EXPERT, draw.number, max_steps=budget.expert_steps)
        results.add([{**asdict(trial), "budget": trial.share(budget), **record}])


def run(
    sets: list[str],
    draws: list[int],
    *,
    held_out: str,
    budget: Budget,
    path: Path,
    sums: Path,
    limits: Limits = LITTLE,
) -> None:
    """Run the unfinished trials of data sets.

    Args:
        sets: Names of the data sets.
        draws: Numbers of the draws.
        held_out: Split of the full data sets that tests the models, see ``Draw``.
        budget: Largest number of updates of a network of the expert.
        path: File of the finished trials.
        sums: Folder of the trials' sums by sequence.
        limits: Sizes of the draws.
    """
    quality.WORK.mkdir(parents=True, exist_ok=True)
    results = Results(path, sums)
    available = quality.data_sets(quality.WORK)
    for number in draws:
        for name in sets:
            draw = Draw(name, number, held_out, limits)
            config = prepare_draw(available[name], draw)
            run_baselines(config, draw, results, budget)
            run_trial(config, draw, results, budget)


def main() -> None:
    """Run the trials and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", default="")
    parser.add_argument("--draws", default="0,1,2")
    parser.add_argument("--held-out", choices=("test", "validation"), default="test")
    arguments = parser.parse_args()
    available = [name for name in quality.data_sets(quality.WORK) if name not in NOT_DRAWN]
    is_test = arguments.held_out == "test"
    path = (HERE if is_test else quality.WORK) / "little_data.jsonl"
    sums = quality.WORK / f"little_{arguments.held_out}_per_sequence"
    run(
        arguments.sets.split(",") if arguments.sets else available,
        [int(number) for number in arguments.draws.split(",")],
        held_out=arguments.held_out,
        budget=BUDGET,
        path=path,
        sums=sums,
    )
    write_report(path, sums, path.with_suffix(".md"), held_out=arguments.held_out)


if __name__ == "__main__":
    main()
