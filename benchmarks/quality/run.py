"""Quality on real data: one command trains and tests everything the table compares.

    python -m benchmarks.quality.run [--sets flights,taxi] [--seeds 0,1,2] [--small]

Every trial has the budget of ``BUDGET``, stated here and not tuned on any test split: learning rate
and budget were chosen on validation splits. A trial has one core to itself. Finished trials are
kept in ``results.jsonl`` beside this file and not run again; remove it to start over.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

os.environ.setdefault("RAY_AUTH_MODE", "token")

from benchmarks.quality.easytpp import DRAWS
from benchmarks.quality.neural import MODELS
from benchmarks.quality.report import read_records, write_report
from benchmarks.quality.sets import DATA, DataSet, data_sets
from benchmarks.quality.trial import forecast, open_store, start_engine, train
from benchmarks.quality.variants import PLAIN, Variant, variants
from mmtpp.config.load import config_from_tree, with_values
from mmtpp.config.schema import RunConfig
from mmtpp.core.compression import similar_events
from mmtpp.core.supervision import AllTokens
from mmtpp.data.prepare import prepare
from mmtpp.data.samples.interval_range import interval_range
from mmtpp.data.settings import assemble_settings, compression_of, training_questions
from mmtpp.data.store.store_reader import StoreReader
from mmtpp.evaluate.baselines.classical import baseline_targets
from mmtpp.evaluate.baselines.history import History
from mmtpp.evaluate.forecast_scores import read_histories
from mmtpp.evaluate.metrics import estimate

NO_TICK = 1e-9  # of continuous times: moves simultaneous events apart for EasyTPP
HERE = Path(__file__).parent
WORK = Path(os.environ.get("MMTPP_HOME", ".mmtpp")).absolute() / "quality"


@dataclass(frozen=True, slots=True)
class Budget:
    """What one trial may take.

    Attributes:
        max_tokens: of a packed row; a step is one row.
        steps: of stage 1 and of stage 2, of the plain model.
        short_steps: the same of the variants, and of the plain model beside them.
        learning_rate: of both stages.
        neural_s: processor seconds that each neural baseline trains, about what plain takes.
    """

    max_tokens: int
    steps: tuple[int, int]
    short_steps: tuple[int, int]
    learning_rate: float
    neural_s: float


BUDGET = Budget(1024, (2000, 400), (800, 200), 3e-3, 420.0)
SMALL = Budget(512, (6, 4), (6, 4), 3e-3, 1.0)  # to see that it works


def configuration(data: DataSet, budget: Budget) -> RunConfig:
    """The plain model: everything in full, two bytes a time."""
    tree: dict[str, Any] = {
        **data.settings,
        "store": {"uri": str(WORK / f"{data.name}_store")},
        "run": {"storage_uri": str(WORK / "runs")},
        "split": {"validation_fraction": 0.1, "test_fraction": 0.15},
        "compression": {"strategy": "none"},
        "template": {
            "style": "dense",
            "time_bytes": 2,
            "images": "on_change" if data.has_images else "none",
        },
        "window": {"max_tokens": budget.max_tokens, "overlap_fraction": 0.25},
        "lora": {"rank": 0},
        "training": {
            "num_steps": budget.steps[0],
            "samples_per_step": 1,
            "learning_rate": budget.learning_rate,
            "loss_weights": {"text": 0.2},
            "time_smoothing": 0.125,
        },
        "evaluation": {"overlap_fraction": 0.5, "max_sequences": data.max_test},
    }
    return config_from_tree(tree)


@dataclass(frozen=True, slots=True)
class Trial:
    """One of the things compared, with one seed.

    Attributes:
        set: name of the data set.
        kind: ``ours``, ``neural`` or ``classical``.
        name: of the variant or the model; of classical models there is one trial for all.
        seed: of initialisation and order.
    """

    set: str
    kind: str
    name: str
    seed: int

    def share(self, budget: Budget) -> list[float] | None:
        """What of the budget concerns it; None for classical models, which have none."""
        if self.kind == "neural":
            return [budget.neural_s]
        steps = budget.steps if self.name == PLAIN else budget.short_steps
        return [budget.max_tokens, *steps, budget.learning_rate] if self.kind == "ours" else None


class Results:
    """Finished trials, one JSON object a line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.records: list[dict[str, Any]] = read_records(path) if path.exists() else []

    def has(self, trial: Trial, budget: Budget) -> bool:
        """Whether a trial is done; a neural one must have predicted by ``DRAWS`` samples.

        Raises:
            ValueError: it was done on another budget, so it cannot stand beside the others.
        """
        found = [
            each
            for each in self.records
            if (each["set"], each["kind"]) == (trial.set, trial.kind)
            and (
                trial.kind == "classical"
                or (each["name"], each["seed"]) == (trial.name, trial.seed)
            )
        ]
        for each in found:
            if each.get("budget") != trial.share(budget):
                raise ValueError(
                    f"{self._path}: {trial} was done on the budget {each.get('budget')}, now it is "
                    f"{trial.share(budget)}; remove its line"
                )
        return any(
            trial.kind != "neural" or "error" in each or each["metrics"].get("draws") == DRAWS
            for each in found
        )

    def add(self, records: list[dict[str, Any]]) -> None:
        """Keep what a trial found."""
        self.records += records
        with self._path.open("a") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)
        for record in records:
            print(record["set"], record["name"], record["seed"], _short(record), flush=True)


