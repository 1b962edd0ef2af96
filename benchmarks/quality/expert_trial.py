"""One trial of the temporal expert: trained and tested in this process, without Ray."""

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.quality.differences import sequence_sums
from benchmarks.quality.trial import open_store
from mmtpp.config.load import with_values
from mmtpp.config.schema import RunConfig
from mmtpp.data.from_config import sample_settings
from mmtpp.data.prepared_store import load_store
from mmtpp.evaluate.kinds.evaluated_expert import ForecastAxes, forecast_sequences
from mmtpp.evaluate.scores.metrics import estimate_metrics
from mmtpp.expert.expert_folder import Expert
from mmtpp.expert.expert_forecasts import density_grid
from mmtpp.expert.network_losses import Ranks
from mmtpp.expert.read_sequences import SequenceSettings, read_sequences
from mmtpp.track.tracker import RunIdentity
from mmtpp.train.expert_inputs import ExpertInputs
from mmtpp.train.expert_loop import build_expert, build_fit
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
    ExpertVariant("temporal expert with images", {"expert.images": "last"}),
)


@dataclass(frozen=True, slots=True)
class TrainedExpert:
    """An expert, and what its training took.

    Attributes:
        expert: The expert.
        inputs: Inputs of the training.
        seconds: CPU seconds of the training.
        num_events: Number of training events that its networks saw.
        epochs: The same number in epochs of one network.
        validation: Validation NLL of each network; None without validation events.
    """

    expert: Expert
    inputs: ExpertInputs
    seconds: float
    num_events: int
    epochs: float
    validation: list[float | None]

    def forecast(self, config: RunConfig, *, split: str) -> pa.Table:
        """Forecast every target of a split; returns a table of ``targets.TARGET_SCHEMA``."""
        manifest, _ = open_store(config)
        trained_tasks = self.inputs.trained_tasks
        held_out = sample_settings(
            config.sample_sections,
            manifest,
            split=split,
            max_sequences=config.evaluation.max_sequences,
        )
        settings = SequenceSettings(
            held_out, trained_tasks.type_codes, self.expert.texts, self.expert.reads_images
        )
        grid = density_grid(trained_tasks.interval_range)
        codes = np.asarray(trained_tasks.type_codes)
        return forecast_sequences(self.expert, read_sequences(settings), ForecastAxes(grid, codes))


def train_expert(config: RunConfig, *, seed: int, max_steps: int) -> TrainedExpert:
    """Train an expert in this process."""
    config = with_values(config, {"training.seed": seed, "expert.max_steps": max_steps})
    run = RunIdentity("", "", "")
    inputs = build_inputs(config, load_store(config.store.uri), run, reports_validation=False)
    started = time.process_time()
    fit = build_fit(inputs, Ranks())
    num_events = 0
    while not fit.is_finished:
        num_events += fit.run_step().num_events
        if fit.validation_is_due:
            fit.keep_or_end(fit.validate())
    expert = build_expert(fit, inputs)
    return TrainedExpert(
        expert=expert,
        inputs=inputs,
        seconds=time.process_time() - started,
        num_events=num_events,
        epochs=num_events / (fit.events_per_epoch * len(expert.networks)),
        validation=fit.progress.finished_nll,
    )


def run_expert(
    config: RunConfig, variant: ExpertVariant, seed: int, *, max_steps: int
) -> dict[str, Any]:
    """Train an expert and forecast the test split; returns the fields of the record."""
    config = with_values(config, variant.changes)
    trained = train_expert(config, seed=seed, max_steps=max_steps)
    started = time.process_time()
    targets = trained.forecast(config, split="test")
    manifest, _ = open_store(config)
    estimates = estimate_metrics(targets, seconds_per_unit=manifest.seconds_per_unit, resamples=200)
    return {
        "metrics": {
            **{key: estimated.value for key, estimated in estimates.items()},
            "epochs": trained.epochs,
        },
        "targets": len(targets),
        "seconds": trained.seconds,
        "events_per_s": trained.num_events / trained.seconds,
        "test_s": time.process_time() - started,
        "validation": trained.validation,
        "per_sequence": sequence_sums(targets),
    }
