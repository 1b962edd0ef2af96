"""Runs trials in this process, or in several processes with one core each."""

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

from benchmarks.quality.results import Trial
from benchmarks.quality.trial import start_engine

Result = TypeVar("Result")


def run_trials(
    trials: Sequence[Trial],
    run: Callable[[Trial], Result],
    add: Callable[[Result], None],
    *,
    workers: int,
) -> None:
    """Run trials, and add each result when its trial ends.

    Args:
        trials: The trials, in their order.
        run: Runs one trial; with several workers, a function that can be pickled.
        add: Called in this process with the result of every trial.
        workers: Number of trials at a time; 1 runs them in this process.
    """
    if workers == 1:
        start_engine()
        for trial in trials:
            add(run(trial))
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=start_engine) as pool:
        for future in as_completed([pool.submit(run, trial) for trial in trials]):
            add(future.result())