def _short(record: dict[str, Any]) -> dict[str, float]:
    shown = ("joint/nll_nats_per_event", "time/rmse_s", "time/mae_s", "type/accuracy")
    return {key: round(value, 4) for key, value in record["metrics"].items() if key in shown}


def run_variant(config: RunConfig, variant: Variant, seed: int, budget: Budget) -> dict[str, Any]:
    """Train both stages and forecast the test split."""
    steps = budget.short_steps if variant.is_short else budget.steps
    config = with_values(
        config, {**variant.changes, "training.seed": seed, "training.num_steps": steps[0]}
    )
    model, first_s = train(config, AllTokens())
    second = with_values(config, {"training.num_steps": steps[1]})
    model, second_s = train(
        second, training_questions(second.tasks), model=model, one_target=variant.one_target
    )
    started = time.process_time()
    targets = forecast(second, model, split="test")
    manifest, _ = open_store(config)
    estimates = estimate(targets, seconds_per_unit=manifest.seconds_per_unit, resamples=200)
    return {
        "metrics": {key: each.value for key, each in estimates.items()},
        "low": {key: each.low for key, each in estimates.items() if "/at_" not in key},
        "high": {key: each.high for key, each in estimates.items() if "/at_" not in key},
        "targets": len(targets),
        "seconds": first_s + second_s,
        "test_s": time.process_time() - started,
        "context": float(np.mean(targets["context"].to_numpy())),
    }


def run_classical(config: RunConfig, name: str) -> list[dict[str, Any]]:
    """The baselines that need no seed, on the plain model's targets."""
    manifest, _ = open_store(config)
    codes = [code for code, count in enumerate(manifest.type_counts) if count]
    train_settings = assemble_settings(config, manifest, split="train")
    spans = interval_range(train_settings)
    test = read_histories(assemble_settings(config, manifest, split="test"), codes)
    test = sorted(test, key=lambda each: each.sequence_id)
    test = test[: config.evaluation.max_sequences or len(test)]
    tables = baseline_targets(
        [each for each in read_histories(train_settings, codes) if len(each.times) > 1],
        test,
        _all_targets(test),
        tick=spans.tick,
        num_types=len(codes),
    )
    records: list[dict[str, Any]] = []
    for baseline, table in tables.items():
        found = estimate(table, seconds_per_unit=manifest.seconds_per_unit, resamples=200)
        metrics = {key: each.value for key, each in found.items() if np.isfinite(each.value)}
        records.append(
            {
                "set": name,
                "name": baseline,
                "seed": 0,
                "kind": "classical",
                "metrics": metrics,
                "targets": len(table),
            }
        )
    return records


def _all_targets(test: list[History]) -> pa.Table:
    names = [each.sequence_id for each in test for _ in range(1, len(each.times))]
    places = [place for each in test for place in range(1, len(each.times))]
    return pa.table({"sequence_id": names, "position": pa.array(places, pa.int32())})


def run_neural(config: RunConfig, model: str, seed: int, budget: Budget) -> dict[str, Any]:
    """One EasyTPP model in a process of its own."""
    manifest, _ = open_store(config)
    codes = [code for code, count in enumerate(manifest.type_counts) if count]
    spans = interval_range(assemble_settings(config, manifest, split="train"))
    sequences: dict[str, Any] = {"num_types": len(codes), "tick": spans.tick or NO_TICK}
    for split in ("train", "validation", "test"):
        settings = assemble_settings(config, manifest, split=split)
        found = sorted(read_histories(settings, codes), key=lambda each: each.sequence_id)
        if split != "train":
            found = found[: config.evaluation.max_sequences or len(found)]
        sequences[split] = [[each.times.tolist(), each.types.tolist()] for each in found]
    command = [
        sys.executable,
        "-m",
        "benchmarks.quality.neural",
        model,
        str(budget.neural_s),
        str(seed),
    ]
    process = subprocess.run(
        command, input=json.dumps(sequences), capture_output=True, text=True, check=False
    )
    if process.returncode:
        return {"metrics": {}, "error": process.stderr.splitlines()[-1][:300]}
    found = json.loads(process.stdout.splitlines()[-1])
    found["time/rmse_s"] = found.pop("time/rmse") * manifest.seconds_per_unit
    seconds, targets = found.pop("seconds"), found.pop("targets")
    return {"metrics": found, "seconds": seconds, "targets": int(targets)}


