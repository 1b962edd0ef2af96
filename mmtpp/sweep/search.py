"""A sweep in Ray Tune's terms: space, searcher, scheduler and number of concurrent trials."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
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
from mmtpp.runtime.hardware import choose_hardware, worker_demand
from mmtpp.runtime.machines import ResourceDemand, num_fitting
from mmtpp.sweep.space import Sweep
from mmtpp.sweep.sweep_settings import Domain
from mmtpp.train.outcome import STEP


def param_space(sweep: Sweep, *, is_grid: bool) -> dict[str, Any]:
    """Ray Tune's search space.

    Args:
        sweep: Sweep with the space.
        is_grid: Whether every value of a list is tried; otherwise values are drawn from the list.
    """
    return {
        key: _sampler(choice)
        if isinstance(choice, Domain)
        else (ray.tune.grid_search(choice) if is_grid else ray.tune.choice(choice))
        for key, choice in sweep.space.items()
    }


def draw_trials(sweep: Sweep, count: int, *, seed: int) -> list[dict[str, Any]]:
    """Draw the values of ``count`` trials at random."""
    random = np.random.RandomState(seed)
    space = param_space(sweep, is_grid=False)
    return [
        to_python_values({key: domain.sample(random_state=random) for key, domain in space.items()})
        for _ in range(count)
    ]


def to_python_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Convert NumPy scalars, which Ray Tune's samplers return, to Python numbers."""
    return {key: value.item() if hasattr(value, "item") else value for key, value in values.items()}


def _sampler(domain: Domain) -> Any:
    """Ray Tune's distribution for a range."""
    low, high, step = domain.low, domain.high, domain.step
    if domain.is_whole:
        first, last = int(low), int(high)
        if step:  # Ray's rounded distributions include the upper end, the other ones do not
            rounded = ray.tune.qlograndint if domain.log else ray.tune.qrandint
            return rounded(first, last, int(step))
        return (ray.tune.lograndint if domain.log else ray.tune.randint)(first, last + 1)
    if step:
        return (ray.tune.qloguniform if domain.log else ray.tune.quniform)(low, high, step)
    return (ray.tune.loguniform if domain.log else ray.tune.uniform)(low, high)


def build_searcher(
    sweep: Sweep, points: Sequence[Mapping[str, Any]], *, concurrent_trials: int
) -> BasicVariantGenerator | Searcher:
    """Build the searcher that proposes trials.

    Args:
        sweep: Sweep with its settings.
        points: Values of the trials to run, each for the whole space; empty to search the space.
        concurrent_trials: Maximum number of concurrent trials.
    """
    settings = sweep.settings
    if points or settings.searcher != "optuna":
        # Ray Tune's general limit of concurrent trials does not apply to this generator
        return BasicVariantGenerator(
            points_to_evaluate=[dict(point) for point in points] or None,
            max_concurrent=concurrent_trials,
            random_state=settings.seed,
        )
    is_single = len(settings.metric) == 1
    optuna_search = OptunaSearch(
        metric=settings.metric[0] if is_single else list(settings.metric),
        mode=settings.mode[0] if is_single else list(settings.mode),
        seed=settings.seed,
    )
    return ConcurrencyLimiter(optuna_search, max_concurrent=concurrent_trials)


def build_scheduler(sweep: Sweep) -> TrialScheduler:
    """Build the scheduler that stops or changes trials while they run."""
    settings = sweep.settings
    scheduler = settings.scheduler
    if scheduler.kind == "none":
        return FIFOScheduler()
    criteria: dict[str, Any] = {
        "time_attr": STEP,
        "metric": settings.metric[0],
        "mode": settings.mode[0],
    }
    if scheduler.kind == "asha":
        return ASHAScheduler(
            **criteria,
            max_t=max(sweep.trial_config(values).training.num_steps for values in sweep.probes()),
            grace_period=scheduler.grace_steps or scheduler.every_steps,
            reduction_factor=scheduler.reduction_factor,
        )
    return PopulationBasedTraining(
        **criteria,
        perturbation_interval=scheduler.every_steps,
        hyperparam_mutations={
            key: choice if isinstance(choice, list) else _sampler(choice)
            for key, choice in sweep.space.items()
        },
        quantile_fraction=scheduler.quantile_fraction,
        custom_explore_fn=partial(_move_into_ranges, sweep),
        log_config=False,
    )


def _move_into_ranges(sweep: Sweep, values: dict[str, Any]) -> dict[str, Any]:
    """Move values that Ray has multiplied by 0.8 or 1.2 into their ranges, onto their steps."""
    moved = dict(values)
    for key, choice in sweep.space.items():
        if isinstance(choice, Domain):
            moved[key] = choice.nearest(values[key])
    return moved


def largest_trial(sweep: Sweep) -> ResourceDemand:
    """Demand of a trial with the most workers and the most CPUs per worker of all trials."""
    trainings = [sweep.trial_config(values).training for values in sweep.probes()]
    largest = {
        "training.num_workers": max(training.num_workers for training in trainings),
        "training.cpus_per_worker": max(training.cpus_per_worker for training in trainings),
    }
    config = with_values(sweep.config, largest)
    return worker_demand(
        config.training,
        choose_hardware(config.training, config.model.precision),
        config.training.num_workers,
    )


def max_concurrent_trials(
    need: ResourceDemand, machines: Sequence[Mapping[str, float]], *, at_most: int
) -> int:
    """Number of trials that fit at a time, so that no trial holds resources another waits for.

    Args:
        need: Resources that the largest trial needs.
        machines: Resources of each machine in the cluster.
        at_most: Upper limit; 0 for none.
    """
    fitting = max(1, num_fitting(machines, need.resources) // need.count)
    return min(fitting, at_most or fitting)
