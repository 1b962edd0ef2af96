"""EasyTPP's evaluation: ``run_one_epoch`` of its runner on the test split.

``forecasts``: the likelihood, by an integral over 20 points of every interval, and the prediction
of the next event from samples by thinning, as its runner evaluates. ``likelihood``: without the
prediction. IntensityFree has a closed form for both and needs neither.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers.evaluation_measure import fastest, measure, num_parameters
from benchmarks.peers.measured_process import run_as_trial
from benchmarks.quality.easytpp import TRAIN_POINTS
from benchmarks.quality.neural import Training, train


def run(model: str, path: str, seconds: float, batches: list[int], samples: int) -> dict[str, Any]:
    """Train a model and evaluate it.

    Args:
        model: Name of the model in EasyTPP.
        path: File of the sequences.
        seconds: CPU seconds of training.
        batches: Sizes of batches, in parts of sequences; the fastest counts.
        samples: Number of samples of a prediction; EasyTPP's default is 1.
    """
    torch.set_num_threads(1)
    sequences = json.loads(Path(path).read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        training = train(Path(folder), model, seconds, 0, sequences)
        training.sampler.num_sample = samples
        network = training.runner.model_wrapper.model
        network.loss_integral_num_sample_per_step = TRAIN_POINTS
        likelihood = {batch: _measure(training, batch)[1] for batch in batches}
        network.event_sampler = training.sampler
        forecasts = {batch: _measure(training, batch) for batch in batches}
    (scores, _), *_ = forecasts.values()
    return {
        "parameters": num_parameters([network]),
        "targets": int(scores["num_events"]),
        "accuracy": float(scores["acc"]),
        "likelihood": fastest(likelihood),
        "forecasts": fastest({batch: measured for batch, (_, measured) in forecasts.items()}),
    }


def _measure(training: Training, batch: int) -> tuple[Any, dict[str, float]]:
    """Scores of an evaluation with its present settings, and its measurement."""
    from easy_tpp.utils import RunnerPhase  # pyright: ignore[reportMissingImports]

    runner = training.runner
    runner._data_loader.kwargs["batch_size"] = batch
    loader = runner._data_loader.test_loader()

    def evaluate() -> Any:
        return runner.run_one_epoch(loader, RunnerPhase.VALIDATE)

    scores = evaluate()
    return scores, measure(evaluate, int(scores["num_events"]))


if __name__ == "__main__":
    run_as_trial(run)
