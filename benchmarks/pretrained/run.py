"""What pretrained weights give: SmolLM2 adapted, its architecture from random weights, and tiny.

    python -m benchmarks.pretrained.run --data TRANSCRIPTS [--seeds 0,1] [--small]

Every trial runs on one core, in bfloat16 except for tiny. All models have the same tokenizer, steps
and held-out sequences; ``tiny, same CPU seconds`` trains for as many CPU seconds as the adapted
model. ``benchmarks.pretrained.learning_rates`` chooses their learning rates first. Finished trials
are kept in ``results.jsonl`` next to this file and not repeated; remove the file to start again.
"""

import argparse
import csv
import gzip
import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_AUTH_MODE", "token")

from benchmarks.pretrained.rates import RATES, read_rates
from benchmarks.pretrained.report import write_report
from benchmarks.pretrained.trial import (
    ADAPTED,
    RANDOM,
    TINY,
    TINY_LONGER,
    Trial,
    find_record,
    read_results,
    run_trial,
)
from benchmarks.quality.sets import SPEAKERS
from benchmarks.quality.trial import start_engine
from cluster.pretrained_demo import find_weights
from mmtpp.config.load import config_from_tree
from mmtpp.config.schema import RunConfig
from mmtpp.core.seeds import seed_from
from mmtpp.core.split import split_from_key
from mmtpp.data.prepare import prepare
from mmtpp.exchange.gguf_import import import_gguf

HERE = Path(__file__).parent
WORK = Path(os.environ.get("MMTPP_HOME", ".mmtpp")).absolute() / "pretrained"
VALIDATION, TEST = 0.1, 0.15


@dataclass(frozen=True, slots=True)
class Budget:
    """Budget of a trial.

    Attributes:
        steps: Number of updates.
        max_tokens: Length of a packed row, in tokens, without the questions.
        samples_per_step: Number of rows of an update.
        test_sequences: Number of scored sequences.
        max_text_tokens: Maximum length of a text, in tokens.
        fractions: Shares of the training sequences, in the order of the trials.
    """

    steps: int = 30
    max_tokens: int = 256
    samples_per_step: int = 2
    test_sequences: int = 2
    max_text_tokens: int = 24
    fractions: tuple[float, ...] = (1.0, 0.01, 0.1)


SMALL = Budget(2, 128, 1, 1, 8, (1.0,))
SMALL_RATES = {ADAPTED: 1e-3, RANDOM: 1e-3, TINY: 1e-3}


def find_data(path: Path | None) -> Path:
    """The table of the utterances: ``path``, or the one in ``MMTPP_TEST_DATA``.

    Raises:
        SystemExit: There is no such table.
    """
    folder = Path(os.environ.get("MMTPP_TEST_DATA", ""))
    path = path or folder / "transcripts_spaceflight" / "utterances.csv.gz"
    if not path.is_file():
        raise SystemExit(f"there is no table {path}: set MMTPP_TEST_DATA or --data")
    return path


def import_base() -> Path:
    """Import the pretrained weights, unless they are imported; returns their folder."""
    base = WORK / "smollm2"
    import_gguf(str(find_weights()), str(base), precision="bfloat16")
    return base


