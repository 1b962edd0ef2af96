"""A sweep in Ray Tune's terms: its space, searcher, scheduler and budget."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import ray.tune
from ray.tune.schedulers import (
    ASHAScheduler,
    FIFOScheduler,
    PopulationBasedTraining,
    TrialScheduler,
)
from ray.tune.search import ConcurrencyLimiter, Searcher
from ray.tune.search.basic_variant import BasicVariantGenerator
from ray.tune.search.optuna import OptunaSearch

from mmtpp.config.load import with_values
from mmtpp.data.machines import Need, places
from mmtpp.train.hardware import choose_hardware, workers
from tune.space import Domain, Sweep

STEP = "step"  # of the first job; what schedulers count
FINISHED = "finished"  # 1 in the last report of a trial that came to its end, 0 if it failed
ERROR = "error"  # why, in a line
SECONDS_PER_HOUR = 3600.0


def param_space(sweep: Sweep, *, is_grid: bool) -> dict[str, Any]:
    """Ray Tune's search space, in which lists are tried one by one or drawn from."""
    return {
        key: _range(choice)
        if isinstance(choice, Domain)
        else (ray.tune.grid_search(choice) if is_grid else ray.tune.choice(choice))
        for key, choice in sweep.space.items()
    }


def _range(domain: Domain) -> Any:
    low, high, step = domain.low, domain.high, domain.step
    if domain.is_whole:
        first, last = int(low), int(high)
        if step:  # the rounded ones hold both ends, the others not the upper
            rounded = ray.tune.qlograndint if domain.log else ray.tune.qrandint
            return rounded(first, last, int(step))
        return (ray.tune.lograndint if domain.log else ray.tune.randint)(first, last + 1)
    if step:
        return (ray.tune.qloguniform if domain.log else ray.tune.quniform)(low, high, step)
    return (ray.tune.loguniform if domain.log else ray.tune.uniform)(low, high)


def searcher(
    sweep: Sweep, points: Sequence[Mapping[str, Any]], *, at_once: int
) -> BasicVariantGenerator | Searcher:
    """What proposes trials: ``points`` alone, if there are any.

    Args:
        sweep: its settings.
        points: values of the whole space.
        at_once: trials at a time.
    """
    settings = sweep.settings
    if points or settings.searcher != "optuna":
        # Tune's own limit of concurrent trials does not concern this one
        return BasicVariantGenerator(
            points_to_evaluate=[dict(each) for each in points] or None,
            max_concurrent=at_once,
            random_state=settings.seed,
        )
    single = len(settings.metric) == 1
    proposing = OptunaSearch(
        metric=settings.metric[0] if single else list(settings.metric),
        mode=settings.mode[0] if single else list(settings.mode),
        seed=settings.seed,
    )
    return ConcurrencyLimiter(proposing, max_concurrent=at_once)


def scheduler(sweep: Sweep) -> TrialScheduler:
    """What stops or changes trials while they run."""
    settings = sweep.settings
    of = settings.scheduler
    if of.kind == "none":
        return FIFOScheduler()
    judged: dict[str, Any] = {
        "time_attr": STEP,
        "metric": settings.metric[0],
        "mode": settings.mode[0],
    }
    if of.kind == "asha":
        return ASHAScheduler(
            **judged,
            max_t=max(sweep.trial_config(each).training.num_steps for each in sweep.grid()),
            grace_period=of.grace_steps or of.every_steps,
            reduction_factor=of.reduction_factor,
        )
    return PopulationBasedTraining(
        **judged,
        perturbation_interval=of.every_steps,
        hyperparam_mutations={
            key: choice if isinstance(choice, list) else _range(choice)
            for key, choice in sweep.space.items()
        },
        quantile_fraction=of.quantile_fraction,
        log_config=False,
    )


class Budget(ray.tune.Stopper):
    """Stops everything when the workers of all trials have run for so long.

    Args:
        max_gpu_hours: in all; 0 for no limit.
        num_workers: of a trial, of the largest where they differ.
    """

    def __init__(self, max_gpu_hours: float, num_workers: int) -> None:
        self._max_hours, self._num_workers = max_gpu_hours or math.inf, num_workers
        self._seconds: dict[str, float] = {}

    @property
    def used_gpu_hours(self) -> float:
        """So far, by what trials have reported."""
        return self._num_workers * sum(self._seconds.values()) / SECONDS_PER_HOUR

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """A trial is over with its last report."""
        self._seconds[trial_id] = result["time_total_s"]
        return FINISHED in result

    def stop_all(self) -> bool:
        return self.used_gpu_hours >= self._max_hours


def largest_trial(sweep: Sweep) -> Need:
    """The workers of a trial with as many and as large ones as any has."""
    trainings = [sweep.trial_config(each).training for each in sweep.grid()]
    largest = {
        "training.num_workers": max(each.num_workers for each in trainings),
        "training.cpus_per_worker": max(each.cpus_per_worker for each in trainings),
    }
    config = with_values(sweep.config, largest)
    return workers(config, choose_hardware(config), config.training.num_workers)


def concurrency(need: Need, machines: Sequence[Mapping[str, float]], *, at_most: int) -> int:
    """Trials at a time, so that none holds what another waits for.

    Args:
        need: of the largest trial.
        machines: resources of each machine there is now.
        at_most: 0 for no such limit.
    """
    fitting = max(1, places(machines, need.each) // need.count)
    return min(fitting, at_most or fitting)
