"""Quality on real data: trains and tests all models that the tables compare.

    python -m benchmarks.quality.run [--sets flights,taxi] [--seeds 0,1,2] [--small]

Every trial has the budget ``BUDGET`` and one core. The learning rate and the budget were chosen on
validation splits; nothing is tuned on test splits. Finished trials are stored in ``results.jsonl``
next to this file and not repeated; remove the file to start again.
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
from benchmarks.quality.expert_trial import EXPERTS, run_expert
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
from mmtpp.data.settings import compression_of, sample_settings, training_questions
from mmtpp.data.store.store_reader import StoreReader
from mmtpp.evaluate.baselines.classical import Baselines, interval_range_of, select_targets
from mmtpp.evaluate.baselines.history import History
from mmtpp.evaluate.forecasts import read_histories
from mmtpp.evaluate.metrics import estimate_metrics

NO_TICK = 1e-9  # tick of continuous times; moves simultaneous events apart for EasyTPP
HERE = Path(__file__).parent
WORK = Path(os.environ.get("MMTPP_HOME", ".mmtpp")).absolute() / "quality"


@dataclass(frozen=True, slots=True)
class Budget:
    """Budget of one trial.

    Attributes:
        max_tokens: Length of a packed row, in tokens; a step trains on one row.
        steps: Number of steps of stage 1 and of stage 2 for the plain model.
        short_steps: Number of steps of both stages for the variants, and for the plain model that
            they are compared with.
        learning_rate: Learning rate of both stages.
        neural_s: CPU seconds of training for a neural baseline, about those of the plain model.
        expert_updates: Largest number of updates of a network of the temporal expert.
    """

    max_tokens: int
    steps: tuple[int, int]
    short_steps: tuple[int, int]
    learning_rate: float
    neural_s: float
    expert_updates: int


BUDGET = Budget(1024, (2000, 400), (800, 200), 3e-3, 420.0, 5000)
SMALL = Budget(512, (6, 4), (6, 4), 3e-3, 1.0, 6)  # only checks that the benchmark runs


def configuration(data: DataSet, budget: Budget) -> RunConfig:
    """Settings of the plain model: no compression, time codes of two bytes."""
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
    """One model or variant on one data set with one seed.

    Attributes:
        set: Name of the data set.
        kind: ``expert``, ``ours``, ``neural`` or ``classical``.
        name: Name of the variant or the model; empty for the one trial of all classical models.
        seed: Seed of the initialisation and the order of the data.
    """

    set: str
    kind: str
    name: str
    seed: int

    def share(self, budget: Budget) -> list[float] | None:
        """The part of the budget that the trial uses; None for classical models."""
        if self.kind == "neural":
            return [budget.neural_s]
        if self.kind == "expert":
            return [budget.expert_updates]
        steps = budget.steps if self.name == PLAIN else budget.short_steps
        return [budget.max_tokens, *steps, budget.learning_rate] if self.kind == "ours" else None


class Results:
    """Finished trials in a file with one JSON object per line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.records: list[dict[str, Any]] = read_records(path) if path.exists() else []

    def has(self, trial: Trial, budget: Budget) -> bool:
        """Whether a trial is finished; a neural one must have predicted with ``DRAWS`` samples.

        Raises:
            ValueError: The trial was run with another budget, so it cannot be compared.
        """
        finished = [
            record
            for record in self.records
            if (record["set"], record["kind"]) == (trial.set, trial.kind)
            and (
                trial.kind == "classical"
                or (record["name"], record["seed"]) == (trial.name, trial.seed)
            )
        ]
        for record in finished:
            if record.get("budget") != trial.share(budget):
                raise ValueError(
                    f"{self._path}: {trial} was run with the budget {record.get('budget')}, the "
                    f"present budget is {trial.share(budget)}; remove its line"
                )
        return any(
            trial.kind != "neural" or "error" in record or record["metrics"].get("draws") == DRAWS
            for record in finished
        )

    def add(self, records: list[dict[str, Any]]) -> None:
        """Store and print the records of a trial."""
        self.records += records
        with self._path.open("a") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)
        for record in records:
            print(record["set"], record["name"], record["seed"], _short(record), flush=True)


