"""Quality on real data: trains and tests all models that the tables compare.

    python -m benchmarks.quality.run [--sets flights,taxi] [--seeds 0,1,2] [--small]

Every trial has the budget ``BUDGET`` and one core. The learning rate and the budget were chosen on
validation splits; nothing is tuned on test splits. Finished trials are stored in ``results.jsonl``
next to this file and not repeated; remove the file to start again.
"""

import argparse
import os
import time
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

os.environ.setdefault("RAY_AUTH_MODE", "token")

from benchmarks.quality.controls import BY_TEXT_LENGTH, forecast_by_text_length
from benchmarks.quality.differences import sequence_sums
from benchmarks.quality.expert_trial import EXPERTS, run_expert
from benchmarks.quality.mixture_trial import run_mixture
from benchmarks.quality.neural import MODELS
from benchmarks.quality.neural_trial import run_neural
from benchmarks.quality.report import write_report
from benchmarks.quality.results import BUDGET, SMALL, Budget, Results, Trial
from benchmarks.quality.sets import DATA, DataSet, data_sets
from benchmarks.quality.soft_trial import SOFT, run_soft
from benchmarks.quality.trial import forecast, open_store, train
from benchmarks.quality.variants import MIXTURE, MIXTURE_WITH_IMAGES, PLAIN, Variant, variants
from benchmarks.quality.workers import run_trials
from mmtpp.config.load import config_from_tree, with_values
from mmtpp.config.schema import RunConfig
from mmtpp.core.point_processes.history import History
from mmtpp.core.representation.compression import similar_events
from mmtpp.core.representation.supervision import AllTokens
from mmtpp.data.from_config import (
    build_compression,
    build_sample_settings,
    build_training_questions,
)
from mmtpp.data.prepare import prepare
from mmtpp.data.samples.interval_range import interval_range
from mmtpp.data.store.store_reader import StoreReader
from mmtpp.evaluate.baselines.classical import Baselines, interval_range_of, select_targets
from mmtpp.evaluate.histories import read_histories
from mmtpp.evaluate.scores.metrics import estimate_metrics

HERE = Path(__file__).parent
WORK = Path(os.environ.get("MMTPP_HOME", ".mmtpp")).absolute() / "quality"


