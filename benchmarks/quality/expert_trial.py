"""One trial of the temporal expert: trained and tested in this process, without Ray."""

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.quality.differences import sequence_sums
from benchmarks.quality.learning_curve import LearningCurve
from benchmarks.quality.trial import open_store
from mmtpp.config.load import with_values
from mmtpp.config.schema import RunConfig
from mmtpp.data.from_config import build_sample_settings
from mmtpp.data.prepared_store import load_store
from mmtpp.evaluate.kinds.evaluated_expert import ForecastAxes, forecast_sequences
from mmtpp.evaluate.scores.metrics import estimate_metrics
from mmtpp.expert.expert_folder import Expert
from mmtpp.expert.expert_forecasts import density_grid
from mmtpp.expert.fit import ExpertFit
from mmtpp.expert.network_losses import Ranks
from mmtpp.expert.read_sequences import SequenceSettings, read_sequences
from mmtpp.track.tracker import RunIdentity
from mmtpp.train.build_expert_fit import build_expert, build_fit
from mmtpp.train.expert_inputs import ExpertInputs
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
        fit: The finished training.
        seconds: CPU seconds of the training, with its validations.
        curve: Validations of the first network, and the seconds and events of all networks; the
            seconds are those of reading the events and of training.
    """

    expert: Expert
    inputs: ExpertInputs
    fit: ExpertFit
    seconds: float
    curve: LearningCurve

    @property
    def epochs(self) -> float:
        """Number of training events that the networks saw, in epochs of one network."""
        return self.curve.num_events / (self.fit.events_per_epoch * len(self.expert.networks))

    def forecast(self, config: RunConfig, *, split: str) -> pa.Table:
        """Forecast every target of a split; returns a table of ``targets.TARGET_SCHEMA``."""
        manifest, _ = open_store(config)
        trained_tasks = self.inputs.trained_tasks
        held_out = build_sample_settings(
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
    return train_networks(expert_inputs(config, seed=seed, max_steps=max_steps))


def expert_inputs(config: RunConfig, *, seed: int, max_steps: int) -> ExpertInputs:
    """Inputs of the training of an expert."""
    config = with_values(config, {"training.seed": seed, "expert.max_steps": max_steps})
    run = RunIdentity("", "", "")
    return build_inputs(config, load_store(config.store.uri), run, reports_validation=False)


def train_networks(inputs: ExpertInputs) -> TrainedExpert:
    """Train the networks of an expert in this process."""
    started = time.process_time()
    curve = LearningCurve()
    with curve.training():
        fit = build_fit(inputs, Ranks())
    while not fit.is_finished:
        with curve.training():
            losses = fit.run_step()
        curve.num_events += losses.num_events
        if fit.validation_is_due:
            validation = fit.validate()
            if validation is not None and fit.progress.network == 0:
                curve.add_point(validation.nll)
            fit.record_validation(validation)
    expert = build_expert(fit, inputs)
    return TrainedExpert(
        expert=expert,
        inputs=inputs,
        fit=fit,
        seconds=time.process_time() - started,
        curve=curve,
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
        "events_per_s": trained.curve.num_events / trained.seconds,
        "test_s": time.process_time() - started,
        "validation": trained.fit.progress.finished_nll,
        "per_sequence": sequence_sums(targets),
    }
