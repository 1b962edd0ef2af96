"""Neural point processes of EasyTPP, on the same splits and for the same CPU seconds.

    python -m benchmarks.quality.neural MODEL SECONDS SEED [--curve] < sequences.json

Runs in a separate process, because EasyTPP seeds and configures torch. Prints one JSON object: the
result of ``run``, or with ``--curve`` that of ``learning_curve``, which reads no test split. Times
are divided by the mean training interval, because EasyTPP's sampling expects intervals of about 1.

EasyTPP trains with an integral of the intensity over 20 evenly spaced points of an interval. A
model can hide mass between the points, and its likelihood is then too good. Validation and test use
``FINE_POINTS`` points; the likelihood with the points of training is reported as well.

The prediction of an interval is the mean of ``DRAWS`` samples, which approximates the forecast with
the smallest squared error. With one sample, EasyTPP's default, the error has about twice the
variance. The type is predicted from the same samples.

Simultaneous events are moved apart by random fractions of half a tick of the clock: at an interval
of exactly zero the density of a model is unbounded, and its likelihood is meaningless.

IntensityFree is trained and scored by probabilities of whole ticks (``tick_likelihood.py``). On a
clock with coarse ticks, other models whose density can rise on every tick read intervals that are
spread over their tick at random, in all splits. A density of spread intervals is never better, on
average, than the probability of the tick divided by its length, so it cannot grow without bound.
Their RMSE is measured on the spread intervals, which adds at most a twelfth of the squared tick to
its square.
S2P2 had 1.76 nats per event on chess and 2.08 on transcripts without this, with an accuracy below
that of the most frequent type.

ANHN is left out, because its likelihood of an event depends on later events (``leakage.py``).
"""

import argparse
import itertools
import json
import math
import pickle
import random
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.quality.easytpp import (
    DRAWS,
    SCORES_TICKS,
    SPREADS_TICKS,
    TRAIN_POINTS,
    model_settings,
)
from benchmarks.quality.leakage import MAX_EFFECT, effect_of_later_events
from benchmarks.quality.learning_curve import CurvePoint
from benchmarks.quality.tick_likelihood import score_ticks

MODELS = ("NHP", "THP", "AttNHP", "IntensityFree", "RMTPP", "SAHP", "FullyNN", "ODETPP", "S2P2")
MAX_EVENTS = 128  # longer sequences are cut into parts with separate histories
BATCH = 64
FINE_BATCH = 8  # limits the memory of the fine integral
FINE_POINTS = 200
ROUNDS = 4  # the samples of a round share their proposals
PER_VALIDATION = 2.0  # minimum ratio of training time to validation time
COARSE_TICK = 0.01  # of the mean training interval; finer ticks are not spread
PARTS = {"train": "train", "validation": "dev", "test": "test"}


def run(model: str, seconds: float, seed: int, sequences: dict[str, Any]) -> dict[str, Any]:
    """Train for a given time, select the best epoch by validation, and test once.

    Args:
        model: Name in ``MODELS``.
        seconds: CPU seconds of training, without validation.
        seed: Seed of the initialisation and the order of the data.
        sequences: ``num_types``, ``tick`` of the clock, and lists of ``[times, types]`` by split.

    Returns:
        The negative log-likelihood per event in the source's time unit, RMSE and accuracy of the
        predictions, their number of samples, the number of epochs, the epoch of the best
        validation, and the CPU seconds of training. ``by_sequence``: number of targets and sum of
        the negative log-likelihoods of every test sequence.

    Raises:
        ValueError: The likelihood of an event depends on later events.
    """
    with tempfile.TemporaryDirectory() as folder:
        training = train(Path(folder), model, seconds, seed, sequences)
        metrics, losses = _test(training, model)
    halved = _nll_of_halves(sequences["test"])
    return {
        **{key: value + halved if "nll" in key else value for key, value in metrics.items()},
        "by_sequence": _by_sequence(sequences["test"], losses, training.scale),
    }


