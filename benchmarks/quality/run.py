"""Quality on real data: one command trains and tests everything the table compares.

    python -m benchmarks.quality.run [--sets flights,taxi] [--seeds 0,1,2] [--small]

Every trial has the budget of ``BUDGET``, stated here and not tuned on any test split: learning rate
and budget were chosen on the validation split of the earthquake set. Finished trials are kept in
``results.jsonl`` beside this file and not run again; remove it to start over.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

os.environ.setdefault("RAY_AUTH_MODE", "token")

from benchmarks.quality.neural import MODELS
from benchmarks.quality.report import write_report
from benchmarks.quality.sets import DATA, DataSet, data_sets
from benchmarks.quality.trial import forecast, open_store, start_engine, train
from benchmarks.quality.variants import Variant, variants
from mmtpp.config.load import config_from_tree, with_values
from mmtpp.config.schema import RunConfig
from mmtpp.core.compression import similar_events
from mmtpp.data.intervals import interval_range
from mmtpp.data.prepare import prepare
from mmtpp.data.settings import asking_of, assemble_settings, compression_of
from mmtpp.data.store import StoreReader
from mmtpp.evaluate.classical import History, baseline_targets
from mmtpp.evaluate.forecasts import read_histories
from mmtpp.evaluate.metrics import estimate

HERE = Path(__file__).parent
WORK = Path(os.environ.get("MMTPP_HOME", ".mmtpp")).absolute() / "quality"
PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class Budget:
    """What one trial may take.

    Attributes:
        max_tokens: of a packed row; a step is one row.
        steps: of stage 1.
        finetune_steps: of stage 2.
        learning_rate: of both.
        neural_s: seconds that each neural baseline trains; about what ours take.
    """

    max_tokens: int
    steps: int
    finetune_steps: int
    learning_rate: float
    neural_s: float


BUDGET = Budget(1024, 400, 120, 2e-3, 45.0)
SMALL = Budget(512, 6, 4, 2e-3, 1.0)  # to see that it works


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
            "num_steps": budget.steps,
            "samples_per_step": 1,
            "learning_rate": budget.learning_rate,
            "loss_weights": {"text": 0.2},
        },
        "evaluation": {"overlap_fraction": 0.5, "max_sequences": data.max_test},
    }
    return config_from_tree(tree)


class Results:
    """Finished trials, one JSON object a line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.records: list[dict[str, Any]] = [json.loads(line) for line in lines]

    def has(self, **key: object) -> bool:
        """Whether a trial is done."""
        return any(
            all(each.get(name) == value for name, value in key.items()) for each in self.records
        )

    def add(self, record: dict[str, Any]) -> None:
        """Keep a trial."""
        self.records.append(record)
        with self._path.open("a") as file:
            file.write(json.dumps(record) + "\n")
        print(record["set"], record["name"], record["seed"], _short(record), flush=True)


def _short(record: dict[str, Any]) -> dict[str, float]:
    shown = ("joint/nll_nats_per_event", "time/rmse_s", "time/mae_s", "type/accuracy")
    return {key: round(value, 4) for key, value in record["metrics"].items() if key in shown}


def run_variant(config: RunConfig, variant: Variant, seed: int, budget: Budget) -> dict[str, Any]:
    """Train both stages and forecast the test split."""
    config = with_values(config, {**variant.changes, "training.seed": seed})
    model, first_s = train(config, None)
    second = with_values(config, {"training.num_steps": budget.finetune_steps})
    model, second_s = train(
        second, asking_of(second.tasks), model=model, one_target=variant.one_target
    )
    started = time.perf_counter()
    targets = forecast(second, model, split="test")
    manifest, _ = open_store(config)
    estimates = estimate(targets, seconds_per_unit=manifest.seconds_per_unit, resamples=200)
    return {
        "metrics": {key: each.value for key, each in estimates.items()},
        "low": {key: each.low for key, each in estimates.items() if "@" not in key},
        "high": {key: each.high for key, each in estimates.items() if "@" not in key},
        "targets": len(targets),
        "seconds": first_s + second_s,
        "test_s": time.perf_counter() - started,
        "context": float(np.mean(targets["context"].to_numpy())),
    }


def run_classical(config: RunConfig, results: Results, name: str) -> None:
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
    for baseline, table in tables.items():
        found = estimate(table, seconds_per_unit=manifest.seconds_per_unit, resamples=200)
        metrics = {key: each.value for key, each in found.items() if np.isfinite(each.value)}
        results.add({"set": name, "name": baseline, "seed": 0, "kind": "classical",
                     "metrics": metrics, "targets": len(table)})  # fmt: skip


def _all_targets(test: list[History]) -> pa.Table:
    names = [each.sequence_id for each in test for _ in range(1, len(each.times))]
    places = [place for each in test for place in range(1, len(each.times))]
    return pa.table({"sequence_id": names, "position": pa.array(places, pa.int32())})


def run_neural(config: RunConfig, model: str, seed: int, budget: Budget) -> dict[str, Any]:
    """One EasyTPP model in a process of its own."""
    manifest, _ = open_store(config)
    codes = [code for code, count in enumerate(manifest.type_counts) if count]
    sequences: dict[str, Any] = {"num_types": len(codes)}
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
        similar_events(each.events, compression_of(chosen))
        for each in reader.sequences(reader.files())
        if each.split == "train"
    ]
    return float(np.concatenate(marks).mean())


def run(
    sets: list[str], seeds: list[int], *, budget: Budget, only: list[str], path: Path
) -> Results:
    """Every trial that is not done yet, one after the other."""
    WORK.mkdir(parents=True, exist_ok=True)
    results = Results(path)
    start_engine()
    there = data_sets(WORK)
    for name in sets:
        data = there[name]
        config = configuration(data, budget)
        prepare(config)
        if not results.has(set=name, kind="classical"):
            run_classical(config, results, name)
    for seed in seeds:
        for name in sets:
            data = there[name]
            config = configuration(data, budget)
            fraction = _similar_fraction(config, data.delta)
            chosen = variants(data, similar_fraction=fraction)
            for variant in chosen:
                if only and variant.name not in only:
                    continue
                if not results.has(set=name, name=variant.name, seed=seed):
                    found = run_variant(config, variant, seed, budget)
                    results.add(
                        {"set": name, "name": variant.name, "seed": seed, "kind": "ours", **found}
                    )
            for model in MODELS:
                if only and model not in only:
                    continue
                if not results.has(set=name, name=model, seed=seed):
                    found = run_neural(config, model, seed, budget)
                    results.add(
                        {"set": name, "name": model, "seed": seed, "kind": "neural", **found}
                    )
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
    )
    if not arguments.small:
        write_report(HERE / "results.jsonl", HERE, budget=BUDGET)


if __name__ == "__main__":
    main()
