"""One trial: the driver that runs its jobs on the cluster and reports to Ray Tune.

A Ray Train run puts its reports in a queue, and only this driver reports to Ray Tune, with a
checkpoint that merely points to the run's own. Ray's ``TuneReportCallback`` cannot do this: it does
not pass on checkpoints, which populations need, and a second reporter next to the driver can make
the driver's last report wait forever.
"""

import json
import logging
import math
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray.tune
from ray.train import TrainingFailedError, UserCallback
from ray.tune import Checkpoint
from ray.util.queue import Empty, Queue

from mmtpp.config.fingerprint import fingerprint
from mmtpp.config.load import with_values
from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import ClusterError, ConfigError, MmtppError, StorageError
from mmtpp.core.training_metrics import VALIDATION
from mmtpp.storage.paths import exists, join, read_bytes, write_bytes
from mmtpp.sweep.failure_causes import failure_cause
from mmtpp.sweep.search import ERROR, FINISHED, RUN, START, STEP
from mmtpp.sweep.space import Sweep, Values
from mmtpp.sweep.sweep_settings import TRAINING_JOBS
from mmtpp.sweep.trial_row import TrialRow
from mmtpp.train.launch import finetune, pretrain

POINTER_FILE = "pointer.json"
TRIAL_FILE = "trial.json"  # metrics of an ended trial, in the folder of its first run
logger = logging.getLogger(__name__)

TRAINING_FUNCTIONS = {"pretrain": pretrain, "finetune": finetune}


@dataclass(frozen=True, slots=True)
class Report:
    """Report of a validation by the Ray Train run of a trial.

    Attributes:
        metrics: Metrics by name.
        checkpoint: Name of the checkpoint in the folder of the run; None if there is none.
    """

    metrics: dict[str, float]
    checkpoint: str | None


@dataclass(frozen=True, slots=True)
class TrialRun:
    """Current Ray Train run of a trial; a trial of a population goes through several runs.

    Attributes:
        run_name: Name of the run.
        identity: Values of the trial, and its id where two trials may have the same values.
        start_uri: Checkpoint of another run that the run started from; empty for none.
    """

    run_name: str
    identity: dict[str, object]
    start_uri: str

    @property
    def tune_fields(self) -> dict[str, str]:
        """Entries of a report to Ray Tune from which a later round finds the run again."""
        return {RUN: self.run_name, START: self.start_uri}


def run_trial(
    sweep: Sweep,
    values: Values,
    *,
    parent_run_id: str,
    trial_id: str,
    earlier_row: TrialRow | None = None,
) -> None:
    """Run the jobs of a trial and report to Ray Tune, which calls this in a process of its own.

    The name of the run follows from the trial. A trial that is started again, on any machine,
    therefore resumes from its last checkpoint, and a finished trial only reports.

    Args:
        sweep: Sweep of the trial.
        values: Values of the searched settings.
        parent_run_id: Id of the sweep's run in MLflow.
        trial_id: Id of the trial in Ray Tune.
        earlier_row: Row of the trial from an earlier round of the sweep; None if it never started.

    Raises:
        StorageError, ClusterError: Errors that another attempt may avoid. Other errors are reported
            as failures.
    """
    # two trials of a random search may have the same values, those of a grid cannot
    trial_identity = {} if sweep.settings.searcher == "grid" else {"trial": trial_id}
    identity = {"values": dict(values), **trial_identity}
    if earlier_row is not None and earlier_row.run_name is not None:
        trial_run = TrialRun(earlier_row.run_name, identity, earlier_row.start_uri or "")
    else:
        trial_run = _current_run(sweep.name, identity, sweep.config.run.storage_uri)
    changes = {"run.name": trial_run.run_name, "tracking.parent_run_id": parent_run_id}
    try:
        config = with_values(sweep.trial_config(values), changes)
        metrics = _trial_metrics(sweep, config, trial_run)
        for metric in sweep.settings.metric:
            if metric not in metrics:
                raise ConfigError(
                    f"trials do not report the metric of the sweep, but {', '.join(metrics)}",
                    setting=f"sweep.metric = {metric}",
                )
    except (StorageError, ClusterError):
        raise  # Ray Tune tries again, perhaps on another machine
    except (MmtppError, TrainingFailedError) as error:
        logger.exception("the trial failed")
        no_metrics = dict.fromkeys(sweep.settings.metric, math.nan)
        ray.tune.report(
            {
                **no_metrics,
                **trial_run.tune_fields,
                STEP: 0,
                FINISHED: 0.0,
                ERROR: failure_cause(error),
            }
        )
    else:
        ray.tune.report({**metrics, **trial_run.tune_fields, FINISHED: 1.0})