def learning_curve(
    model: str, seconds: float, seed: int, sequences: dict[str, Any]
) -> dict[str, Any]:
    """Train as ``run`` does, and return the validations.

    Args:
        model: Name in ``MODELS``.
        seconds: CPU seconds of training, without validation.
        seed: Seed of the initialisation and the order of the data.
        sequences: As for ``run``; the test split may be missing.

    Returns:
        ``points``: the fields of ``CurvePoint`` of every validation, with its negative
        log-likelihood per event in the source's time unit. ``seconds`` and ``num_events``: CPU
        seconds and number of events of the whole training. ``targets``: number of events of a
        validation.

    Raises:
        ValueError: The likelihood of an event depends on later events.
    """
    with tempfile.TemporaryDirectory() as folder:
        training = train(Path(folder), model, seconds, seed, sequences)
    halved = _nll_of_halves(sequences["validation"])
    return {
        "points": [
            (point.seconds, point.num_events, point.nll + halved) for point in training.points
        ],
        "seconds": training.seconds,
        "num_events": training.num_events,
        "targets": len(_waits(sequences["validation"])),
    }


def _nll_of_halves(split: list[Any]) -> float:
    """What the halves of ticks add to the negative log-likelihood of an event, in nats.

    Simultaneous events were spread over half a tick; this project spreads them over a whole tick.
    """
    waits = _waits(split)
    return math.log(2) * sum(not wait for wait in waits) / len(waits)


def _by_sequence(split: list[Any], losses: list[float], scale: float) -> list[list[float]]:
    """Number of targets and sum of the negative log-likelihoods of every sequence.

    Args:
        split: ``[times, types]`` of the sequences.
        losses: Sums of EasyTPP's losses of the parts of all sequences, in order.
        scale: Mean training interval.
    """
    remaining, sums = iter(losses), []
    for times, _ in split:
        num_targets = max(0, len(times) - 1)
        num_parts = len(range(0, num_targets, MAX_EVENTS))
        loss = sum(itertools.islice(remaining, num_parts))
        num_zeros = sum(after == before for before, after in itertools.pairwise(times))
        nll = loss + num_targets * math.log(scale) + num_zeros * math.log(2)
        sums.append([num_targets, nll])
    return sums


def _waits(split: list[Any]) -> list[float]:
    return [after - before for times, _ in split for before, after in itertools.pairwise(times)]


def _write(folder: Path, model: str, sequences: dict[str, Any], source: random.Random) -> float:
    """Write EasyTPP's pickles; returns the mean training interval."""
    waits = _waits(sequences["train"])
    scale = sum(waits) / len(waits)
    tick = sequences["tick"]
    spread = tick if _spreads_ticks(model, tick / scale) else 0.0
    for split, part in PARTS.items():
        if split not in sequences:
            continue
        written = []
        for times, types in sequences[split]:
            for start in range(0, len(times) - 1, MAX_EVENTS):
                chunk = times[start : start + MAX_EVENTS + 1]
                before, moved = chunk[0], 0.0
                events: list[dict[str, float]] = []
                for at, kind in zip(chunk, types[start : start + MAX_EVENTS + 1], strict=True):
                    wait = at - before
                    if events and not wait:
                        wait = tick / 2 * (1 - source.random())
                        moved += wait * bool(spread)
                    elif events and spread:
                        shift = spread * (source.random() - 0.5)
                        wait, moved = wait + shift, moved + shift
                    events.append(
                        {
                            "time_since_start": (at - chunk[0] + moved) / scale,
                            "time_since_last_event": wait / scale,
                            "type_event": kind,
                        }
                    )
                    before = at
                written.append(events)
        content = {"dim_process": sequences["num_types"], part: written}
        (folder / f"{part}.pkl").write_bytes(pickle.dumps(content))
    return scale


def _spreads_ticks(model: str, tick: float) -> bool:
    """Whether intervals are spread over their tick.

    Args:
        model: Name in ``MODELS``.
        tick: Tick of the clock, divided by the mean training interval.
    """
    return model in SPREADS_TICKS and tick > COARSE_TICK


