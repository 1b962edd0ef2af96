"""One learning curve: a model trained as in the trials of ``run.py``, with its validations.

All models of a curve are validated on the same sequences: the first ``evaluation.max_sequences`` of
the validation split, in order of their ids. No test split is read.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from benchmarks.quality import run as quality
from benchmarks.quality.expert_trial import EXPERTS, expert_inputs, train_networks
from benchmarks.quality.learning_curve import CurvePoint, LearningCurve
from benchmarks.quality.neural_trial import curve_of_neural
from benchmarks.quality.results import Budget, Trial
from benchmarks.quality.soft_trial import train_soft
from benchmarks.quality.trial import forecast, open_store, train
from mmtpp.config.load import with_values
from mmtpp.config.schema import RunConfig
from mmtpp.core.representation.supervision import AllTokens
from mmtpp.data.from_config import build_training_questions
from mmtpp.evaluate.scores.metrics import target_values
from mmtpp.model.event_model import EventModel
from mmtpp.train.expert_inputs import ExpertInputs

EXPERT = EXPERTS[0]  # with the default settings
NUM_PLAIN_VALIDATIONS = 8  # of stage 2, evenly spaced; trials of ``run.py`` have none


def run_curve(trial: Trial, budget: Budget) -> dict[str, Any]:
    """Train one model in this process, and return the record of its curve.

    Args:
        trial: A trial of ``curves.trials_of``.
        budget: The budget of ``run.py``.

    Returns:
        The fields of the trial, its ``budget``, and the fields of ``_as_record``; or ``error`` if
        EasyTPP failed.
    """
    config = quality.configuration(quality.data_sets(quality.WORK)[trial.set], budget)
    if trial.kind == "neural":
        fields = curve_of_neural(config, trial.name, trial.seed, seconds=budget.neural_s)
        if "error" not in fields:
            fields = _with_rates(fields, config)
    elif trial.kind == "expert":
        fields = _curve_of_expert(config, trial.seed, max_steps=budget.expert_steps)
    elif trial.kind == "soft":
        fields = _curve_of_soft(config, trial.seed, steps=budget.soft_steps)
    else:
        fields = _curve_of_plain(config, trial.seed, steps=budget.steps)
    return {**asdict(trial), "budget": trial.share(budget), **fields}


def _curve_of_expert(config: RunConfig, seed: int, *, max_steps: int) -> dict[str, Any]:
    """The first network against its own seconds and events, then the mean of all networks."""
    inputs = expert_inputs(config, seed=seed, max_steps=max_steps)
    trained = train_networks(_with_same_validation(inputs, config))
    losses = trained.fit.validation_losses(trained.expert.networks)
    assert losses is not None  # every set has validation sequences
    curve = trained.curve
    whole = CurvePoint(curve.seconds, curve.num_events, losses.nll)
    return _as_record(curve, config, num_targets=losses.num_events, whole=whole)


def _with_same_validation(inputs: ExpertInputs, config: RunConfig) -> ExpertInputs:
    """The inputs of an expert that validates on the sequences of the other models."""
    settings = inputs.validation_sequence_settings
    assert settings is not None
    limited = replace(settings.sample_settings, max_sequences=config.evaluation.max_sequences)
    return replace(inputs, validation_sequence_settings=replace(settings, sample_settings=limited))


def _curve_of_soft(config: RunConfig, seed: int, *, steps: int) -> dict[str, Any]:
    trained = train_soft(config, seed, steps=steps)
    validation = trained.validation
    num_targets = sum(
        len(validation.row(index).label_positions()) for index in range(len(validation))
    )
    return _as_record(trained.curve, config, num_targets=num_targets)


def _curve_of_plain(config: RunConfig, seed: int, *, steps: tuple[int, int]) -> dict[str, Any]:
    """Stage 1, whose model answers no question, then stage 2 with validations."""
    curve, num_targets = LearningCurve(), 0
    first = with_values(config, {"training.seed": seed, "training.num_steps": steps[0]})
    second = with_values(first, {"training.num_steps": steps[1]})
    spacing = np.linspace(0, steps[1], NUM_PLAIN_VALIDATIONS + 1)[1:].round()

    def validate(model: EventModel, num_steps: int) -> None:
        nonlocal num_targets
        if num_steps in spacing:
            nll, num_targets = validation_nll(second, model)
            curve.add_point(nll)
            model.train()

    model, _ = train(first, AllTokens(), curve=curve)
    questions = build_training_questions(second.tasks)
    train(second, questions, model=model, curve=curve, after_step=validate)
    return _as_record(curve, config, num_targets=num_targets)


def validation_nll(config: RunConfig, model: EventModel) -> tuple[float, int]:
    """NLL of the validation split in nats per event, as of the test split, and number of targets.

    Args:
        config: Settings of the trial.
        model: A model that was trained to answer questions.
    """
    values = target_values(forecast(config, model, split="validation"))
    num_targets = int(values["has_density"].sum())
    return float(values["joint_nll"].sum() / num_targets), num_targets


def _as_record(
    curve: LearningCurve,
    config: RunConfig,
    *,
    num_targets: int,
    whole: CurvePoint | None = None,
) -> dict[str, Any]:
    """The fields of a record.

    Args:
        curve: The curve.
        config: Settings of the trial.
        num_targets: Number of events of a validation.
        whole: Validation of a model of several parts; None where the points are of whole models.
    """
    fields = {
        "points": list(curve.points),
        "seconds": curve.seconds,
        "num_events": curve.num_events,
        "targets": num_targets,
    }
    if whole is not None:
        fields["whole"] = whole
    return _with_rates(fields, config)


def _with_rates(fields: dict[str, Any], config: RunConfig) -> dict[str, Any]:
    """The fields with epochs and events per second, and no validation that is not a number.

    An epoch has all training events but the first ones of the sequences, which are no targets.
    """
    manifest, _ = open_store(config)
    per_epoch = manifest.events_by_split["train"] - manifest.sequences_by_split["train"]
    cleaned: dict[str, Any] = {"points": list(map(_finite, fields["points"]))}
    if "whole" in fields:
        cleaned["whole"] = _finite(fields["whole"])
    return {
        **fields,
        **cleaned,
        "epochs": fields["num_events"] / per_epoch,
        "events_per_s": fields["num_events"] / fields["seconds"],
    }


def _finite(point: Sequence[Any]) -> CurvePoint | tuple[float, int, None]:
    """A point, with None for an NLL that is not a number."""
    whole = CurvePoint(*point)
    return whole if math.isfinite(whole.nll) else (whole.seconds, whole.num_events, None)
