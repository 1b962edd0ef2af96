"""Sequences of a data set for the comparison of evaluations, as JSON.

``split``: list of ``[times, types]`` for train, validation and test; ``num_types`` and ``tick``.
The test has the first sequences by id with at least a given number of targets.
"""

import os

os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray reads it on import

import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.measured_process import run_as_trial
from benchmarks.quality.results import BUDGET
from benchmarks.quality.run import WORK, configuration, prepare_set
from benchmarks.quality.sets import data_sets
from benchmarks.quality.trial import open_store
from mmtpp.config.load import with_values
from mmtpp.config.schema import RunConfig
from mmtpp.data.from_config import build_sample_settings
from mmtpp.data.samples.interval_range import interval_range
from mmtpp.evaluate.histories import read_histories

NO_TICK = 1e-9  # of continuous times, for networks that need a tick


def evaluation_config(name: str, num_test: int) -> RunConfig:
    """Settings of a data set's store, and of a test on its first sequences.

    Args:
        name: Name of the data set in ``benchmarks.quality.sets``.
        num_test: Number of tested sequences.
    """
    config = configuration(data_sets(WORK)[name], BUDGET)
    return with_values(config, {"evaluation.max_sequences": num_test})


def run(set_name: str, path: str, num_targets: int) -> dict[str, Any]:
    """Write the sequences.

    Args:
        set_name: Name of the data set.
        path: File to write.
        num_targets: Least number of targets of the test, if the set has as many.
    """
    prepare_set(data_sets(WORK)[set_name], BUDGET)
    config = evaluation_config(set_name, 0)
    manifest, _ = open_store(config)
    codes = [code for code, count in enumerate(manifest.type_counts) if count]
    tree: dict[str, Any] = {"num_types": len(codes)}
    for split in ("train", "validation", "test"):
        settings = build_sample_settings(config.sample_sections, manifest, split=split)
        histories = sorted(read_histories(settings, codes), key=lambda each: each.sequence_id)
        tree[split] = [[history.times.tolist(), history.types.tolist()] for history in histories]
    targets = np.cumsum([len(times) - 1 for times, _ in tree["test"]])
    tree["test"] = tree["test"][: int(np.searchsorted(targets, num_targets)) + 1]
    spans = interval_range(build_sample_settings(config.sample_sections, manifest, split="train"))
    tree["tick"] = spans.tick or NO_TICK
    Path(path).write_text(json.dumps(tree), encoding="utf-8")
    return {
        "num_test": len(tree["test"]),
        "targets": sum(len(times) - 1 for times, _ in tree["test"]),
        "num_types": len(codes),
    }


if __name__ == "__main__":
    run_as_trial(run)
