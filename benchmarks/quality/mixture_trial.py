"""One trial of the whole: a language model and a temporal expert, mixed by a fitted gate."""

import time
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.quality.differences import sequence_sums
from benchmarks.quality.expert_trial import TrainedExpert, train_expert
from benchmarks.quality.trial import forecast, open_store, train
from mmtpp.config.load import with_values
from mmtpp.config.schema import RunConfig
from mmtpp.core.representation.supervision import AllTokens
from mmtpp.data.from_config import build_training_questions
from mmtpp.evaluate.combine import GateFit, fit_gate
from mmtpp.evaluate.scores.metrics import estimate_metrics
from mmtpp.expert.gated_expert import GatedExpert
from mmtpp.model.event_model import EventModel


def run_mixture(
    config: RunConfig, seed: int, *, steps: tuple[int, int], max_steps: int
) -> dict[str, Any]:
    """Train the plain language model and the expert, fit their gate on the validation split, and
    forecast the test split; returns the fields of the record.

    Args:
        config: Settings of the plain model.
        seed: Seed of both trainings.
        steps: Number of steps of the language model's two stages.
        max_steps: Largest number of updates of a network of the expert.
    """
    trained = train_expert(config, seed=seed, max_steps=max_steps)
    config = with_values(config, {"training.seed": seed, "training.num_steps": steps[0]})
    model, first_s = train(config, AllTokens())
    config = with_values(config, {"training.num_steps": steps[1]})
    model, second_s = train(config, build_training_questions(config.tasks), model=model)
    started = time.process_time()
    fit, gated = fit_mixture(config, model, trained)
    fit_s = time.process_time() - started
    started = time.process_time()
    targets = forecast(config, model, split="test", gated=gated)
    test_s = time.process_time() - started
    parts = {
        "language_model": forecast(config, model, split="test"),
        "expert": trained.forecast(config, split="test"),
    }
    manifest, _ = open_store(config)
    estimates = estimate_metrics(targets, seconds_per_unit=manifest.seconds_per_unit, resamples=200)
    return {
        "metrics": {key: estimated.value for key, estimated in estimates.items()},
        "targets": len(targets),
        "seconds": trained.seconds + first_s + second_s + fit_s,
        "test_s": test_s,
        "gate": asdict(fit.gate),
        "validation": fit.nll,
        "parts": {name: _nll(table) for name, table in parts.items()},
        "per_sequence": sequence_sums(targets),
    }


def fit_mixture(
    config: RunConfig, model: EventModel, trained: TrainedExpert
) -> tuple[GateFit, GatedExpert]:
    """Fit the gate between a language model and an expert on the validation split.

    Args:
        config: Settings of the trial; ``evaluation.max_sequences`` applies to the split.
        model: The language model.
        trained: The expert.
    """
    fit = fit_gate(
        forecast(config, model, split="validation"),
        trained.forecast(config, split="validation"),
        tick=trained.inputs.tick,
        where=config.store.uri,
    )
    return fit, GatedExpert(trained.expert, trained.inputs.trained_tasks.type_codes, fit.gate)


def _nll(targets: pa.Table) -> dict[str, float]:
    """Nats an event of the time, and of the type given the time."""
    return {
        name: float(np.nanmean(targets[f"{name}_nll"].to_numpy()))
        for name in ("time", "joint_type")
    }
