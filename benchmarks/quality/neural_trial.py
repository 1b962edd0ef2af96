"""One trial of a neural baseline: ``neural.py`` in a process of its own."""

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.quality.differences import SUMS_SCHEMA
from benchmarks.quality.trial import open_store
from mmtpp.config.schema import RunConfig
from mmtpp.core.point_processes.history import History
from mmtpp.data.from_config import build_sample_settings
from mmtpp.data.samples.interval_range import interval_range
from mmtpp.evaluate.histories import read_histories

NO_TICK = 1e-9  # tick of continuous times; moves simultaneous events apart for EasyTPP


def run_neural(config: RunConfig, model: str, seed: int, *, seconds: float) -> dict[str, Any]:
    """Train and test one EasyTPP model; returns the fields of the record.

    Args:
        config: Settings of the plain model.
        model: Name in ``neural.MODELS``.
        seed: Seed of the trial.
        seconds: CPU seconds of training.
    """
    manifest, _ = open_store(config)
    histories = {
        split: _histories(config, split=split) for split in ("train", "validation", "test")
    }
    metrics = _call(config, histories, model, str(seconds), str(seed))
    if "error" in metrics:
        return {"metrics": {}, **metrics}
    metrics["time/rmse_s"] = metrics.pop("time/rmse") * manifest.seconds_per_unit
    seconds, targets = metrics.pop("seconds"), metrics.pop("targets")
    events, nll = np.array(metrics.pop("by_sequence"), np.float64).T
    test_ids = [history.sequence_id for history in histories["test"]]
    sums = pa.table([test_ids, events, nll], schema=SUMS_SCHEMA)
    return {
        "metrics": metrics,
        "seconds": seconds,
        "targets": int(targets),
        "per_sequence": sums.filter(pa.array(events > 0)),  # a sequence of one event has no target
    }


def curve_of_neural(config: RunConfig, model: str, seed: int, *, seconds: float) -> dict[str, Any]:
    """Train one EasyTPP model without a test; returns the result of ``neural.learning_curve``.

    Args:
        config: Settings of the plain model.
        model: Name in ``neural.MODELS``.
        seed: Seed of the trial.
        seconds: CPU seconds of training.
    """
    histories = {split: _histories(config, split=split) for split in ("train", "validation")}
    return _call(config, histories, model, str(seconds), str(seed), "--curve")


def _call(
    config: RunConfig, histories: dict[str, list[History]], *arguments: str
) -> dict[str, Any]:
    """What ``neural.py`` prints, or ``error`` if it fails."""
    manifest, _ = open_store(config)
    spans = interval_range(build_sample_settings(config.sample_sections, manifest, split="train"))
    sequences = {
        "num_types": sum(count > 0 for count in manifest.type_counts),
        "tick": spans.tick or NO_TICK,
        **{
            split: [[history.times.tolist(), history.types.tolist()] for history in of_split]
            for split, of_split in histories.items()
        },
    }
    process = subprocess.run(
        [sys.executable, "-m", "benchmarks.quality.neural", *arguments],
        input=json.dumps(sequences),
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode:
        lines = process.stderr.splitlines() or [f"ended with {process.returncode}, no message"]
        return {"error": lines[-1][:300]}
    return json.loads(process.stdout.splitlines()[-1])


def _histories(config: RunConfig, *, split: str) -> list[History]:
    """The sequences of a split in order of their ids; held-out ones up to ``max_sequences``."""
    manifest, _ = open_store(config)
    codes = [code for code, count in enumerate(manifest.type_counts) if count]
    settings = build_sample_settings(config.sample_sections, manifest, split=split)
    histories = sorted(read_histories(settings, codes), key=lambda history: history.sequence_id)
    if split == "train":
        return histories
    return histories[: config.evaluation.max_sequences or len(histories)]
