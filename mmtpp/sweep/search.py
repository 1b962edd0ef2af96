"""A sweep in Ray Tune's terms: its space, searcher and scheduler, and how many trials fit."""

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

STEP = "step"  # of the first job; what schedulers count
FINISHED = "finished"  # 1 in the last report of a trial that came to its end, 0 if it failed
ERROR = "error"  # why, in a line
RUN = "run_name"  # of the first job
START = "start_uri"  # checkpoint of another run that this run started from, of a population


def param_space(sweep: Sweep, *, is_grid: bool) -> dict[str, Any]:
    """Ray Tune's search space, in which lists are tried one by one or drawn from."""
    return {
        key: _range(choice)
        if isinstance(choice, Domain)
        else (ray.tune.grid_search(choice) if is_grid else ray.tune.choice(choice))
        for key, choice in sweep.space.items()
    }


def drawn(sweep: Sweep, count: int, *, seed: int) -> list[dict[str, Any]]:
    """Values of so many trials, drawn at random."""
    random = np.random.RandomState(seed)
    space = param_space(sweep, is_grid=False)
    return [
        plain({key: domain.sample(random_state=random) for key, domain in space.items()})
        for _ in range(count)
    ]


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as Python has them; samplers return NumPy's numbers."""
    return {key: each.item() if hasattr(each, "item") else each for key, each in values.items()}


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
            max_t=max(sweep.trial_config(each).training.num_steps for each in sweep.probes()),
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
        custom_explore_fn=partial(_within, sweep),
        log_config=False,
    )


def _within(sweep: Sweep, values: dict[str, Any]) -> dict[str, Any]:
    """Ray multiplies what it changes by 0.8 or 1.2; this keeps it in its range, on its steps."""
    kept = dict(values)
    for key, choice in sweep.space.items():
        if isinstance(choice, Domain):
            kept[key] = choice.nearest(values[key])
    return kept


def largest_trial(sweep: Sweep) -> ResourceDemand:
    """The workers of a trial with as many and as large ones as any has."""
    trainings = [sweep.trial_config(each).training for each in sweep.probes()]
    largest = {
        "training.num_workers": max(each.num_workers for each in trainings),
        "training.cpus_per_worker": max(each.cpus_per_worker for each in trainings),
    }
    config = with_values(sweep.config, largest)
    return worker_demand(
        config.training,
        choose_hardware(config.training, config.model.precision),
        config.training.num_workers,
    )


def concurrency(
    need: ResourceDemand, machines: Sequence[Mapping[str, float]], *, at_most: int
) -> int:
    """Trials at a time, so that none holds what another waits for.

    Args:
        need: of the largest trial.
        machines: resources of each machine there is now.
        at_most: 0 for no such limit.
    """
    fitting = max(1, num_fitting(machines, need.resources) // need.count)
    return min(fitting, at_most or fitting)
