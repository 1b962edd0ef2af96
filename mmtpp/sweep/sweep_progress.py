"""Lines on how a sweep stands: few enough to read, in a terminal and in a job's log."""

import logging
import time
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial

from mmtpp.sweep.search import ERROR, FINISHED, STEP
from mmtpp.sweep.space import Sweep

logger = logging.getLogger(__name__)

EVERY_S = 30.0


class Progress(Callback):
    """Logs a line whenever a trial ends, and one on all of them now and then.

    Args:
        sweep: its metric and space.
        total: trials there will be.
    """

    def __init__(self, sweep: Sweep, total: int) -> None:
        self._sweep, self._total = sweep, total
        self._began = self._shown = time.monotonic()
        self._ended: dict[str, Trial] = {}

    def setup(self, *args: Any, **info: Any) -> None:
        # Tune brings this back as it was when the sweep was new, on whatever machine
        self._began = self._shown = time.monotonic()

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        if not self._ended:
            over = (Trial.TERMINATED, Trial.ERROR)
            self._ended = {each.trial_id: each for each in trials if each.status in over}

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        if time.monotonic() - self._shown >= EVERY_S:
            self._show(trials)

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        result = trial.last_result or {}
        if result.get(ERROR):
            state = f"failed: {result[ERROR]}"
        elif result.get(FINISHED):
            state = f"finished, {self._judged(trial)}"
        else:
            state = f"stopped at step {result.get(STEP, 0):g}, {self._judged(trial)}"
        self._end(trials, trial, state)

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        self._end(trials, trial, "failed, more often than machines may be lost")

    def _end(self, trials: list[Trial], trial: Trial, state: str) -> None:
        self._ended[trial.trial_id] = trial
        logger.info("%s: %s", _settings(trial), state)
        self._show(trials)

    def _show(self, trials: list[Trial]) -> None:
        self._shown = time.monotonic()
        metric, mode = self._sweep.settings.metric[0], self._sweep.settings.mode[0]
        good = [each for each in self._ended.values() if not _has_failed(each)]
        finished = [each for each in good if (each.last_result or {}).get(FINISHED)]
        running = {each.trial_id for each in trials if each.status == Trial.RUNNING}
        judged = [each for each in finished if metric in each.last_result]
        best = ""
        if judged:
            choose = min if mode == "min" else max
            chosen = choose(judged, key=lambda each: each.last_result[metric])
            best = f"; best so far {self._judged(chosen)} with {_settings(chosen)}"
        logger.info(
            "of %d trials %d finished, %d stopped, %d failed, %d running, %.0f s%s",
            self._total,
            len(finished),
            len(good) - len(finished),
            len(self._ended) - len(good),
            len(running - self._ended.keys()),
            time.monotonic() - self._began,
            best,
        )

    def _judged(self, trial: Trial) -> str:
        metric = self._sweep.settings.metric[0]
        value = (trial.last_result or {}).get(metric)
        return f"{metric} {value:.4f}" if isinstance(value, float) else f"no {metric}"


def _has_failed(trial: Trial) -> bool:
    return trial.status == Trial.ERROR or bool((trial.last_result or {}).get(ERROR))


def _settings(trial: Trial) -> str:
    return ", ".join(
        f"{key} = {value:.4g}" if isinstance(value, float) else f"{key} = {value}"
        for key, value in (trial.config or {}).items()
    )