def _short(record: dict[str, Any]) -> dict[str, float]:
    shown = ("joint/nll_nats_per_event", "time/rmse_s", "time/mae_s", "type/accuracy")
    return {key: round(value, 4) for key, value in record["metrics"].items() if key in shown}


def run_variant(config: RunConfig, variant: Variant, seed: int, budget: Budget) -> dict[str, Any]:
    """Train both stages and forecast the test split; returns the fields of the record."""
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
    estimates = estimate_metrics(targets, seconds_per_unit=manifest.seconds_per_unit, resamples=200)
    return {
        "metrics": {key: estimated.value for key, estimated in estimates.items()},
        "low": {key: estimated.low for key, estimated in estimates.items() if "/at_" not in key},
        "high": {key: estimated.high for key, estimated in estimates.items() if "/at_" not in key},
        "targets": len(targets),
        "seconds": first_s + second_s,
        "test_s": time.process_time() - started,
        "context": float(np.mean(targets["context"].to_numpy())),
    }


def run_classical(config: RunConfig, name: str) -> list[dict[str, Any]]:
    """Run the baselines without a seed on the targets of the plain model."""
    manifest, _ = open_store(config)
    codes = [code for code, count in enumerate(manifest.type_counts) if count]
    train_settings = sample_settings(config.sample_sections, manifest, split="train")
    spans = interval_range(train_settings)
    test = read_histories(sample_settings(config.sample_sections, manifest, split="test"), codes)
    test = sorted(test, key=lambda history: history.sequence_id)
    test = test[: config.evaluation.max_sequences or len(test)]
    fitted = Baselines.fit(
        [history for history in read_histories(train_settings, codes) if len(history.times) > 1],
        interval_range_of(test, tick=spans.tick),
        tick=spans.tick,
        num_types=len(codes),
    )
    # a sequence of one event has no target
    forecasts = [fitted.forecast(history) for history in test if len(history.times) > 1]
    tables = select_targets(forecasts, _all_targets(test))
    records: list[dict[str, Any]] = []
    for baseline, table in tables.items():
        estimates = estimate_metrics(
            table, seconds_per_unit=manifest.seconds_per_unit, resamples=200
        )
        metrics = {
            key: estimated.value
            for key, estimated in estimates.items()
            if np.isfinite(estimated.value)
        }
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
    names = [history.sequence_id for history in test for _ in range(1, len(history.times))]
    places = [place for history in test for place in range(1, len(history.times))]
    return pa.table({"sequence_id": names, "position": pa.array(places, pa.int32())})


def run_neural(config: RunConfig, model: str, seed: int, budget: Budget) -> dict[str, Any]:
    """Train and test one EasyTPP model in a separate process."""
    manifest, _ = open_store(config)
    codes = [code for code, count in enumerate(manifest.type_counts) if count]
    spans = interval_range(sample_settings(config.sample_sections, manifest, split="train"))
    sequences: dict[str, Any] = {"num_types": len(codes), "tick": spans.tick or NO_TICK}
    for split in ("train", "validation", "test"):
        settings = sample_settings(config.sample_sections, manifest, split=split)
        histories = sorted(read_histories(settings, codes), key=lambda history: history.sequence_id)
        if split != "train":
            histories = histories[: config.evaluation.max_sequences or len(histories)]
        sequences[split] = [
            [history.times.tolist(), history.types.tolist()] for history in histories
        ]
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
    metrics = json.loads(process.stdout.splitlines()[-1])
    metrics["time/rmse_s"] = metrics.pop("time/rmse") * manifest.seconds_per_unit
    seconds, targets = metrics.pop("seconds"), metrics.pop("targets")
    return {"metrics": metrics, "seconds": seconds, "targets": int(targets)}


def _similar_fraction(config: RunConfig, delta: float) -> float:
    """Share of the training events that temporal compression marks as similar."""
    chosen = with_values(config, {"compression.strategy": "temporal", "compression.delta": delta})
    manifest, _ = open_store(config)
    settings = sample_settings(chosen.sample_sections, manifest, split="train")
    reader = StoreReader(settings.store)
    marks = [
        similar_events(
            sequence.events.slice(*sequence.span("train")),
            compression_of(chosen.sample_sections),
        )
        for sequence in reader.sequences(reader.files())
    ]
    return float(np.concatenate(marks).mean())


