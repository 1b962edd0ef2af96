"""One trial: a model trained for some steps, and its likelihoods on held-out texts and events."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import mmtpp
from benchmarks.measure import processor
from benchmarks.quality.expert_trial import train_expert
from benchmarks.quality.mixture_trial import fit_mixture
from benchmarks.quality.trial import forecast, open_store, train
from mmtpp.config.load import with_values
from mmtpp.config.schema import RunConfig
from mmtpp.data.from_config import build_training_questions
from mmtpp.evaluate.actors.target_texts import GenerationTargets
from mmtpp.evaluate.combine import mixture_nll
from mmtpp.evaluate.scores.text_metrics import TEXT_SCORES
from mmtpp.model.cpu_bfloat16 import adapt_to_processor
from mmtpp.model.decoding.generation import GenerationSettings
from mmtpp.model.event_model import EventModel, EventModelSettings, build_event_model
from mmtpp.model.tokens.vocabulary import Vocabulary

ADAPTED, RANDOM, TINY = "SmolLM2, adapted", "same architecture, random weights", "tiny"
TINY_LONGER = "tiny, same CPU seconds"
EXPERT = "temporal expert"
NAMED, DATED = "SmolLM2, adapted, names of types", "SmolLM2, adapted, calendar"
TEMPLATES = {NAMED: {"template.types": "words"}, DATED: {"template.calendar": "hour"}}
"""Templates of the adapted model that write what a pretrained model can read."""
LORA_RANK, LORA_ALPHA = 64, 128


@dataclass(frozen=True, slots=True)
class Trial:
    """One model trained on a share of the training sequences.

    Attributes:
        model: Name of the model: ``ADAPTED``, ``RANDOM``, ``TINY``, ``TINY_LONGER``, ``EXPERT``, or
            one of ``TEMPLATES``.
        set: Name of the set of events.
        fraction: Share of the training sequences, above 0, at most 1.
        seed: Seed of initialisation and order of samples.
        steps: Number of updates; 0 scores the model without training. Of the expert, the largest
            number of updates of a network.
        learning_rate: Learning rate after the warm-up; the expert has its own.
    """

    model: str
    set: str
    fraction: float
    seed: int
    steps: int
    learning_rate: float


def write_random_base(base: Path, folder: Path, *, seed: int) -> Path:
    """Write a base of the same architecture and tokenizer with random weights, unless it exists."""
    if not (folder / "config.json").exists():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base))
        model.save_pretrained(folder)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(base / name, folder / name)
    return folder


def build_model(trial: Trial, vocabulary: Vocabulary, base: Path, work: Path) -> EventModel:
    """Build the model of a trial.

    Args:
        trial: The trial.
        vocabulary: Vocabulary of the store.
        base: Folder of the pretrained model.
        work: Folder for the bases with random weights.
    """
    is_adapted = trial.model in (ADAPTED, *TEMPLATES)
    path = None
    if is_adapted:
        path = base
    elif trial.model == RANDOM:
        path = write_random_base(base, work / f"random_{trial.seed}", seed=trial.seed)
    settings = EventModelSettings(
        lora_rank=LORA_RANK if is_adapted else 0,
        lora_alpha=LORA_ALPHA,
        lora_dropout=0.0,
        freeze_vision=True,
        activation_checkpointing=False,
        seed=trial.seed,
        dtype=torch.bfloat16 if path else torch.float32,
    )
    adapt_to_processor(torch.device("cpu"), settings.dtype)
    return build_event_model(settings, vocabulary, path=path)


@dataclass(frozen=True, slots=True)
class Extras:
    """What is measured of a trained language model beside its likelihoods.

    Attributes:
        expert_steps: Largest number of updates of a network of the expert that is mixed with it.
        written_share: Share of the held-out events whose texts it writes, 0 to 1.
    """

    expert_steps: int
    written_share: float

    def generation(self, max_tokens: int) -> GenerationTargets:
        """The texts to write, of at most ``max_tokens`` tokens; the same ones for all models."""
        return GenerationTargets(GenerationSettings(max_tokens), self.written_share, seed=0)


def run_trial(
    config: RunConfig,
    trial: Trial,
    base: Path,
    work: Path,
    *,
    split: str = "test",
    extras: Extras | None = None,
) -> dict[str, Any]:
    """Train and score one model; returns the record of the trial.

    Args:
        config: Settings of the data and of the step.
        trial: The trial.
        base: Folder of the pretrained model.
        work: Folder for the bases with random weights.
        split: Split whose targets are scored.
        extras: What else is measured of a language model; None for nothing.
    """
    _, vocabulary = open_store(config)
    if trial.model == EXPERT:
        trained = train_expert(config, seed=trial.seed, max_steps=trial.steps)
        targets = trained.forecast(config, split=split)
        return _record(trial, trained.seconds, targets, likelihoods(targets, None))
    model = build_model(trial, vocabulary, base, work)
    config = with_values(
        config,
        {
            "training.seed": trial.seed,
            "training.num_steps": max(1, trial.steps),
            "training.learning_rate": trial.learning_rate,
            **TEMPLATES.get(trial.model, {}),
        },
    )
    seconds = 0.0
    if trial.steps:
        precision = "float32" if trial.model in (TINY, TINY_LONGER) else "bfloat16"
        model, seconds = train(
            config, build_training_questions(config.tasks), model=model, precision=precision
        )
    generation = extras and extras.generation(config.template.max_text_tokens)
    with torch.inference_mode():
        targets = forecast(config, model, split=split, generation=generation)
    metrics = likelihoods(targets, text_bytes(config, vocabulary))
    if extras is not None:
        metrics |= _written_scores(targets)
        metrics |= _mixed_likelihoods(config, model, targets, extras.expert_steps, split=split)
    return _record(trial, seconds, targets, metrics)


def _written_scores(targets: pa.Table) -> dict[str, float]:
    """Number of written texts, and their mean similarity with the true ones."""
    scores = {name: float(np.nanmean(_values(targets, name))) for name in TEXT_SCORES}
    return {"written": float(len(targets) - targets["written"].null_count), **scores}


def _mixed_likelihoods(
    config: RunConfig, model: EventModel, targets: pa.Table, expert_steps: int, *, split: str
) -> dict[str, float]:
    """Likelihoods of the mixture with an expert, whose gate is fitted on the validation split.

    Args:
        config: Settings of the trial.
        model: The trained language model.
        targets: Its forecasts of the split.
        expert_steps: Largest number of updates of a network of the expert.
        split: Split whose targets are scored.
    """
    expert = train_expert(config, seed=config.training.seed, max_steps=expert_steps)
    with torch.inference_mode():
        fit, _ = fit_mixture(config, model, expert)
    time, kind = mixture_nll(
        targets, expert.forecast(config, split=split), fit.gate, tick=expert.inputs.tick
    )
    return {
        "mixed_time": float(np.nanmean(time)),
        "mixed_type": float(np.nanmean(kind)),
        "gate_time": fit.gate.time,
        "gate_type": fit.gate.type,
    }


def _record(
    trial: Trial, seconds: float, targets: pa.Table, metrics: Mapping[str, float]
) -> dict[str, Any]:
    """The record of a finished trial."""
    return {
        **asdict(trial),
        "cpu_s": seconds,
        "processor": processor(),
        "metrics": metrics,
        "targets": len(targets),
    }


def text_bytes(config: RunConfig, vocabulary: Vocabulary) -> dict[tuple[str, int], int]:
    """UTF-8 bytes of every text, as far as it is read, by sequence and position."""
    longest = config.template.max_text_tokens or None
    sizes = {}
    for sequence in mmtpp.load_sequences(config.store.uri):
        for position, ids in enumerate(vocabulary.encode_texts(list(sequence.texts))):
            text = vocabulary.decode_text(ids[:longest])
            sizes[sequence.sequence_id, position] = len(text.encode())
    return sizes


def likelihoods(targets: pa.Table, sizes: Mapping[tuple[str, int], int] | None) -> dict[str, float]:
    """Negative log-likelihoods of a table of forecasts, in nats.

    Args:
        targets: Table of ``targets.TARGET_SCHEMA``.
        sizes: Bytes of every text by sequence and position; None for a model that reads no texts as
            tokens.

    Returns:
        Nats per text token, per text byte and per text; nats per interval and per type, the type
        given the interval; and their sum, nats per event. Without ``sizes`` only ``time`` and
        ``type``.
    """
    time, kind = _values(targets, "time_nll"), _values(targets, "joint_type_nll")
    shown = {"time": float(np.nanmean(time)), "type": float(np.nanmean(kind))}
    if sizes is None:
        return shown
    keys = zip(targets["sequence_id"].to_pylist(), targets["position"].to_pylist(), strict=True)
    num_bytes = sum(sizes[key] for key in keys)
    text = _values(targets, "text_nll")
    return {
        "text_token": float(np.nansum(text) / np.nansum(_values(targets, "text_tokens"))),
        "text_byte": float(np.nansum(text) / num_bytes),
        "text": float(np.nanmean(text)),
        **shown,
        "event": float(np.nanmean(text)) + sum(shown.values()),
    }


def _values(targets: pa.Table, name: str) -> np.ndarray:
    return targets[name].to_numpy().astype(np.float64)


def read_results(path: Path) -> list[dict[str, Any]]:
    """Records of the finished trials."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def find_record(records: list[dict[str, Any]], trial: Trial) -> dict[str, Any] | None:
    """The record of a finished trial, of any number of updates above 0; None if not finished."""
    names = ("model", "set", "fraction", "seed")
    for record in records:
        same = all(record[name] == getattr(trial, name) for name in names)
        if same and (record["steps"] > 0) == (trial.steps > 0):
            return record
    return None
