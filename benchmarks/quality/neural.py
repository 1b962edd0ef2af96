"""Neural point processes of EasyTPP, on the same splits and for the same CPU seconds.

    python -m benchmarks.quality.neural MODEL SECONDS SEED < sequences.json

Runs in a separate process, because EasyTPP seeds and configures torch. Prints one JSON object.
Times are divided by the mean training interval, because EasyTPP's sampling expects intervals of
about 1.

EasyTPP trains with an integral of the intensity over 20 evenly spaced points of an interval. A
model can hide mass between the points, and its likelihood is then too good. Validation and test use
``FINE_POINTS`` points; the likelihood with the points of training is reported as well.

The prediction of an interval is the mean of ``DRAWS`` samples, which approximates the forecast with
the smallest squared error. With one sample, EasyTPP's default, the error has about twice the
variance. The type is predicted from the same samples.

Simultaneous events are moved apart by random fractions of half a tick of the clock: at an interval
of exactly zero the density of a model is unbounded, and its likelihood is meaningless.

IntensityFree is trained and scored by probabilities of whole ticks (``tick_likelihood.py``).

ANHN is left out, because its likelihood of an event depends on later events (``leakage.py``).
"""

import itertools
import json
import math
import pickle
import random
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from benchmarks.quality.easytpp import DRAWS, SCORES_TICKS, TRAIN_POINTS, model_settings
from benchmarks.quality.leakage import MAX_EFFECT, effect_of_later_events
from benchmarks.quality.tick_likelihood import score_ticks

MODELS = ("NHP", "THP", "AttNHP", "IntensityFree", "RMTPP", "SAHP", "FullyNN", "ODETPP", "S2P2")
MAX_EVENTS = 128  # longer sequences are cut into parts with separate histories
BATCH = 64
FINE_BATCH = 8  # limits the memory of the fine integral
FINE_POINTS = 200
ROUNDS = 4  # the samples of a round share their proposals
PER_VALIDATION = 2.0  # minimum ratio of training time to validation time
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
    effect = effect_of_later_events(model)
    if effect > MAX_EFFECT:
        raise ValueError(
            f"{model}: later events change the likelihood of earlier events by {effect:.3g} nats"
        )
    with tempfile.TemporaryDirectory() as folder:
        scale = _write(Path(folder), sequences, random.Random(seed))
        if model == SCORES_TICKS:
            score_ticks(sequences["tick"] / scale)
        metrics, losses = _run(
            Path(folder), model, seconds, seed, int(sequences["num_types"]), scale
        )
    # simultaneous events were spread over half a tick; this project spreads them over a whole tick
    waits = _waits(sequences["test"])
    halved = math.log(2) * sum(not wait for wait in waits) / len(waits)
    return {
        **{key: value + halved if "nll" in key else value for key, value in metrics.items()},
        "by_sequence": _by_sequence(sequences["test"], losses, scale),
    }


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


def _write(folder: Path, sequences: dict[str, Any], source: random.Random) -> float:
    """Write EasyTPP's pickles; returns the mean training interval."""
    waits = _waits(sequences["train"])
    scale = sum(waits) / len(waits)
    for split, part in PARTS.items():
        written = []
        for times, types in sequences[split]:
            for start in range(0, len(times) - 1, MAX_EVENTS):
                chunk = times[start : start + MAX_EVENTS + 1]
                before = chunk[0]
                events: list[dict[str, float]] = []
                for at, kind in zip(chunk, types[start : start + MAX_EVENTS + 1], strict=True):
                    wait = at - before
                    if events and not wait:
                        wait = sequences["tick"] / 2 * (1 - source.random())
                    events.append(
                        {
                            "time_since_start": (at - chunk[0]) / scale,
                            "time_since_last_event": wait / scale,
                            "type_event": kind,
                        }
                    )
                    before = at
                written.append(events)
        content = {"dim_process": sequences["num_types"], part: written}
        (folder / f"{part}.pkl").write_bytes(pickle.dumps(content))
    return scale


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


