"""Ray Tune's tuner of a round of trials: build it or restore it, and run it."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray.tune
from ray.tune.schedulers import FIFOScheduler

from mmtpp.storage.filesystems import filesystem_of
from mmtpp.sweep.budget import Budget
from mmtpp.sweep.rounds import Round, check_round_limits, has_begun, save_round
from mmtpp.sweep.search import build_scheduler, build_searcher, param_space, to_python_values
from mmtpp.sweep.space import Sweep
from mmtpp.sweep.stopped_runs import StoppedRunCloser
from mmtpp.sweep.sweep_progress import SweepProgress
from mmtpp.sweep.trial import run_trial

logger = logging.getLogger(__name__)

TUNE_VARIABLES = (
    # Ray Tune's own handler would end the sweep at Ctrl-C as if it were finished
    "TUNE_DISABLE_SIGINT_HANDLER",
    # with two metrics, a report before the end of a trial may have only the first
    "TUNE_DISABLE_STRICT_METRIC_CHECKING",
)
DRIVER_BYTES = 2**29  # memory of the process that drives a trial


def load_or_build_tuner(
    sweep: Sweep,
    current_round: Round,
    folder: str,
    *,
    budget: Budget,
    concurrent_trials: int,
    parent_run_id: str,
) -> ray.tune.Tuner:
    """Build the tuner of a new round, or restore that of an interrupted round.

    Args:
        sweep: Sweep to run.
        current_round: Trials of the round.
        folder: Folder in which Ray Tune stores the round.
        budget: Budget of this process.
        concurrent_trials: Maximum number of concurrent trials.
        parent_run_id: Id of the sweep's run in MLflow.

    Raises:
        ConfigError: Limits that Ray Tune keeps have changed since the round was started.
    """
    trainable = _build_trainable(sweep, current_round, parent_run_id)
    if not has_begun(folder):
        save_round(sweep, folder, concurrent_trials, current_round)
        return _build_tuner(
            sweep,
            current_round,
            folder,
            trainable,
            budget=budget,
            concurrent_trials=concurrent_trials,
        )
    check_round_limits(sweep, folder, concurrent_trials)
    logger.info("resuming the trials in %s", folder)
    filesystem, path = filesystem_of(folder)
    return ray.tune.Tuner.restore(path, trainable, storage_filesystem=filesystem)


def _build_trainable(sweep: Sweep, current_round: Round, parent_run_id: str) -> Any:
    """Build the function that Ray Tune calls for each trial."""

    def driver(values: dict[str, Any]) -> None:
        trial_id = ray.tune.get_context().get_trial_id() or ""
        run_trial(
            sweep,
            to_python_values(values),
            parent_run_id=parent_run_id,
            trial_id=current_round.first_trial_id(trial_id),
            earlier_row=current_round.earlier_row(trial_id),
        )

    # no CPU for the driver: with one more CPU, a trial of two workers would not fit two CPUs
    return ray.tune.with_resources(driver, {"CPU": 0, "memory": DRIVER_BYTES})


def _build_tuner(
    sweep: Sweep,
    current_round: Round,
    folder: str,
    trainable: Any,
    *,
    budget: Budget,
    concurrent_trials: int,
) -> ray.tune.Tuner:
    """Build the tuner for the points of the round or, without points, for the whole space."""
    settings, points = sweep.settings, current_round.points
    filesystem, path = filesystem_of(folder)
    storage_path, _, name = path.rpartition("/")
    total = len(points) or sweep.num_trials
    return ray.tune.Tuner(
        trainable,
        param_space=param_space(sweep, is_grid=settings.searcher == "grid" and not points),
        tune_config=ray.tune.TuneConfig(
            num_samples=len(points) or settings.num_trials or 1,
            search_alg=build_searcher(sweep, points, concurrent_trials=concurrent_trials),
            scheduler=FIFOScheduler() if points else build_scheduler(sweep),
        ),
        run_config=ray.tune.RunConfig(
            name=name,
            storage_path=storage_path,
            storage_filesystem=filesystem,
            failure_config=ray.tune.FailureConfig(max_failures=settings.max_machine_failures),
            stop=budget,
            callbacks=[SweepProgress(sweep, total), budget, StoppedRunCloser(sweep.name)],
            verbose=0,
        ),
    )


def fit(tuner: ray.tune.Tuner) -> ray.tune.ResultGrid:
    """Run the trials of a tuner."""
    with _tune_environment():
        return tuner.fit()


@contextmanager
def _tune_environment() -> Iterator[None]:
    """Set the environment variables that Ray Tune reads while it runs trials."""
    before = {name: os.environ.get(name) for name in TUNE_VARIABLES}
    os.environ.update(dict.fromkeys(TUNE_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
