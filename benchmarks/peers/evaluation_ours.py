"""This project's evaluation of a temporal expert: the table of targets that ``evaluate`` writes.

``forecasts``: everything that ``evaluate`` computes for a target, from the memory of the past to
the exact likelihood, the quantiles of the interval, its CRPS, and the types. ``likelihood``: only
the exact likelihood of time and type. The expert learns for some steps; its size counts.
"""

import os

os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray reads it on import

from typing import Any

import numpy as np
import torch

from benchmarks.peers.evaluation_measure import measure, num_parameters
from benchmarks.peers.evaluation_rows import evaluation_config
from benchmarks.peers.measured_process import run_as_trial
from benchmarks.quality.expert_trial import train_expert
from benchmarks.quality.trial import open_store
from mmtpp.config.load import with_values
from mmtpp.data.from_config import build_sample_settings
from mmtpp.evaluate.kinds.evaluated_expert import ForecastAxes, forecast_sequences
from mmtpp.evaluate.scores.metrics import estimate_metrics
from mmtpp.expert.expert_folder import Expert
from mmtpp.expert.expert_forecasts import ExpertForecasts, density_grid
from mmtpp.expert.next_events import NextEvents, ScoredSequence
from mmtpp.expert.read_sequences import SequenceSettings, count_events, read_sequences


def likelihood(expert: Expert, sequences: list[ScoredSequence]) -> float:
    """Mean negative log-likelihood of time and type, in nats per event."""
    events = NextEvents.from_sequences(expert.memory, sequences, tick=expert.tick)
    forecasts = ExpertForecasts.after(expert.networks, events.inputs)
    log_density, log_types = forecasts.log_likelihoods(events.next_intervals)
    return -float((log_density + log_types.gather(1, events.next_types[:, None])[:, 0]).mean())


def run(set_name: str, num_test: int, networks: int, width: int, max_steps: int) -> dict[str, Any]:
    """Train an expert and evaluate it.

    Args:
        set_name: Name of the data set.
        num_test: Number of tested sequences.
        networks: Number of networks of the expert.
        width: Width of a network.
        max_steps: Largest number of updates of a network.
    """
    torch.set_num_threads(1)
    config = with_values(
        evaluation_config(set_name, num_test),
        {"expert.num_networks": networks, "expert.width": width},
    )
    trained = train_expert(config, seed=0, max_steps=max_steps)
    expert, tasks = trained.expert, trained.inputs.trained_tasks
    manifest, _ = open_store(config)
    held_out = build_sample_settings(
        config.sample_sections, manifest, split="test", max_sequences=num_test
    )
    sequences = read_sequences(
        SequenceSettings(held_out, tasks.type_codes, expert.texts, expert.reads_images)
    )
    axes = ForecastAxes(density_grid(tasks.interval_range), np.asarray(tasks.type_codes))
    targets = count_events(sequences)
    table = forecast_sequences(expert, sequences, axes)
    scores = estimate_metrics(table, seconds_per_unit=manifest.seconds_per_unit, resamples=2)
    return {
        "parameters": num_parameters(list(expert.networks)),
        "targets": targets,
        "accuracy": scores["type/accuracy"].value,
        "forecasts": measure(lambda: forecast_sequences(expert, sequences, axes), targets),
        "likelihood": measure(lambda: likelihood(expert, sequences), targets),
    }


if __name__ == "__main__":
    run_as_trial(run)
