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
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import ray.tune
from ray.train import TrainingFailedError, UserCallback
from ray.tune import Checkpoint
from ray.util.queue import Empty, Queue

from mmtpp.config.fingerprint import TRAINING_JOBS, fingerprint
from mmtpp.config.load import with_values
from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import ClusterError, ConfigError, MmtppError, StorageError
from mmtpp.core.training.training_metrics import VALIDATION
from mmtpp.storage.paths import exists, join, read_bytes, write_bytes
from mmtpp.sweep.failure_causes import failure_cause
from mmtpp.sweep.space import Sweep, Values
from mmtpp.sweep.trial_report import TrialReport
from mmtpp.sweep.trial_row import TrialRow
from mmtpp.train.launch import TrainingJob, run_training_job
from mmtpp.train.outcome import has_outcome

POINTER_FILE = "pointer.json"  # in a checkpoint of Ray Tune: the checkpoint of a Ray Train run
TRIAL_FILE = "trial.json"  # metrics of an ended trial, in the folder of its first run
QUEUE_TIMEOUT_S = 0.5
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ValidationReport:
    """Report of a validation by the Ray Train run of a trial.

    Attributes:
        metrics: Metrics by name, and the step.
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


def run_trial(
    sweep: Sweep,
    values: Values,
    *,
    parent_run_id: str,
    trial_id: str,
    earlier_row: TrialRow | None = None,
) -> None:
    """Run the jobs of a trial and report to Ray Tune, which calls this in a separate process.

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
        report = _load_or_run_jobs(sweep, config, trial_run)
        _check_metrics(sweep, report)
    except (StorageError, ClusterError):
        raise  # Ray Tune tries again, perhaps on another machine
    except (MmtppError, TrainingFailedError) as error:
        logger.exception("the trial failed")
        no_metrics = dict.fromkeys(sweep.settings.metric, math.nan)
        report = TrialReport(no_metrics, step=0, error=failure_cause(error))
    _report_to_tune(replace(report, is_last=True), trial_run)


def _check_metrics(sweep: Sweep, report: TrialReport) -> None:
    """Check that the jobs report the metrics that judge the trial."""
    for metric in sweep.settings.metric:
        if metric not in report.metrics:
            raise ConfigError(
                f"trials do not report the metric of the sweep, but {', '.join(report.metrics)}",
                setting=f"sweep.metric = {metric}",
            )


def _current_run(sweep_name: str, identity: dict[str, object], storage_uri: str) -> TrialRun:
    """Find the current run of a trial.

    A trial has a new run when it starts, the same run when it resumes, and another run when a
    population gives it the checkpoint of another trial.
    """
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


def _load_or_run_jobs(sweep: Sweep, config: RunConfig, trial_run: TrialRun) -> TrialReport:
    """Run all jobs, or load the metrics of a trial that ended before Ray Tune recorded its end."""
    uri = join(config.run.storage_uri, trial_run.run_name, TRIAL_FILE)
    if exists(uri):
        return TrialReport.from_metrics(json.loads(read_bytes(uri)))
    report = _run_jobs(sweep, config, trial_run)
    write_bytes(uri, json.dumps(report.as_metrics()).encode())
    return report


def _run_jobs(sweep: Sweep, config: RunConfig, trial_run: TrialRun) -> TrialReport:
    """Run all jobs of a trial; metrics of later jobs begin with the name of the job.

    Args:
        sweep: Sweep of the trial.
        config: Configuration of the first job.
        trial_run: Run of the first job.
    """
    first_job, *later_jobs = sweep.settings.jobs
    result = _run_first_job(sweep, config, first_job, trial_run)
    step, metrics = float(result["steps"]), dict(result["metrics"])
    for job in later_jobs:
        config = _with_trained_model(config, result)
        config = _next_job_config(sweep, config, job, run_name=f"{trial_run.run_name}-{job}")
        result = _run_later_job(config, job)
        metrics |= {f"{job}/{name}": value for name, value in result["metrics"].items()}
    return TrialReport(metrics, step=step)


def _with_trained_model(config: RunConfig, result: Mapping[str, Any]) -> RunConfig:
    """The configuration with the adapter or model that its training wrote.

    Args:
        config: Configuration of a training.
        result: Result of the training.
    """
    if "adapter_uri" in result:
        return with_values(config, {"model.adapter": result["adapter_uri"]})
    return with_values(config, {"model.path": result["model_uri"]})


def _next_job_config(sweep: Sweep, config: RunConfig, job: str, *, run_name: str) -> RunConfig:
    """Configuration of a later job, from the configuration of the job before."""
    changes = sweep.settings.finetune if job == "finetune" else {"evaluation.split": "validation"}
    return with_values(config, {**changes, "run.name": run_name})


def _run_later_job(config: RunConfig, job: str) -> Mapping[str, Any]:
    """Run a job that follows the first one; return its result."""
    if job in TRAINING_JOBS:
        return run_training_job(TrainingJob(job, config))
    # imported here: most trials do not need its libraries
    from mmtpp.evaluate.evaluate import evaluate

    return evaluate(config)


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
        # the last report goes to Ray Tune after the run has been closed
        if self._metric in rank_metrics and not has_outcome(rank_metrics):
            name = checkpoint.path.rpartition("/")[2] if checkpoint else None
            self._queue.put(ValidationReport(rank_metrics, name))


def _run_first_job(
    sweep: Sweep, config: RunConfig, job: str, trial_run: TrialRun
) -> Mapping[str, Any]:
    """Run the first training; report its validations meanwhile if they have the sweep's metric."""
    metric = sweep.settings.metric[0]
    training_job = TrainingJob(job, config, start_uri=trial_run.start_uri)
    if not metric.startswith(f"{VALIDATION}/"):
        return run_training_job(training_job)
    queue = Queue(actor_options={"num_cpus": 0})
    is_population = sweep.settings.scheduler.kind == "pbt"
    with ThreadPoolExecutor(1) as pool:
        watched_job = replace(training_job, callbacks=(_QueueReports(queue, metric),))
        training = pool.submit(run_training_job, watched_job)
        while (validation := _next_validation(queue, training.done)) is not None:
            report = TrialReport.from_metrics(validation.metrics)
            checkpoint = validation.checkpoint if is_population else None
            _report_to_tune(report, trial_run, checkpoint=checkpoint)
        queue.shutdown()
        return training.result()


def _next_validation(queue: Queue, is_done: Callable[[], bool]) -> ValidationReport | None:
    """Wait for the next report; None when the run has ended and the queue is empty."""
    while True:
        is_last = is_done()  # before reading: an ended run has put all its reports in the queue
        try:
            return queue.get(timeout=QUEUE_TIMEOUT_S)
        except Empty:
            if is_last:
                return None


def _report_to_tune(
    report: TrialReport, trial_run: TrialRun, *, checkpoint: str | None = None
) -> None:
    """Report to Ray Tune, with the run in which a later round finds the trial again.

    Args:
        report: Report without its run.
        trial_run: Current run of the trial.
        checkpoint: Name of a checkpoint of the run, from which other trials of a population may
            start; None for none.
    """
    report = replace(report, run_name=trial_run.run_name, start_uri=trial_run.start_uri)
    if checkpoint is None:
        ray.tune.report(report.as_metrics())
        return
    with tempfile.TemporaryDirectory() as folder:
        pointer = {**asdict(trial_run), "checkpoint": checkpoint}
        (Path(folder) / POINTER_FILE).write_text(json.dumps(pointer))
        ray.tune.report(report.as_metrics(), checkpoint=Checkpoint.from_directory(folder))
