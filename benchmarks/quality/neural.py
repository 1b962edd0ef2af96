"""Neural point processes of EasyTPP, on the same splits and for the same processor seconds.

    python -m benchmarks.quality.neural MODEL SECONDS SEED < sequences.json

Runs in a process of its own: EasyTPP seeds and configures torch for itself. Prints one JSON object.
Times are divided by the mean training interval, because its sampling expects intervals of about 1.

EasyTPP trains with the integral of the intensity read off at 20 evenly spaced points of an
interval. A model can hide mass between the points and then looks better than it is. Validation and
test use ``FINE_POINTS``; the likelihood by the points of training is kept as well.

The prediction of an interval is the mean of ``DRAWS`` samples, which approaches the forecast of the
least squared error. One sample, EasyTPP's default, has about twice the variance of that error. The
type is predicted from the same samples.

Simultaneous events are moved apart by random parts of half a tick of the clock. At an interval of
exactly zero the density of a model has no bound, and its likelihood says nothing about events.

ANHN is left out: the likelihood of an event depends on later events (``leakage.py``).
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

from benchmarks.quality.easytpp import DRAWS, TRAIN_POINTS, model_settings
from benchmarks.quality.leakage import MAX_EFFECT, effect_of_later_events

MODELS = ("NHP", "THP", "AttNHP", "IntensityFree", "RMTPP", "SAHP", "FullyNN", "ODETPP", "S2P2")
MAX_EVENTS = 128  # of a sequence; longer ones are cut, each part with a history of its own
BATCH = 64
FINE_BATCH = 8  # bounds the memory of the fine integral
FINE_POINTS = 200
ROUNDS = 4  # the draws of a round share their proposals
PER_VALIDATION = 2.0  # training takes at least so many times as long as validation
PARTS = {"train": "train", "validation": "dev", "test": "test"}


def run(model: str, seconds: float, seed: int, sequences: dict[str, Any]) -> dict[str, float]:
    """Train until the time is over, take the best epoch by validation, test once.

    Args:
        model: Name in ``MODELS``.
        seconds: Processor time of training, without validation.
        seed: Seed of initialisation and order.
        sequences: ``num_types``, ``tick`` of the clock and by split lists of ``[times, types]``.

    Returns:
        Minus the log-likelihood per event in the source's unit, RMSE and accuracy of the
        predictions, their number of draws, the epochs trained and the epoch of the best
        validation, and the processor seconds of training.

    Raises:
        ValueError: the likelihood of an event depends on later events.
    """
    effect = effect_of_later_events(model)
    if effect > MAX_EFFECT:
        raise ValueError(
            f"{model}: a later event changes the likelihood of earlier ones by {effect:.3g} nats"
        )
    with tempfile.TemporaryDirectory() as folder:
        scale = _write(Path(folder), sequences, random.Random(seed))
        metrics = _run(Path(folder), model, seconds, seed, int(sequences["num_types"]), scale)
    # the tick of simultaneous events is a half one; its probability goes over a whole one, as ours
    waits = _waits(sequences["test"])
    halved = math.log(2) * sum(not wait for wait in waits) / len(waits)
    return {key: value + halved if "nll" in key else value for key, value in metrics.items()}


def _waits(split: list[Any]) -> list[float]:
    return [b - a for times, _ in split for a, b in itertools.pairwise(times)]


def _write(folder: Path, sequences: dict[str, Any], source: random.Random) -> float:
    """EasyTPP's pickles; returns the mean training interval."""
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
    """EasyTPP's file of settings for a trial."""
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
            "model_config": model_settings(num_types),
        },
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def _run(
    folder: Path, model: str, seconds: float, seed: int, num_types: int, scale: float
) -> dict[str, float]:
    import torch
    from easy_tpp.config_factory import Config  # pyright: ignore[reportMissingImports]
    from easy_tpp.runner import Runner  # pyright: ignore[reportMissingImports]
    from easy_tpp.utils import RunnerPhase  # pyright: ignore[reportMissingImports]

    path = _configuration(folder, model, seed, num_types)
    runner = Runner.build_from_config(Config.build_from_yaml_file(str(path), experiment_id="trial"))
    source = runner._data_loader
    loaders = {"train": source.train_loader()}
    source.kwargs["batch_size"] = FINE_BATCH
    loaders |= {"valid": source.valid_loader(), "test": source.test_loader()}
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
        scores = runner.run_one_epoch(loaders["valid"], RunnerPhase.VALIDATE)["loglike"]
        if scores > best:
            best, best_epoch = scores, epochs
            runner.model_wrapper.save(saved)
        next_validation = spent + PER_VALIDATION * (time.process_time() - started)
    if best == -math.inf:
        raise ValueError(f"{model}: no validation gave a finite likelihood in {epochs} epochs")
    runner.model_wrapper.restore(saved)
    network.loss_integral_num_sample_per_step = TRAIN_POINTS
    coarse = runner.run_one_epoch(loaders["test"], RunnerPhase.VALIDATE)["loglike"]
    network.loss_integral_num_sample_per_step = FINE_POINTS
    network.event_sampler = sampler
    if model != "IntensityFree":  # which samples without thinning
        _sample_in_rounds(network)
    scores = runner.run_one_epoch(loaders["test"], RunnerPhase.VALIDATE)
    return {
        "joint/nll_nats_per_event": -float(scores["loglike"]) + math.log(scale),
        "joint/nll_by_train_points": -float(coarse) + math.log(scale),
        "time/rmse": float(scores["rmse"]) * scale,
        "type/accuracy": float(scores["acc"]),
        "targets": float(scores["num_events"]),
        "seconds": spent,
        "epochs": float(epochs),
        "best_epoch": float(best_epoch),
        "draws": float(DRAWS),
    }


def _sample_in_rounds(network: Any) -> None:
    """Let EasyTPP's thinning draw ``DRAWS`` times from ``ROUNDS`` sets of proposals instead of one,
    and let models whose intensity is a derivative take it while they sample."""
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
    """The batches of an epoch, fewer when the processor time is over."""
    for batch in batches:
        yield batch
        if time.process_time() > deadline:
            break


if __name__ == "__main__":
    name, budget, seed = sys.argv[1:]
    result = run(name, float(budget), int(seed), json.load(sys.stdin))
    print(json.dumps(result))