def configuration(data: DataSet, budget: Budget, *, without_texts: bool = False) -> RunConfig:
    """Settings of the plain model: no compression, time codes of two bytes.

    Args:
        data: The data set.
        budget: Budget of a trial.
        without_texts: Read the events without their texts, from a store of their own.
    """
    tree: dict[str, Any] = {
        "split": {"validation_fraction": 0.1, "test_fraction": 0.15},
        **data.settings,
        "store": {"uri": str(WORK / f"{data.name}_store{'_without_texts' * without_texts}")},
        "run": {"storage_uri": str(WORK / "runs")},
        "compression": {"strategy": "none"},
        "template": {
            "style": "dense",
            "time_bytes": 2,
            "images": "on_change" if data.has_images else "none",
            "max_text_tokens": data.max_text_tokens,
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
    config = config_from_tree(tree)
    return with_values(config, {"source.columns.text": ""}) if without_texts else config


def prepare_set(data: DataSet, budget: Budget, *, without_texts: bool = False) -> None:
    """Write the raw files and the store of a data set, unless they exist."""
    if data.publish:
        data.publish()
    prepare(configuration(data, budget, without_texts=without_texts))


def run_variant(config: RunConfig, variant: Variant, seed: int, budget: Budget) -> dict[str, Any]:
    """Train both stages and forecast the test split; returns the fields of the record."""
    steps = budget.short_steps if variant.is_short else budget.steps
    config = with_values(
        config, {**variant.changes, "training.seed": seed, "training.num_steps": steps[0]}
    )
    model, first_s = train(config, AllTokens())
    second = with_values(config, {"training.num_steps": steps[1]})
    model, second_s = train(
        second, build_training_questions(second.tasks), model=model, one_target=variant.one_target
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
        "per_sequence": sequence_sums(targets),
    }


def run_classical(config: RunConfig, name: str) -> list[dict[str, Any]]:
    """Run the baselines without a seed on the targets of the plain model."""
    manifest, _ = open_store(config)
    codes = [code for code, count in enumerate(manifest.type_counts) if count]
    train_sample_settings = build_sample_settings(config.sample_sections, manifest, split="train")
    spans = interval_range(train_sample_settings)
    test = read_histories(
        build_sample_settings(config.sample_sections, manifest, split="test"), codes
    )
    test = sorted(test, key=lambda history: history.sequence_id)
    test = test[: config.evaluation.max_sequences or len(test)]
    fitted = Baselines.fit(
        [
            history
            for history in read_histories(train_sample_settings, codes)
            if len(history.times) > 1
        ],
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
                "per_sequence": sequence_sums(table),
            }
        )
    return records


def run_control(config: RunConfig) -> dict[str, Any]:
    """Run the baseline that is given the lengths of texts; returns the fields of the record."""
    manifest, _ = open_store(config)
    codes = [code for code, count in enumerate(manifest.type_counts) if count]
    train_sample_settings, test = (
        build_sample_settings(
            config.sample_sections, manifest, split=split, max_sequences=max_sequences
        )
        for split, max_sequences in (("train", 0), ("test", config.evaluation.max_sequences))
    )
    started = time.process_time()
    targets = forecast_by_text_length(train_sample_settings, test, codes)
    seconds = time.process_time() - started
    estimates = estimate_metrics(targets, seconds_per_unit=manifest.seconds_per_unit, resamples=200)
    return {
        "metrics": {key: estimated.value for key, estimated in estimates.items()},
        "targets": len(targets),
        "seconds": seconds,
        "per_sequence": sequence_sums(targets),
    }


def _all_targets(test: list[History]) -> pa.Table:
    names = [history.sequence_id for history in test for _ in range(1, len(history.times))]
    places = [place for history in test for place in range(1, len(history.times))]
    return pa.table({"sequence_id": names, "position": pa.array(places, pa.int32())})


def _similar_fraction(config: RunConfig, delta: float) -> float:
    """Share of the training events that temporal compression marks as similar."""
    chosen = with_values(config, {"compression.strategy": "temporal", "compression.delta": delta})
    manifest, _ = open_store(config)
    settings = build_sample_settings(chosen.sample_sections, manifest, split="train")
    reader = StoreReader(settings.store)
    marks = [
        similar_events(
            sequence.events.slice(*sequence.span("train")),
            build_compression(chosen.sample_sections),
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
    soft = [Trial(data.name, "soft", SOFT, seed) for seed in seeds]
    mixed = [MIXTURE, *([MIXTURE_WITH_IMAGES] if data.has_images else [])]
    mixtures = [Trial(data.name, "mixture", name, seed) for name in mixed for seed in seeds]
    ours.sort(key=lambda trial: trial.name != PLAIN)
    count = sum(trial.name == PLAIN for trial in ours)
    plain, changed = ours[:count], ours[count:]
    first_seed, later_seeds = neural[: len(MODELS)], neural[len(MODELS) :]
    # the most important comparisons first, in case the benchmark is stopped early
    classical = Trial(data.name, "classical", "", 0)
    controls = [Trial(data.name, "control", BY_TEXT_LENGTH, 0)] if data.compares_texts else []
    return [
        classical,
        *controls,
        *experts,
        *soft,
        *plain[:1],
        *mixtures,
        *first_seed,
        *plain[1:],
        *changed,
        *later_seeds,
    ]


def run_trial(trial: Trial, budget: Budget) -> list[dict[str, Any]]:
    """Run a trial in this process and return its records."""
    data = data_sets(WORK)[trial.set]
    config = configuration(data, budget)
    if trial.kind == "classical":
        return run_classical(config, trial.set)
    if trial.kind == "neural":
        results = run_neural(config, trial.name, trial.seed, seconds=budget.neural_s)
    elif trial.kind == "mixture":
        if trial.name == MIXTURE_WITH_IMAGES:  # the plain model reads the images anyway
            config = with_values(config, {"expert.images": "last"})
        results = run_mixture(config, trial.seed, steps=budget.steps, max_steps=budget.expert_steps)
    elif trial.kind == "soft":
        results = run_soft(config, trial.seed, steps=budget.soft_steps)
    elif trial.kind == "control":
        results = run_control(config)
    elif trial.kind == "expert":
        [variant] = [variant for variant in EXPERTS if variant.name == trial.name]
        results = run_expert(config, variant, trial.seed, max_steps=budget.expert_steps)
    else:
        fraction = _similar_fraction(config, data.delta) if data.is_varied else 0.0
        [variant] = [
            variant
            for variant in variants(data, similar_fraction=fraction)
            if variant.name == trial.name
        ]
        config = configuration(data, budget, without_texts=variant.without_texts)
        results = run_variant(config, variant, trial.seed, budget)
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
    sums: Path,
    workers: int = 1,
) -> Results:
    """Run the unfinished trials, ``workers`` at a time with one core per trial."""
    WORK.mkdir(parents=True, exist_ok=True)
    results = Results(path, sums)
    available = data_sets(WORK)
    of_sets: list[list[Trial]] = []
    for name in sets:
        prepare_set(available[name], budget)
        of_sets.append(trials_of(available[name], seeds))
    # in turn over the sets, so that all sets have the same progress when the benchmark is stopped
    every = [trial for batch in zip_longest(*of_sets) for trial in batch if trial is not None]
    remaining = [
        trial
        for trial in every
        if not results.has(trial, budget)
        and (not only or trial.kind == "classical" or trial.name in only)
    ]
    for name in _without_texts(remaining, available):
        prepare_set(available[name], budget, without_texts=True)
    run_trials(remaining, partial(run_trial, budget=budget), results.add, workers=workers)
    return results


def _without_texts(trials: list[Trial], available: dict[str, DataSet]) -> list[str]:
    """Names of the data sets of which a trial reads the store without texts."""
    wanted = {(trial.set, trial.name) for trial in trials if trial.kind == "ours"}
    return sorted(
        {
            name
            for name, data in available.items()
            for variant in variants(data, similar_fraction=0.0)
            if variant.without_texts and (name, variant.name) in wanted
        }
    )


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
    sums = WORK / ("small_per_sequence" if arguments.small else "per_sequence")
    run(
        arguments.sets.split(",") if arguments.sets else available,
        [int(seed) for seed in arguments.seeds.split(",")],
        budget=SMALL if arguments.small else BUDGET,
        only=[name for name in arguments.only.split(";") if name],
        path=WORK / "small.jsonl" if arguments.small else HERE / "results.jsonl",
        sums=sums,
        workers=len(os.sched_getaffinity(0)),
    )
    if not arguments.small:
        write_report(HERE / "results.jsonl", HERE, budget=BUDGET, sums=sums)


if __name__ == "__main__":
    main()
