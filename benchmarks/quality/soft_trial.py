"""One trial of soft tokens: a tiny model that reads one token per event."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from benchmarks.quality.differences import sequence_sums
from benchmarks.quality.learning_curve import LearningCurve
from benchmarks.quality.trial import Samples, batcher_of, open_store, start_training
from mmtpp.config.load import with_values
from mmtpp.config.schema import RunConfig
from mmtpp.core.representation.supervision import AllTokens
from mmtpp.core.times.clock import round_to_ticks
from mmtpp.core.training.sample_order import samples_of_step
from mmtpp.data.from_config import build_sample_settings
from mmtpp.evaluate.scores.density_targets import density_columns
from mmtpp.evaluate.scores.metrics import estimate_metrics
from mmtpp.evaluate.scores.targets import complete_targets, event_columns
from mmtpp.expert.expert_forecasts import GRID_FACTOR
from mmtpp.inference.assembled_row import AssembledRow
from mmtpp.model.base_folder import build_tiny
from mmtpp.model.event_model import EventModel
from mmtpp.soft.build_soft_model import build_soft_model
from mmtpp.soft.soft_model import SoftModel
from mmtpp.soft.soft_rollout import SoftDistributions
from mmtpp.soft.soft_start import SoftStart
from mmtpp.train.launch.soft_training import build_soft_start, build_soft_tasks
from mmtpp.train.step import train_step

SOFT = "soft tokens"
LEARNING_RATE = 2e-3
NUM_VALIDATIONS = 16
"""The weights of the best validation are kept, as ``training.validate_every`` does."""


@dataclass(frozen=True, slots=True)
class TrainedSoftModel:
    """A soft model with the weights of its best validation, and its training.

    Attributes:
        config: Settings of the trial.
        model: The model.
        start: Settings and statistics that the training began with.
        validation: Samples of the validation split.
        seconds: CPU seconds of the training, with its validations.
        curve: The validations, and the seconds and events of the training alone.
    """

    config: RunConfig
    model: SoftModel
    start: SoftStart
    validation: Samples
    seconds: float
    curve: LearningCurve

    def samples(self, split: str) -> Samples:
        """Samples of a split."""
        return _samples(self.config, self.start, split)

    def forecast(self, samples: Samples) -> pa.Table:
        """Forecast every target; returns a table of ``targets.TARGET_SCHEMA``."""
        return _forecast(self.config, self.model, samples)


def train_soft(config: RunConfig, seed: int, *, steps: int) -> TrainedSoftModel:
    """Train a soft model in this process.

    Args:
        config: Settings of the plain model.
        seed: Seed of the training.
        steps: Number of steps.
    """
    config = with_values(
        config,
        {
            "template.style": "soft",
            "training.seed": seed,
            "training.num_steps": steps,
            "training.learning_rate": LEARNING_RATE,
        },
    )
    manifest, _ = open_store(config)
    start = build_soft_start(config.expert, config.model, manifest, _settings(config, "train"))
    training, validation = (_samples(config, start, split) for split in ("train", "validation"))
    model = _build(config, start)
    began = time.process_time()
    curve = _train(config, model, training, validation)
    seconds = time.process_time() - began
    return TrainedSoftModel(config, model, start, validation, seconds, curve)


def run_soft(config: RunConfig, seed: int, *, steps: int) -> dict[str, Any]:
    """Train a soft model and forecast the test split; returns the fields of the record.

    Args:
        config: Settings of the plain model.
        seed: Seed of the training.
        steps: Number of steps.
    """
    trained = train_soft(config, seed, steps=steps)
    samples = trained.samples("test")
    began = time.process_time()
    targets = trained.forecast(samples)
    manifest, _ = open_store(config)
    estimates = estimate_metrics(targets, seconds_per_unit=manifest.seconds_per_unit, resamples=200)
    return {
        "metrics": {key: estimated.value for key, estimated in estimates.items()},
        "targets": len(targets),
        "seconds": trained.seconds,
        "events_per_s": trained.curve.num_events / trained.seconds,
        "test_s": time.process_time() - began,
        "validation": [point.nll for point in trained.curve.points],
        "per_sequence": sequence_sums(targets),
    }


def _samples(config: RunConfig, start: SoftStart, split: str) -> Samples:
    _, vocabulary = open_store(config)
    settings = replace(_settings(config, split), memory=start.settings.memory)
    return Samples.from_settings(settings, vocabulary)


def _settings(config: RunConfig, split: str):
    manifest, _ = open_store(config)
    settings = build_sample_settings(
        config.sample_sections,
        manifest,
        split=split,
        supervision=AllTokens(),
        max_sequences=0 if split == "train" else config.evaluation.max_sequences,
    )
    return replace(settings, packed=True)


def _build(config: RunConfig, start: SoftStart) -> SoftModel:
    _, vocabulary = open_store(config)
    seed = config.training.seed
    event_model = EventModel(build_tiny(vocabulary, seed=seed))
    event_model.base.model.visual.requires_grad_(config.shows_images)
    return build_soft_model(event_model, start, seed=seed, folder=None)


def _train(
    config: RunConfig, model: SoftModel, training: Samples, validation: Samples
) -> LearningCurve:
    """Train, and keep the weights of the best validation; returns all validations."""
    context = start_training(config, model)
    num_steps, curve = config.training.num_steps, LearningCurve()
    due = {round(num_steps * (index + 1) / NUM_VALIDATIONS) for index in range(NUM_VALIDATIONS)}
    best: dict[str, torch.Tensor] = {}
    for step in range(num_steps):
        with curve.training():
            chosen = samples_of_step(
                step,
                num_samples=len(training),
                samples_per_step=config.training.samples_per_step,
                fingerprint=training.fingerprint,
                seed=config.training.seed,
            )
            rows = [training.row(index) for index in chosen.tolist()]
            train_step(context, rows, step)
        curve.num_events += sum(len(row.label_positions()) for row in rows)
        if step + 1 in due:
            curve.add_point(_validate(config, model, validation))
            finite = [point.nll for point in curve.points if math.isfinite(point.nll)]
            if finite and curve.points[-1].nll == min(finite):
                best = {name: value.clone() for name, value in model.state_dict().items()}
    if not best:
        raise ValueError(f"no validation gave a finite likelihood in {num_steps} steps")
    model.load_state_dict(best)
    return curve


@torch.inference_mode()
def _validate(config: RunConfig, model: SoftModel, samples: Samples) -> float:
    """Nats an event of interval and type."""
    _, vocabulary = open_store(config)
    move = batcher_of(config, vocabulary)
    model.eval()
    losses = [model(move(samples.row(index)))[0] for index in range(len(samples))]
    model.train()
    return 2 * float(torch.cat(losses).double().mean())


def _forecast(config: RunConfig, model: SoftModel, samples: Samples) -> pa.Table:
    """Forecast every target; returns a table of ``targets.TARGET_SCHEMA``."""
    manifest, vocabulary = open_store(config)
    grid = build_soft_tasks(manifest, _settings(config, "train")).interval_range.grid(num_bytes=2)
    codes = np.asarray(model.settings.type_codes)
    forecaster = SoftDistributions(model.eval(), vocabulary.type_ids(codes.tolist()))
    move = batcher_of(config, vocabulary)
    tables = []
    for sample in _assembled(samples):
        row = sample.row
        events = row.event[row.label_positions()]
        intervals = round_to_ticks(sample.event_values("interval")[events], model.settings.tick)
        scores = density_columns(
            forecaster.forecast_labels(move(row)),
            torch.from_numpy(intervals.astype(np.float32)),
            np.searchsorted(codes, row.event_type[events]),
            grid=grid.coarsened(GRID_FACTOR),
            codes=codes,
        )
        tables.append(complete_targets(event_columns(sample, events) | scores, len(events)))
    return pa.concat_tables(tables)


def _assembled(samples: Samples) -> Iterator[AssembledRow]:
    for index in range(len(samples)):
        windows = samples.table["windows"][index].as_py()
        yield AssembledRow(samples.row(index), samples.assembled(index), windows)
