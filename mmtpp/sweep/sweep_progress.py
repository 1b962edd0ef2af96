"""Progress of a sweep as log lines: few enough to read, in a terminal and in the log of a job."""

import logging
import time
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial

from mmtpp.sweep.space import Sweep
from mmtpp.sweep.trial_report import TrialReport

logger = logging.getLogger(__name__)

EVERY_S = 30.0


class SweepProgress(Callback):
    """Log a line whenever a trial ends, and every half minute a line about all trials.

    Args:
        sweep: Sweep with the metric and the space.
        total: Number of trials in the end.
    """

    def __init__(self, sweep: Sweep, total: int) -> None:
        self._sweep, self._total = sweep, total
        self._started = self._logged = time.monotonic()
        self._ended: dict[str, Trial] = {}

    def setup(self, *args: Any, **info: Any) -> None:
        # Ray Tune restores this object as it was when the sweep was new, on any machine
        self._started = self._logged = time.monotonic()

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        if not self._ended:
            final = (Trial.TERMINATED, Trial.ERROR)
            self._ended = {trial.trial_id: trial for trial in trials if trial.status in final}

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        if time.monotonic() - self._logged >= EVERY_S:
            self._log(trials)

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        report = TrialReport.from_metrics(trial.last_result)
        if report.error:
            state = f"failed: {report.error}"
        elif report.has_finished:
            state = f"finished, {self._metric_text(report)}"
        else:
            state = f"stopped at step {report.step or 0:g}, {self._metric_text(report)}"
        self._end(trials, trial, state)

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        limit = self._sweep.settings.max_machine_failures
        self._end(
            trials, trial, f"failed more often than sweep.max_machine_failures = {limit} allows"
        )

    def _end(self, trials: list[Trial], trial: Trial, state: str) -> None:
        self._ended[trial.trial_id] = trial
        logger.info("%s: %s", _settings_text(trial), state)
        self._log(trials)

    def _log(self, trials: list[Trial]) -> None:
        self._logged = time.monotonic()
        reports = {
            trial_id: TrialReport.from_metrics(trial.last_result)
            for trial_id, trial in self._ended.items()
            if not _has_failed(trial)
        }
        finished = {trial_id: report for trial_id, report in reports.items() if report.has_finished}
        running = {trial.trial_id for trial in trials if trial.status == Trial.RUNNING}
        logger.info(
            "of %d trials %d finished, %d stopped, %d failed, %d running, %.0f s%s",
            self._total,
            len(finished),
            len(reports) - len(finished),
            len(self._ended) - len(reports),
            len(running - self._ended.keys()),
            time.monotonic() - self._started,
            self._best_text(finished),
        )

    def _best_text(self, finished: dict[str, TrialReport]) -> str:
        """The best of the finished trials; empty if none reports the metric."""
        metric, mode = self._sweep.settings.metric[0], self._sweep.settings.mode[0]
        values = {
            trial_id: report.metrics[metric]
            for trial_id, report in finished.items()
            if metric in report.metrics
        }
        if not values:
            return ""
        choose = min if mode == "min" else max
        best = choose(values, key=lambda trial_id: values[trial_id])
        settings_text = _settings_text(self._ended[best])
        return f"; best so far {self._metric_text(finished[best])} with {settings_text}"

    def _metric_text(self, report: TrialReport) -> str:
        metric = self._sweep.settings.metric[0]
        value = report.metrics.get(metric)
        return f"{metric} {value:.4f}" if isinstance(value, float) else f"no {metric}"


def _has_failed(trial: Trial) -> bool:
    """Whether a trial reported an error, or its process was lost too often."""
    return trial.status == Trial.ERROR or bool(TrialReport.from_metrics(trial.last_result).error)


def _settings_text(trial: Trial) -> str:
    return ", ".join(
        f"{key} = {value:.4g}" if isinstance(value, float) else f"{key} = {value}"
        for key, value in (trial.config or {}).items()
    )