def write_events(data: Path, folder: Path, fraction: float) -> None:
    """Write the table with a share of its training sequences and all held-out ones.

    Args:
        data: Table of ``part``, ``seconds``, ``speaker`` and ``text``, gzipped.
        folder: Folder of the new table; a table that exists is kept.
        fraction: Share of the training sequences. A larger share contains the smaller ones.
    """
    target = folder / "utterances.csv"
    if target.exists():
        return
    with gzip.open(data, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    kept = set(_kept_parts({row[0] for row in rows[1:]}, fraction))
    folder.mkdir(parents=True, exist_ok=True)
    with target.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([rows[0], *(row for row in rows[1:] if row[0] in kept)])


def _kept_parts(parts: set[str], fraction: float) -> Iterator[str]:
    for part in parts:
        split = split_from_key(part, validation_fraction=VALIDATION, test_fraction=TEST)
        draw = seed_from("fraction", part) % 10**6 / 10**6
        if split == "test" or draw < fraction:
            yield part


def configuration(budget: Budget, base: Path, work: Path, fraction: float) -> RunConfig:
    """Settings of the events and of the training on a share of the sequences."""
    return config_from_tree(
        {
            "source": {
                "kind": "columns",
                "uri": str(work / f"events_{fraction:g}"),
                "types": SPEAKERS,
                "rare_types": "other",
                "columns": {
                    "time": "seconds",
                    "sequence": "part",
                    "type": "speaker",
                    "text": "text",
                },
            },
            "split": {"validation_fraction": VALIDATION, "test_fraction": TEST},
            "store": {"uri": str(work / f"store_{fraction:g}")},
            "run": {"storage_uri": str(work / "runs")},
            "compression": {"strategy": "none"},
            "template": {
                "style": "dense",
                "time_bytes": 2,
                "images": "none",
                "max_text_tokens": budget.max_text_tokens,
            },
            "window": {"max_tokens": budget.max_tokens, "overlap_fraction": 0.25},
            "model": {"path": str(base)},
            "tasks": {"time": 1.0, "type": 0.0, "joint": 1.0, "text": 1.0},
            "training": {
                "samples_per_step": budget.samples_per_step,
                "time_smoothing": 0.125,
            },
            "evaluation": {"overlap_fraction": 0.5, "max_sequences": budget.test_sequences},
        }
    )


def prepare_events(
    data: Path, budget: Budget, base: Path, work: Path, fraction: float
) -> RunConfig:
    """Prepare the store of a share of the sequences; returns the settings that read it."""
    write_events(data, work / f"events_{fraction:g}", fraction)
    config = configuration(budget, base, work, fraction)
    prepare(config)
    return config


def trials_of(
    budget: Budget,
    rates: Mapping[str, float],
    fraction: float,
    seed: int,
    records: list[dict[str, Any]],
) -> Iterator[Trial]:
    """The unfinished trials; those that depend on the time of another come after it."""
    trained = [
        Trial(name, fraction, seed, budget.steps, rates[name]) for name in (ADAPTED, RANDOM, TINY)
    ]
    untrained = [replace(trained[0], steps=0)] if (fraction, seed) == (1.0, 0) else []
    for trial in (*untrained, *trained):
        done = find_record(records, trial.model, fraction, seed, trained=trial.steps > 0)
        if done is None:
            yield trial
    adapted = find_record(records, ADAPTED, fraction, seed)
    tiny = find_record(records, TINY, fraction, seed)
    if adapted and tiny and not find_record(records, TINY_LONGER, fraction, seed):
        ratio = adapted["cpu_s"] / tiny["cpu_s"]
        steps = max(1, round(budget.steps * ratio))
        yield Trial(TINY_LONGER, fraction, seed, steps, rates[TINY])


def run(
    data: Path,
    base: Path,
    work: Path,
    *,
    budget: Budget,
    rates: Mapping[str, float],
    seeds: list[int],
    path: Path,
    max_trials: int = sys.maxsize,
) -> None:
    """Prepare the events and run the unfinished trials, one share of the data after the other.

    Args:
        data: Table of the utterances, gzipped.
        base: Folder of the pretrained model.
        work: Folder for events, stores and random weights.
        budget: Budget of a trial.
        rates: Learning rates by model.
        seeds: Seeds of the trials.
        path: File of the finished trials.
        max_trials: Number of trials after which the run stops.
    """
    for fraction in budget.fractions:
        prepare_events(data, budget, base, work, fraction)
    start_engine()
    records = read_results(path)
    last = len(records) + max_trials
    for fraction in budget.fractions:
        config = configuration(budget, base, work, fraction)
        for seed in seeds:
            for trial in trials_of(budget, rates, fraction, seed, records):
                if len(records) == last:
                    return
                record = run_trial(config, trial, base, work)
                records.append(record)
                with path.open("a") as file:
                    file.write(json.dumps(record) + "\n")
                print(json.dumps(record), flush=True)


def main() -> None:
    """Run the trials and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="table of the utterances, gzipped")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument(
        "--max-trials", type=int, default=sys.maxsize, help="stop after this number of trials"
    )
    parser.add_argument("--small", action="store_true", help="only check that the benchmark runs")
    arguments = parser.parse_args()
    data = find_data(arguments.data)
    rates = SMALL_RATES if arguments.small else read_rates(RATES)
    work = WORK / "small" if arguments.small else WORK
    run(
        data,
        import_base(),
        work,
        budget=SMALL if arguments.small else Budget(),
        rates=rates,
        seeds=[int(seed) for seed in arguments.seeds.split(",")],
        max_trials=arguments.max_trials,
        path=work / "small.jsonl" if arguments.small else HERE / "results.jsonl",
    )
    if not arguments.small:
        write_report(read_results(HERE / "results.jsonl"), HERE)


if __name__ == "__main__":
    main()
