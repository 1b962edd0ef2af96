"""Budget of a sweep: hours of wall clock and GPU hours of all workers."""

import math
import time
from typing import Any

from ray.tune import Callback, Stopper
from ray.tune.experiment import Trial

from mmtpp.sweep.space import Sweep
from mmtpp.sweep.trial_report import TrialReport

SECONDS_PER_HOUR = 3600.0
NUM_WORKERS = "training.num_workers"
_budgets: dict[str, "Budget"] = {}  # budgets of this process, by name of the sweep


class Budget(Callback, Stopper):
    """Count the hours of a sweep and its workers, and stop all trials when the budget is spent.

    Ray Tune receives the budget twice, as a callback and as a stopper, and stores both copies with
    the sweep. A process has one budget per sweep, with the limits given to that process: every copy
    that Tune unpickles is replaced by this one.

    Args:
        sweep: Sweep whose settings hold the limits and the numbers of workers.
    """

    def __init__(self, sweep: Sweep) -> None:
        self._sweep = sweep
        self._seconds: dict[str, float] = {}  # worker seconds of ended attempts, by trial
        self._attempts: dict[str, tuple[float, int]] = {}  # running: start time, workers
        self._earlier_seconds, self._started = 0.0, time.monotonic()
        self._ended: set[str] = set()  # trials that ended before the budget was spent
        self._has_stopped_all = False

    @classmethod
    def build_for_process(cls, sweep: Sweep) -> "Budget":
        """Build the budget that replaces the copies Ray Tune unpickles in this process."""
        _budgets[sweep.name] = cls(sweep)
        return _budgets[sweep.name]

    def __reduce__(self) -> tuple[Any, ...]:
        return _process_budget, (self._sweep,)

    @property
    def used_hours(self) -> float:
        """Wall-clock hours of the sweep, over all restarts."""
        return (self._earlier_seconds + time.monotonic() - self._started) / SECONDS_PER_HOUR

    @property
    def used_gpu_hours(self) -> float:
        """Hours of all workers, including those that run now."""
        return sum(self._worker_seconds().values()) / SECONDS_PER_HOUR

    @property
    def is_used_up(self) -> bool:
        """Whether one of the limits is reached."""
        settings = self._sweep.settings
        return self.used_hours >= (settings.max_hours or math.inf) or self.used_gpu_hours >= (
            settings.max_gpu_hours or math.inf
        )

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether a report is the last one of its trial."""
        return TrialReport.from_metrics(result).is_last

    def stop_all(self) -> bool:
        """Whether to stop all trials; Ray Tune polls this."""
        if not self.is_used_up:
            return False
        self._has_stopped_all = True
        return True

    def has_begun(self, trial_id: str) -> bool:
        """Whether a trial of this round was ever started."""
        return trial_id in self._seconds or trial_id in self._attempts

    def has_cut_short(self, trial_id: str) -> bool:
        """Whether the budget, and not a scheduler, ended an unfinished trial."""
        return self._has_stopped_all and trial_id not in self._ended

    def on_trial_start(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        self._close(trial)
        # the whole configuration may be invalid: the trial reports that as its own failure
        num_workers: Any = self._sweep.trial_settings(trial.config).get(
            NUM_WORKERS, self._sweep.config.training.num_workers
        )
        self._attempts[trial.trial_id] = time.monotonic(), int(num_workers)

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        self._close(trial)
        if not self._has_stopped_all:
            self._ended.add(trial.trial_id)

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        self._close(trial)

    def on_trial_recover(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        self._close(trial)

    def get_state(self) -> dict[str, Any]:
        """The state that Ray Tune stores with the sweep."""
        return {
            "seconds": self._worker_seconds(),
            "hours": self.used_hours,
            "ended": sorted(self._ended),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Resume counting from a stored state."""
        self._seconds, self._ended = dict(state["seconds"]), set(state["ended"])
        self._earlier_seconds, self._started = state["hours"] * SECONDS_PER_HOUR, time.monotonic()

    def _close(self, trial: Trial) -> None:
        """Add the running attempt of a trial to its ended attempts."""
        start, num_workers = self._attempts.pop(trial.trial_id, (time.monotonic(), 0))
        spent = num_workers * (time.monotonic() - start)
        self._seconds[trial.trial_id] = self._seconds.get(trial.trial_id, 0.0) + spent

    def _worker_seconds(self) -> dict[str, float]:
        """Worker seconds of every trial, including its running attempt."""
        seconds, now = dict(self._seconds), time.monotonic()
        for trial_id, (start, num_workers) in self._attempts.items():
            seconds[trial_id] = seconds.get(trial_id, 0.0) + num_workers * (now - start)
        return seconds


def _process_budget(sweep: Sweep) -> Budget:
    """The budget of this process; the process of a trial gets one that counts nothing."""
    return _budgets.setdefault(sweep.name, Budget(sweep))