def _current_run(sweep_name: str, identity: dict[str, object], storage_uri: str) -> TrialRun:
    """Find the run that a trial is in: a new run, its own run, or one that starts from another."""
    start_uri = ""
    checkpoint = ray.tune.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            pointer = json.loads((Path(folder) / POINTER_FILE).read_text())
        if pointer["identity"] == identity:
            return TrialRun(pointer["run_name"], identity, pointer["start_uri"])
        start_uri = join(storage_uri, pointer["run_name"], pointer["checkpoint"])
    run_identity = {**identity, "start_uri": start_uri}
    return TrialRun(f"{sweep_name}-{fingerprint(run_identity)[:8]}", identity, start_uri)


def _trial_metrics(sweep: Sweep, config: RunConfig, trial_run: TrialRun) -> dict[str, float]:
    """Run all jobs, or read the metrics of a trial that ended before Ray Tune recorded its end."""
    uri = join(config.run.storage_uri, trial_run.run_name, TRIAL_FILE)
    if exists(uri):
        return json.loads(read_bytes(uri))
    metrics = _run_jobs(sweep, config, trial_run)
    write_bytes(uri, json.dumps(metrics).encode())
    return metrics


def _run_jobs(sweep: Sweep, config: RunConfig, trial_run: TrialRun) -> dict[str, float]:
    """Run all jobs of a trial; metrics of later jobs begin with the name of the job."""
    trial_metrics: dict[str, float] = {}
    for index, job in enumerate(sweep.settings.jobs):
        if index:
            changes = (
                sweep.settings.finetune if job == "finetune" else {"evaluation.split": "validation"}
            )
            config = with_values(config, {**changes, "run.name": f"{trial_run.run_name}-{job}"})
        if job not in TRAINING_JOBS:
            # imported here: most trials do not need its libraries
            from mmtpp.evaluate.evaluate import evaluate

            metrics: Any = evaluate(config)["metrics"]
        elif index:
            result = TRAINING_FUNCTIONS[job](config)
            metrics = result["metrics"]
        else:
            result = _train(sweep, config, job, trial_run)
            metrics = {**result["metrics"], STEP: float(result["steps"])}
        if job in TRAINING_JOBS:
            if config.lora.rank:
                config = with_values(config, {"model.adapter": result["adapter_uri"]})
            else:
                config = with_values(config, {"model.path": result["model_uri"]})
        prefix = f"{job}/" if index else ""
        trial_metrics |= {f"{prefix}{key}": value for key, value in metrics.items()}
    return trial_metrics


class _QueueReports(UserCallback):
    """Put the reports of validations, except the last one, in a queue.

    Args:
        queue: Queue that the driver of the trial reads.
        metric: Metric that only reports of validations have.
    """

    def __init__(self, queue: Queue, metric: str) -> None:
        self._queue, self._metric = queue, metric

    def after_report(self, run_context: Any, metrics: list, checkpoint: Any) -> None:
        """Handle a report; called in the controller of the Ray Train run."""
        rank_metrics = metrics[0]
        # only the last report has the best step; it is reported after the run has been closed
        if self._metric in rank_metrics and "best_step" not in rank_metrics:
            name = checkpoint.path.rpartition("/")[2] if checkpoint else None
            self._queue.put(Report(rank_metrics, name))


def _train(sweep: Sweep, config: RunConfig, job: str, trial_run: TrialRun) -> dict[str, Any]:
    """Run a training; report its validations meanwhile if they have the sweep's metric."""
    metric = sweep.settings.metric[0]
    if not metric.startswith(f"{VALIDATION}/"):
        return TRAINING_FUNCTIONS[job](config, start_uri=trial_run.start_uri)
    queue = Queue(actor_options={"num_cpus": 0})
    is_population = sweep.settings.scheduler.kind == "pbt"
    with ThreadPoolExecutor(1) as pool:
        training = pool.submit(
            TRAINING_FUNCTIONS[job],
            config,
            [_QueueReports(queue, metric)],
            start_uri=trial_run.start_uri,
        )
        while (report := _next_report(queue, training.done)) is not None:
            _report_to_tune(report, trial_run, has_checkpoint=is_population)
        queue.shutdown()
        return training.result()


def _next_report(queue: Queue, is_done: Callable[[], bool]) -> Report | None:
    """Wait for the next report; None when the run has ended and the queue is empty."""
    while True:
        is_last = is_done()  # before reading: an ended run has put all its reports in the queue
        try:
            return queue.get(timeout=0.5)
        except Empty:
            if is_last:
                return None


def _report_to_tune(report: Report, trial_run: TrialRun, *, has_checkpoint: bool) -> None:
    """Report to Ray Tune, with a pointer to the checkpoint if ``has_checkpoint`` is set."""
    metrics = {**report.metrics, **trial_run.tune_fields}
    if not has_checkpoint or report.checkpoint is None:
        ray.tune.report(metrics)
        return
    with tempfile.TemporaryDirectory() as folder:
        pointer = {**asdict(trial_run), "checkpoint": report.checkpoint}
        (Path(folder) / POINTER_FILE).write_text(json.dumps(pointer))
        ray.tune.report(metrics, checkpoint=Checkpoint.from_directory(folder))