def _similar_fraction(config: RunConfig, delta: float) -> float:
    """Of the training events, marked by temporal compression."""
    chosen = with_values(config, {"compression.strategy": "temporal", "compression.delta": delta})
    manifest, _ = open_store(config)
    settings = assemble_settings(chosen, manifest, split="train")
    reader = StoreReader(settings.store)
    marks = [
        similar_events(each.events.slice(*each.span("train")), compression_of(chosen))
        for each in reader.sequences(reader.files())
    ]
    return float(np.concatenate(marks).mean())


def trials_of(data: DataSet, seeds: list[int]) -> list[Trial]:
    """All trials of a data set, the plain model and the baselines first."""
    neural = [Trial(data.name, "neural", model, seed) for seed in seeds for model in MODELS]
    ours = [
        Trial(data.name, "ours", variant.name, seed)
        for seed in seeds
        for variant in variants(data, similar_fraction=0.0)
    ]
    ours.sort(key=lambda each: each.name != PLAIN)
    count = sum(each.name == PLAIN for each in ours)
    plain, others = ours[:count], ours[count:]
    once, again = neural[: len(MODELS)], neural[len(MODELS) :]
    # stopped early, it should have compared what matters most
    classical = Trial(data.name, "classical", "", 0)
    return [classical, *plain[:1], *once, *plain[1:], *others, *again]


def run_trial(trial: Trial, budget: Budget) -> list[dict[str, Any]]:
    """The records of a trial, in this process."""
    data = data_sets(WORK)[trial.set]
    config = configuration(data, budget)
    if trial.kind == "classical":
        return run_classical(config, trial.set)
    if trial.kind == "neural":
        found = run_neural(config, trial.name, trial.seed, budget)
    else:
        fraction = _similar_fraction(config, data.delta)
        chosen = {each.name: each for each in variants(data, similar_fraction=fraction)}
        found = run_variant(config, chosen[trial.name], trial.seed, budget)
    head = {
        "set": trial.set,
        "name": trial.name,
        "seed": trial.seed,
        "kind": trial.kind,
        "budget": trial.share(budget),
    }
    return [{**head, **found}]


def run(
    sets: list[str],
    seeds: list[int],
    *,
    budget: Budget,
    only: list[str],
    path: Path,
    workers: int = 1,
) -> Results:
    """Every trial that is not done yet; several at a time, each on one core, by ``workers``."""
    WORK.mkdir(parents=True, exist_ok=True)
    results = Results(path)
    there = data_sets(WORK)
    of_sets: list[list[Trial]] = []
    for name in sets:
        prepare(configuration(there[name], budget))
        of_sets.append(trials_of(there[name], seeds))
    # round by round, so that all sets are equally far whenever it is stopped
    every = [each for batch in zip_longest(*of_sets) for each in batch if each is not None]
    left = [
        each
        for each in every
        if not results.has(each, budget)
        and (not only or each.kind == "classical" or each.name in only)
    ]
    if workers == 1:
        start_engine()
        for trial in left:
            results.add(run_trial(trial, budget))
        return results
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=start_engine) as pool:
        for done in as_completed([pool.submit(run_trial, trial, budget) for trial in left]):
            results.add(done.result())
    return results


def main() -> None:
    """Run and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", default="")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--only", default="", help="names of variants, separated by semicolons")
    parser.add_argument("--small", action="store_true")
    arguments = parser.parse_args()
    there = list(data_sets(WORK))
    if len(there) == 1:
        print(f"{DATA} is not set: only {there[0]}", flush=True)
    run(
        arguments.sets.split(",") if arguments.sets else there,
        [int(seed) for seed in arguments.seeds.split(",")],
        budget=SMALL if arguments.small else BUDGET,
        only=[each for each in arguments.only.split(";") if each],
        path=WORK / "small.jsonl" if arguments.small else HERE / "results.jsonl",
        workers=len(os.sched_getaffinity(0)),
    )
    if not arguments.small:
        write_report(HERE / "results.jsonl", HERE, budget=BUDGET)


if __name__ == "__main__":
    main()
