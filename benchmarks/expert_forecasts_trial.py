"""One measurement of a temporal expert's forecasts, by the version of mmtpp on ``PYTHONPATH``.

``python -P benchmarks/expert_forecasts_trial.py ARGUMENTS`` with JSON arguments. It imports only
what earlier versions have too.
"""

import os

os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray reads it on import

from typing import Any

import numpy as np
import torch

from benchmarks.peers.evaluation_measure import measure
from benchmarks.peers.evaluation_rows import evaluation_config
from benchmarks.peers.measured_process import run_as_trial
from benchmarks.quality.trial import open_store
from mmtpp.data import from_config
from mmtpp.evaluate.kinds.evaluated_expert import ForecastAxes, forecast_sequences
from mmtpp.evaluate.scores.metrics import estimate_metrics
from mmtpp.expert.expert_folder import load_expert
from mmtpp.expert.expert_forecasts import density_grid
from mmtpp.expert.network_losses import event_losses
from mmtpp.expert.next_events import NextEvents
from mmtpp.expert.read_sequences import SequenceSettings, count_events, read_sequences
from mmtpp.model.folders.record import load_trained_tasks


def run(set_name: str, folder: str, num_test: int, networks: int) -> dict[str, Any]:
    """Forecast the test sequences of a data set.

    Args:
        set_name: Name of the data set.
        folder: Folder of the trained expert.
        num_test: Number of tested sequences; 0 tests all of them.
        networks: Number of the expert's networks that forecast.
    """
    torch.set_num_threads(1)
    expert, tasks = load_expert(folder), load_trained_tasks(folder)
    assert tasks is not None
    expert = type(expert)(expert.memory, expert.tick, expert.networks[:networks], expert.image_px)
    config = evaluation_config(set_name, num_test)
    manifest, _ = open_store(config)
    # earlier versions have it under the second name
    names = [
        name for name in ("build_sample_settings", "sample_settings") if name in vars(from_config)
    ]
    held_out = vars(from_config)[names[0]](
        config.sample_sections, manifest, split="test", max_sequences=num_test
    )
    sequences = read_sequences(
        SequenceSettings(held_out, tasks.type_codes, expert.texts, expert.reads_images)
    )
    axes = ForecastAxes(density_grid(tasks.interval_range), np.asarray(tasks.type_codes))
    targets = count_events(sequences)
    table = forecast_sequences(expert, sequences, axes)
    scores = estimate_metrics(table, seconds_per_unit=manifest.seconds_per_unit, resamples=2)

    def likelihoods() -> None:
        events = NextEvents.from_sequences(expert.memory, sequences, tick=expert.tick)
        event_losses(expert.networks, events)

    return {
        "targets": targets,
        "metrics": {name: score.value for name, score in scores.items() if "/at_" not in name},
        "whole distributions": measure(
            lambda: forecast_sequences(expert, sequences, axes), targets
        ),
        "likelihoods alone": measure(likelihoods, targets),
    }


if __name__ == "__main__":
    run_as_trial(run)