def trials_of(data: DataSet, seeds: list[int]) -> list[Trial]:
    """All trials of a data set, in the order of their importance."""
    neural = [Trial(data.name, "neural", model, seed) for seed in seeds for model in MODELS]
    ours = [
        Trial(data.name, "ours", variant.name, seed)
        for seed in seeds
        for variant in variants(data, similar_fraction=0.0)
    ]
    experts = [
        Trial(data.name, "expert", variant.name, seed) for variant in EXPERTS for seed in seeds
    ]
    ours.sort(key=lambda trial: trial.name != PLAIN)
    count = sum(trial.name == PLAIN for trial in ours)
    plain, changed = ours[:count], ours[count:]
    first_seed, later_seeds = neural[: len(MODELS)], neural[len(MODELS) :]
    # the most important comparisons first, in case the benchmark is stopped early
    classical = Trial(data.name, "classical", "", 0)
    return [classical, *experts, *plain[:1], *first_seed, *plain[1:], *changed, *later_seeds]


def run_trial(trial: Trial, budget: Budget) -> list[dict[str, Any]]:
    """Run a trial in this process and return its records."""
    data = data_sets(WORK)[trial.set]
    config = configuration(data, budget)
    if trial.kind == "classical":
        return run_classical(config, trial.set)
    if trial.kind == "neural":
        results = run_neural(config, trial.name, trial.seed, budget)
    elif trial.kind == "expert":
        [variant] = [variant for variant in EXPERTS if variant.name == trial.name]
        results = run_expert(config, variant, trial.seed, max_updates=budget.expert_updates)
    else:
        fraction = _similar_fraction(config, data.delta)
        chosen = {variant.name: variant for variant in variants(data, similar_fraction=fraction)}
        results = run_variant(config, chosen[trial.name], trial.seed, budget)
    head = {
        "set": trial.set,
        "name": trial.name,
        "seed": trial.seed,
        "kind": trial.kind,
        "budget": trial.share(budget),
    }
    return [{**head, **results}]


def run(
    sets: list[str],
    seeds: list[int],
    *,
    budget: Budget,
    only: list[str],
    path: Path,
    workers: int = 1,
) -> Results:
    """Run the unfinished trials, ``workers`` at a time with one core per trial."""
    WORK.mkdir(parents=True, exist_ok=True)
    results = Results(path)
    available = data_sets(WORK)
    of_sets: list[list[Trial]] = []
    for name in sets:
        prepare(configuration(available[name], budget))
        of_sets.append(trials_of(available[name], seeds))
    # in turn over the sets, so that all sets have the same progress when the benchmark is stopped
    every = [trial for batch in zip_longest(*of_sets) for trial in batch if trial is not None]
    remaining = [
        trial
        for trial in every
        if not results.has(trial, budget)
        and (not only or trial.kind == "classical" or trial.name in only)
    ]
    if workers == 1:
        start_engine()
        for trial in remaining:
            results.add(run_trial(trial, budget))
        return results
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=start_engine) as pool:
        for future in as_completed([pool.submit(run_trial, trial, budget) for trial in remaining]):
            results.add(future.result())
    return results


def main() -> None:
    """Run the trials and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", default="")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--only", default="", help="names of variants, separated by semicolons")
    parser.add_argument("--small", action="store_true")
    arguments = parser.parse_args()
    available = list(data_sets(WORK))
    if len(available) == 1:
        print(f"{DATA} is not set: only {available[0]}", flush=True)
    run(
        arguments.sets.split(",") if arguments.sets else available,
        [int(seed) for seed in arguments.seeds.split(",")],
        budget=SMALL if arguments.small else BUDGET,
        only=[name for name in arguments.only.split(";") if name],
        path=WORK / "small.jsonl" if arguments.small else HERE / "results.jsonl",
        workers=len(os.sched_getaffinity(0)),
    )
    if not arguments.small:
        write_report(HERE / "results.jsonl", HERE, budget=BUDGET)


if __name__ == "__main__":
    main()