def _run(
    folder: Path, model: str, seconds: float, seed: int, num_types: int, scale: float
) -> tuple[dict[str, float], list[float]]:
    """The metrics, and the loss of every part of the test sequences."""
    import torch
    from easy_tpp.config_factory import Config  # pyright: ignore[reportMissingImports]
    from easy_tpp.runner import Runner  # pyright: ignore[reportMissingImports]
    from easy_tpp.utils import RunnerPhase  # pyright: ignore[reportMissingImports]

    path = _configuration(folder, model, seed, num_types)
    runner = Runner.build_from_config(Config.build_from_yaml_file(str(path), experiment_id="trial"))
    loaders = _loaders(runner._data_loader)
    torch.set_num_threads(1)
    best, spent, epochs, next_validation = -math.inf, 0.0, 0, 0.0
    saved = str(folder / "best")
    network = runner.model_wrapper.model
    sampler, network.event_sampler = network.event_sampler, None  # takes minutes at every epoch
    while spent < seconds:
        started = time.process_time()
        network.loss_integral_num_sample_per_step = TRAIN_POINTS
        runner.run_one_epoch(_until(loaders["train"], started + seconds - spent), RunnerPhase.TRAIN)
        spent += time.process_time() - started
        epochs += 1
        if next_validation > spent < seconds:
            continue
        started = time.process_time()
        network.loss_integral_num_sample_per_step = FINE_POINTS
        likelihood = runner.run_one_epoch(loaders["valid"], RunnerPhase.VALIDATE)["loglike"]
        if likelihood > best:
            best, best_epoch = likelihood, epochs
            runner.model_wrapper.save(saved)
        next_validation = spent + PER_VALIDATION * (time.process_time() - started)
    if best == -math.inf:
        raise ValueError(f"{model}: no validation gave a finite likelihood in {epochs} epochs")
    runner.model_wrapper.restore(saved)
    network.loss_integral_num_sample_per_step = TRAIN_POINTS
    coarse = runner.run_one_epoch(loaders["test"], RunnerPhase.VALIDATE)["loglike"]
    network.loss_integral_num_sample_per_step = FINE_POINTS
    losses = [
        float(runner.model_wrapper.run_batch(part, RunnerPhase.VALIDATE)[0])
        for part in loaders["parts"]
    ]
    network.event_sampler = sampler
    if model != "IntensityFree":  # it samples without thinning
        _sample_in_rounds(network)
    scores = runner.run_one_epoch(loaders["test"], RunnerPhase.VALIDATE)
    metrics = {
        "joint/nll_nats_per_event": -float(scores["loglike"]) + math.log(scale),
        "joint/nll_by_train_points": -float(coarse) + math.log(scale),
        "time/rmse": float(scores["rmse"]) * scale,
        "type/accuracy": float(scores["acc"]),
        "targets": float(scores["num_events"]),
        "seconds": spent,
        "epochs": float(epochs),
        "best_epoch": float(best_epoch),
        "draws": float(DRAWS),
        "scores_ticks": float(model == SCORES_TICKS),
    }
    return metrics, losses


def _loaders(source: Any) -> dict[str, Any]:
    """Loaders of EasyTPP's batches; ``parts`` has the test split, one part in a batch."""
    loaders = {"train": source.train_loader()}
    source.kwargs["batch_size"] = FINE_BATCH
    loaders |= {"valid": source.valid_loader(), "test": source.test_loader()}
    source.kwargs["batch_size"] = 1
    return loaders | {"parts": source.test_loader()}


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


if __name__ == "__main__":
    model_name, cpu_seconds, model_seed = sys.argv[1:]
    result = run(model_name, float(cpu_seconds), int(model_seed), json.load(sys.stdin))
    print(json.dumps(result))
