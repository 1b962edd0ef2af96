"""EasyTPP's evaluation: ``run_one_epoch`` of its runner on the test split.

``forecasts``: the likelihood, by an integral over 20 points of every interval, and the prediction
of the next event from one sample by thinning, as its runner evaluates. ``likelihood``: without the
prediction. IntensityFree has a closed form for both and needs neither.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers.evaluation_measure import measure, num_parameters
from benchmarks.peers.measured_process import run_as_trial
from benchmarks.quality.easytpp import TRAIN_POINTS
from benchmarks.quality.neural import train

SAMPLES = 1  # EasyTPP's default


def run(model: str, path: str, seconds: float, batch: int) -> dict[str, Any]:
    """Train a model and evaluate it.

    Args:
        model: Name of the model in EasyTPP.
        path: File of the sequences.
        seconds: CPU seconds of training.
        batch: Parts of sequences in a batch.
    """
    torch.set_num_threads(1)
    sequences = json.loads(Path(path).read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        training = train(Path(folder), model, seconds, 0, sequences)
    from easy_tpp.utils import RunnerPhase  # pyright: ignore[reportMissingImports]

    runner, sampler = training.runner, training.sampler
    network = runner.model_wrapper.model
    network.loss_integral_num_sample_per_step = TRAIN_POINTS
    runner._data_loader.kwargs["batch_size"] = batch
    loader = runner._data_loader.test_loader()

    def evaluate() -> Any:
        return runner.run_one_epoch(loader, RunnerPhase.VALIDATE)

    scores = evaluate()
    targets = int(scores["num_events"])
    result = {
        "parameters": num_parameters([network]),
        "targets": targets,
        "likelihood": measure(evaluate, targets),
    }
    if sampler is not None:
        sampler.num_sample = SAMPLES
    network.event_sampler = sampler
    predicted = evaluate()
    return {
        **result,
        "accuracy": float(predicted["acc"]),
        "forecasts": measure(evaluate, targets),
    }


if __name__ == "__main__":
    run_as_trial(run)
