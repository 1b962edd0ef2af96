"""One trial of the temporal expert: trained and tested in this process, without Ray."""

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.quality.differences import sequence_sums
from benchmarks.quality.trial import open_store
from mmtpp.config.load import with_values
from mmtpp.config.schema import RunConfig
from mmtpp.data.settings import sample_settings
from mmtpp.evaluate.expert_model_forecasts import ForecastSettings, forecast_sequences
from mmtpp.evaluate.metrics import estimate_metrics
from mmtpp.expert.expert_folder import Expert
from mmtpp.expert.expert_forecasts import GRID_FACTOR
from mmtpp.expert.read_sequences import SequenceSettings, read_sequences
from mmtpp.expert.scores import Ranks
from mmtpp.track.mlflow_tracker import RunIdentity
from mmtpp.train.expert_loop import build_fit
from mmtpp.train.launch.expert_job import build_inputs


@dataclass(frozen=True, slots=True)
class ExpertVariant:
    """The expert with the default settings, or with one change.

    Attributes:
        name: Name of the row in the table.
        changes: Changed settings.
    """

    name: str
    changes: dict[str, Any] = field(default_factory=dict)


EXPERTS = (
    ExpertVariant("temporal expert"),
    ExpertVariant("temporal expert, one network", {"expert.num_networks": 1}),
    ExpertVariant("temporal expert without calendar", {"expert.calendar": False}),
    ExpertVariant("temporal expert, text length", {"expert.texts": "length"}),
    ExpertVariant("temporal expert without texts", {"expert.texts": "none"}),
)


def run_expert(
    config: RunConfig, variant: ExpertVariant, seed: int, *, max_updates: int
) -> dict[str, Any]:
    """Train an expert and forecast the test split; returns the fields of the record."""
    config = with_values(
        config,
        {**variant.changes, "training.seed": seed, "expert.max_updates": max_updates},
    )
    manifest, _ = open_store(config)
    inputs = build_inputs(config, manifest, RunIdentity("", "", ""), reports_validation=False)
    started = time.process_time()
    fit = build_fit(inputs, Ranks())
    num_events = 0
    while not fit.is_finished:
        num_events += fit.run_update().num_events
        if fit.validation_is_due:
            fit.validate()
    seconds = time.process_time() - started
    started = time.process_time()
    expert = Expert(fit.memory, inputs.tick, tuple(fit.networks()))
    codes = inputs.trained_tasks.type_codes
    held_out = sample_settings(config.sample_sections, manifest, split="test")
    sequences = read_sequences(SequenceSettings(held_out, codes, expert.texts))
    grid = inputs.trained_tasks.intervals.grid(num_bytes=2).coarsened(GRID_FACTOR)
    targets = forecast_sequences(expert, sequences, ForecastSettings(grid, np.asarray(codes)))
    estimates = estimate_metrics(targets, seconds_per_unit=manifest.seconds_per_unit, resamples=200)
    per_network = fit.events_per_epoch * len(expert.networks)
    return {
        "metrics": {
            **{key: estimated.value for key, estimated in estimates.items()},
            "epochs": num_events / per_network,
        },
        "targets": len(targets),
        "seconds": seconds,
        "events_per_s": num_events / seconds,
        "test_s": time.process_time() - started,
        "validation": fit.progress.finished_nll,
        "per_sequence": sequence_sums(targets),
    }
