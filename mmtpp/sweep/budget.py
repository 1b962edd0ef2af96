"""Hours of a sweep and of its workers, and when there are none left."""

import math
import time
from typing import Any

from ray.tune import Callback, Stopper
from ray.tune.experiment import Trial

from mmtpp.sweep.search import FINISHED
from mmtpp.sweep.space import Sweep

SECONDS_PER_HOUR = 3600.0
NUM_WORKERS = "training.num_workers"
_of_process: dict[str, "Budget"] = {}


class Budget(Callback, Stopper):
    """Counts the time of the sweep and of its trials' workers, and stops everything when
    ``max_hours`` or ``max_gpu_hours`` is used up.

    Ray Tune gets it twice, to hear of trials and to be asked, and keeps both copies with the sweep.
    A process has one budget of a sweep, with the limits that process was given: copies that Tune
    brings back are that one.

    Args:
        sweep: its limits, and its trials' numbers of workers.
    """

    def __init__(self, sweep: Sweep) -> None:
        self._sweep = sweep
        self._seconds: dict[str, float] = {}  # of workers, in attempts that are over
        self._attempts: dict[str, tuple[float, int]] = {}  # running: since when, workers
        self._before, self._began = 0.0, time.monotonic()
        self._ended: set[str] = set()  # trials that ended before the budget did
        self._has_stopped_all = False

    @classmethod
    def of_this_process(cls, sweep: Sweep) -> "Budget":
        """A new one, which takes the place of what Tune brings back."""
        _of_process[sweep.name] = cls(sweep)
        return _of_process[sweep.name]

    def __reduce__(self) -> tuple[Any, ...]:
        return _budget_of, (self._sweep,)

    @property
    def used_hours(self) -> float:
        """Of the sweep, while some process ran it."""
        return (self._before + time.monotonic() - self._began) / SECONDS_PER_HOUR

    @property
    def used_gpu_hours(self) -> float:
        """Of all workers, those that run now included."""
        return sum(self._so_far().values()) / SECONDS_PER_HOUR

    @property
    def is_used_up(self) -> bool:
        """Whether one of the limits is reached."""
        settings = self._sweep.settings
        return self.used_hours >= (settings.max_hours or math.inf) or self.used_gpu_hours >= (
            settings.max_gpu_hours or math.inf
        )

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """A trial is over with its last report."""
        return FINISHED in result

    def stop_all(self) -> bool:
        """Asked by Tune again and again."""
        if not self.is_used_up:
            return False
        self._has_stopped_all = True
        return True

    def has_begun(self, trial_id: str) -> bool:
        """Whether a trial of this round was ever started."""
        return trial_id in self._seconds or trial_id in self._attempts

    def has_cut_short(self, trial_id: str) -> bool:
        """Whether it ended an unfinished trial, running or interrupted, and no scheduler did."""
        return self._has_stopped_all and trial_id not in self._ended

    def on_trial_start(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        self._close(trial)
        # not of its whole configuration: that may be wrong, which is the trial's failure
        workers: Any = self._sweep.settings_of(trial.config).get(
            NUM_WORKERS, self._sweep.config.training.num_workers
        )
        self._attempts[trial.trial_id] = time.monotonic(), int(workers)

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
        """What Tune keeps with the sweep."""
        return {
            "seconds": self._so_far(),
            "hours": self.used_hours,
            "ended": sorted(self._ended),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self._seconds, self._ended = dict(state["seconds"]), set(state["ended"])
        self._before, self._began = state["hours"] * SECONDS_PER_HOUR, time.monotonic()

    def _close(self, trial: Trial) -> None:
        since, workers = self._attempts.pop(trial.trial_id, (time.monotonic(), 0))
        spent = workers * (time.monotonic() - since)
        self._seconds[trial.trial_id] = self._seconds.get(trial.trial_id, 0.0) + spent

    def _so_far(self) -> dict[str, float]:
        """Of every trial, its running attempt included."""
        found, now = dict(self._seconds), time.monotonic()
        for name, (since, workers) in self._attempts.items():
            found[name] = found.get(name, 0.0) + workers * (now - since)
        return found


def _budget_of(sweep: Sweep) -> Budget:
    """The one of this process; a trial's process has none, and gets one that counts nothing."""
    return _of_process.setdefault(sweep.name, Budget(sweep))