def _configuration(folder: Path, model: str, seed: int, num_types: int) -> Path:
    """Write EasyTPP's configuration file of a trial; returns its path."""
    tree = {
        "pipeline_config_id": "runner_config",
        "data": {
            "set": {
                "data_format": "pkl",
                "train_dir": str(folder / "train.pkl"),
                "valid_dir": str(folder / "dev.pkl"),
                "test_dir": str(folder / "test.pkl"),
                "data_specs": {
                    "num_event_types": num_types,
                    "pad_token_id": num_types,
                    "padding_side": "right",
                },
            }
        },
        "trial": {
            "base_config": {
                "stage": "train",
                "backend": "torch",
                "dataset_id": "set",
                "runner_id": "std_tpp",
                "model_id": model,
                "base_dir": str(folder / "runs"),
            },
            "trainer_config": {
                "batch_size": BATCH,
                "max_epoch": 1,
                "shuffle": True,
                "optimizer": "adam",
                "learning_rate": 3e-3,
                "valid_freq": 1,
                "use_tfb": False,
                "metrics": ["acc", "rmse"],
                "seed": seed,
                "gpu": -1,
            },
            "model_config": model_settings(),
        },
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@dataclass(frozen=True, slots=True)
class Training:
    """A trained model with the weights of its best validation.

    Attributes:
        runner: EasyTPP's runner.
        sampler: EasyTPP's sampler of the model, which training and validation do not use.
        scale: Mean training interval.
        spreads_ticks: Whether intervals were spread over their tick.
        seconds: CPU seconds of training, without validation.
        num_events: Number of training events; repeated events count each time.
        epochs: Number of epochs that were begun.
        best_epoch: Epoch of the best validation.
        points: All validations, in nats per event in the source's time unit.
    """

    runner: Any
    sampler: Any
    scale: float
    spreads_ticks: bool
    seconds: float
    num_events: int
    epochs: int
    best_epoch: int
    points: list[CurvePoint]


def train(
    folder: Path, model: str, seconds: float, seed: int, sequences: dict[str, Any]
) -> Training:
    """Train a model and select its best epoch by validation."""
    effect = effect_of_later_events(model)
    if effect > MAX_EFFECT:
        raise ValueError(
            f"{model}: later events change the likelihood of earlier events by {effect:.3g} nats"
        )
    scale = _write(folder, model, sequences, random.Random(seed))
    if model == SCORES_TICKS:
        score_ticks(sequences["tick"] / scale)
    runner, phases = _build_runner(folder, model, seed, int(sequences["num_types"]))
    training_loader, validation_loader = _training_loaders(runner._data_loader)
    best, spent, epochs, best_epoch, next_validation = -math.inf, 0.0, 0, 0, 0.0
    num_events, points = 0, []
    saved = str(folder / "best")
    network = runner.model_wrapper.model
    sampler, network.event_sampler = network.event_sampler, None  # takes minutes at every epoch
    while spent < seconds:
        started = time.process_time()
        network.loss_integral_num_sample_per_step = TRAIN_POINTS
        batches = _until(training_loader, started + seconds - spent)
        trained = runner.run_one_epoch(batches, phases.TRAIN)
        spent += time.process_time() - started
        epochs, num_events = epochs + 1, num_events + int(trained["num_events"])
        if next_validation > spent < seconds:
            continue
        started = time.process_time()
        network.loss_integral_num_sample_per_step = FINE_POINTS
        likelihood = runner.run_one_epoch(validation_loader, phases.VALIDATE)["loglike"]
        points.append(CurvePoint(spent, num_events, -float(likelihood) + math.log(scale)))
        if likelihood > best:
            best, best_epoch = likelihood, epochs
            runner.model_wrapper.save(saved)
        next_validation = spent + PER_VALIDATION * (time.process_time() - started)
    if best == -math.inf:
        raise ValueError(f"{model}: no validation gave a finite likelihood in {epochs} epochs")
    runner.model_wrapper.restore(saved)
    spreads_ticks = _spreads_ticks(model, sequences["tick"] / scale)
    return Training(
        runner, sampler, scale, spreads_ticks, spent, num_events, epochs, best_epoch, points
    )


def _build_runner(folder: Path, model: str, seed: int, num_types: int) -> tuple[Any, Any]:
    """EasyTPP's runner of a trial, and its names of phases."""
    import torch
    from easy_tpp.config_factory import Config  # pyright: ignore[reportMissingImports]
    from easy_tpp.runner import Runner  # pyright: ignore[reportMissingImports]
    from easy_tpp.utils import RunnerPhase  # pyright: ignore[reportMissingImports]

    path = _configuration(folder, model, seed, num_types)
    runner = Runner.build_from_config(Config.build_from_yaml_file(str(path), experiment_id="trial"))
    torch.set_num_threads(1)
    return runner, RunnerPhase


def _test(training: Training, model: str) -> tuple[dict[str, float], list[float]]:
    """The metrics, and the loss of every part of the test sequences."""
    from easy_tpp.utils import RunnerPhase  # pyright: ignore[reportMissingImports]

    runner, scale = training.runner, training.scale
    network = runner.model_wrapper.model
    whole, parts = _test_loaders(runner._data_loader)
    network.loss_integral_num_sample_per_step = TRAIN_POINTS
    coarse = runner.run_one_epoch(whole, RunnerPhase.VALIDATE)["loglike"]
    network.loss_integral_num_sample_per_step = FINE_POINTS
    losses = [
        float(runner.model_wrapper.run_batch(part, RunnerPhase.VALIDATE)[0]) for part in parts
    ]
    network.event_sampler = training.sampler
    if model != "IntensityFree":  # it samples without thinning
        _sample_in_rounds(network)
    scores = runner.run_one_epoch(whole, RunnerPhase.VALIDATE)
    metrics = {
        "joint/nll_nats_per_event": -float(scores["loglike"]) + math.log(scale),
        "joint/nll_by_train_points": -float(coarse) + math.log(scale),
        "time/rmse": float(scores["rmse"]) * scale,
        "type/accuracy": float(scores["acc"]),
        "targets": float(scores["num_events"]),
        "seconds": training.seconds,
        "epochs": float(training.epochs),
        "best_epoch": float(training.best_epoch),
        "draws": float(DRAWS),
        "scores_ticks": float(model == SCORES_TICKS),
        "spreads_ticks": float(training.spreads_ticks),
    }
    return metrics, losses


def _training_loaders(source: Any) -> tuple[Any, Any]:
    """Loaders of EasyTPP's batches: the training split, and the validation split in small ones."""
    training = source.train_loader()
    source.kwargs["batch_size"] = FINE_BATCH
    return training, source.valid_loader()


def _test_loaders(source: Any) -> tuple[Any, Any]:
    """Loaders of the test split: in small batches, and one part in a batch."""
    source.kwargs["batch_size"] = FINE_BATCH
    whole = source.test_loader()
    source.kwargs["batch_size"] = 1
    return whole, source.test_loader()


def _sample_in_rounds(network: Any) -> None:
    """Let EasyTPP's thinning draw ``DRAWS`` samples from ``ROUNDS`` sets of proposals, not one.

    Also enables gradients during sampling for models whose intensity is a derivative.
    """
    import torch

    sampler, draw = network.event_sampler, network.event_sampler.draw_next_time_one_step
    sampler.num_sample = DRAWS // ROUNDS

    def draw_rounds(*arguments: Any, **named: Any) -> tuple[Any, Any]:
        times = torch.cat([draw(*arguments, **named)[0] for _ in range(ROUNDS)], dim=-1)
        return times, torch.full_like(times, 1 / times.shape[-1])

    sampler.draw_next_time_one_step = draw_rounds
    intensities = network.compute_intensities_at_sample_times

    def with_gradient(*arguments: Any, **named: Any) -> Any:
        with torch.enable_grad():
            return intensities(*arguments, **named).detach()

    if type(network).__name__ == "FullyNN":
        network.compute_intensities_at_sample_times = with_gradient


def _until(batches: Iterable[Any], deadline: float) -> Iterator[Any]:
    """Yield the batches of an epoch until the CPU time exceeds the deadline."""
    for batch in batches:
        yield batch
        if time.process_time() > deadline:
            break


def main() -> None:
    """Train a model on the sequences of the standard input, and print the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("seconds", type=float, help="CPU seconds of training")
    parser.add_argument("seed", type=int)
    parser.add_argument("--curve", action="store_true", help="print the validations; do not test")
    arguments = parser.parse_args()
    work = learning_curve if arguments.curve else run
    result = work(arguments.model, arguments.seconds, arguments.seed, json.load(sys.stdin))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
