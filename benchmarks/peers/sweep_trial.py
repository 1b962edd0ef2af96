"""The same trainings alone, as trials of plain Optuna, and as trials of this project's sweeps.

``alone``: one ``pretrain`` after the other. ``optuna``: a study in a SQLite file whose objective
is ``pretrain``, one trial at a time. ``ours``: ``run_sweep``, one trial at a time. The trainings
differ only in their seeds. ``empty``: a study of Optuna whose trials do nothing.
"""

import os

os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray reads it on import

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna

from benchmarks.peers.measured_process import Meter, run_as_trial
from benchmarks.sweeps.overhead import METRIC, configuration
from mmtpp.config.load import with_values
from mmtpp.config.schema import RunConfig
from mmtpp.data.prepare import prepare
from mmtpp.runtime.session import start_ray
from mmtpp.sweep.run_sweep import run_sweep
from mmtpp.sweep.space import Sweep
from mmtpp.sweep.sweep_settings import SweepSettings
from mmtpp.train.launch import pretrain

SEED = "training.seed"
EMPTY_TRIALS = 50


def _alone(config: RunConfig, seeds: list[int]) -> None:
    for seed in seeds:
        pretrain(with_values(config, {SEED: seed}))


def _with_optuna(config: RunConfig, seeds: list[int]) -> None:
    def objective(trial: optuna.Trial) -> float:
        seed = trial.suggest_categorical(SEED, seeds)
        metrics: Any = pretrain(with_values(config, {SEED: seed}))["metrics"]
        return float(metrics[METRIC])

    _run_study(objective, {SEED: seeds})


def _run_study(objective: Callable[[optuna.Trial], float], space: dict[str, list[int]]) -> None:
    """Run a grid in a SQLite file, as Optuna's pages advise for studies that can be resumed."""
    with tempfile.TemporaryDirectory() as folder:
        sampler = optuna.samplers.GridSampler(space)
        study = optuna.create_study(storage=f"sqlite:///{folder}/study.db", sampler=sampler)
        study.optimize(objective)  # ends with the grid


def _with_ours(config: RunConfig, seeds: list[int]) -> None:
    settings = SweepSettings(name="peers", metric=(METRIC,), mode=("min",), max_concurrent=1)
    result = run_sweep(Sweep(settings, config, {SEED: seeds}))
    failed = [row for row in result["trials"] if row.get("error")]  # pyright: ignore
    if failed:
        raise RuntimeError(f"trials failed: {failed}")


def _empty() -> dict[str, Any]:
    numbers, meter = list(range(EMPTY_TRIALS)), Meter()
    _run_study(lambda trial: float(trial.suggest_categorical("x", numbers)), {"x": numbers})
    return {"ms_per_trial": 1000 * meter.wall_s / EMPTY_TRIALS}


def run(
    mode: str, seeds: list[int], num_steps: int, folder: str = "", runs: str = ""
) -> dict[str, Any]:
    """Run the trainings one after the other.

    Args:
        mode: ``alone``, ``optuna``, ``ours`` or ``empty``.
        seeds: Seeds of the trainings.
        num_steps: Number of steps of a training.
        folder: Folder of the real danmaku.
        runs: Folder of the runs; empty before.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if mode == "empty":
        return _empty()
    config = with_values(
        configuration(Path(folder)),
        {
            "training.num_steps": num_steps,
            "training.validate_every": num_steps,
            "run.storage_uri": runs,
        },
    )
    start_ray()
    prepare(config)  # once; later trials find the store
    work = {"alone": _alone, "optuna": _with_optuna, "ours": _with_ours}[mode]
    started = time.perf_counter()
    work(config, seeds)
    return {"s_per_trial": (time.perf_counter() - started) / len(seeds)}


if __name__ == "__main__":
    run_as_trial(run)
