"""One trial: the driver of its jobs, on the cluster, that tells Ray Tune how they stand.

A Ray Train run reports to a queue, and this driver alone to Ray Tune, with a checkpoint that is
only a pointer to the run's own. Ray's ``TuneReportCallback`` does not pass checkpoints on, which
populations need; and it reports beside the driver, whose last report could then wait for ever.
"""

import json
import logging
import math
import tempfile
from collections.abc import Callable, Mapping
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
from mmtpp.storage.paths import exists, join, read_bytes, write_bytes
from mmtpp.sweep.causes import one_line
from mmtpp.sweep.search import ERROR, FINISHED, RUN, START, STEP
from mmtpp.sweep.space import Sweep, Values
from mmtpp.sweep.sweep_settings import TRAINING_JOBS
from mmtpp.train.launch import finetune, pretrain

POINTER_FILE = "pointer.json"
TRIAL_FILE = "trial.json"  # of a trial that is over: its metrics, beside its first run's
logger = logging.getLogger(__name__)

TRAIN = {"pretrain": pretrain, "finetune": finetune}
Report = tuple[dict[str, float], str]


@dataclass(frozen=True, slots=True)
class Segment:
    """The Ray Train run a trial is in; a population's trial goes through several.

    Attributes:
        run_name: of the run.
        identity: what makes it this trial's: its values, and its id where trials may be alike.
        start_uri: checkpoint of the run it branched off; empty at the beginning.
    """

    run_name: str
    identity: dict[str, object]
    start_uri: str

    @property
    def report(self) -> dict[str, str]:
        """What Ray Tune is told of it, for a round of trials that go on."""
        return {RUN: self.run_name, START: self.start_uri}


def run_trial(
    sweep: Sweep,
    values: Values,
    *,
    parent_run_id: str,
    trial_id: str,
    began: Mapping[str, object] | None = None,
) -> None:
    """Run the jobs of a trial and report to Ray Tune; called by Tune, in a process of its own.

    The run's name follows from the trial, so a trial that is started again, here or on another
    machine, goes on with its last checkpoint, and a finished one only reports.

    Args:
        sweep: whose trial it is.
        values: of the space.
        parent_run_id: in MLflow.
        trial_id: in Ray Tune.
        began: what an earlier round of the sweep knows of the trial: where it stood.

    Raises:
        StorageError, ClusterError: what another attempt may not meet. Other failures are reported,
            since it would.
    """
    # two trials of a searcher may be alike, those of a grid may not
    own = {} if sweep.settings.searcher == "grid" else {"trial": trial_id}
    identity = {"values": dict(values), **own}
    if began and RUN in began:
        segment = Segment(str(began[RUN]), identity, str(began[START]))
    else:
        segment = _segment(sweep.name, identity, sweep.config.run.storage_uri)
    own_settings = {"run.name": segment.run_name, "tracking.parent_run_id": parent_run_id}
    try:
        config = with_values(sweep.trial_config(values), own_settings)
        metrics = _metrics(sweep, config, segment)
        for metric in sweep.settings.metric:
            if metric not in metrics:
                raise ConfigError(f"sweep.metric = {metric}: trials report {', '.join(metrics)}")
    except (StorageError, ClusterError):
        raise  # Tune tries again, elsewhere
    except (MmtppError, TrainingFailedError) as error:
        logger.exception("the trial failed")
        nothing = dict.fromkeys(sweep.settings.metric, math.nan)
        ray.tune.report(
            {**nothing, **segment.report, STEP: 0, FINISHED: 0.0, ERROR: one_line(error)}
        )
    else:
        ray.tune.report({**metrics, **segment.report, FINISHED: 1.0})


def _segment(sweep_name: str, identity: dict[str, object], storage_uri: str) -> Segment:
    """Where the trial stands: at its beginning, in a run of its own, or in another's."""
    start_uri = ""
    checkpoint = ray.tune.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            pointer = json.loads((Path(folder) / POINTER_FILE).read_text())
        if pointer["identity"] == identity:
            return Segment(pointer["run_name"], identity, pointer["start_uri"])
        start_uri = join(storage_uri, pointer["run_name"], pointer["checkpoint"])
    of = {**identity, "start_uri": start_uri}
    return Segment(f"{sweep_name}-{fingerprint(of)[:8]}", identity, start_uri)


def _metrics(sweep: Sweep, config: RunConfig, segment: Segment) -> dict[str, float]:
    """Of all jobs; read, if the trial was over before Ray Tune could write that down."""
    uri = join(config.run.storage_uri, segment.run_name, TRIAL_FILE)
    if exists(uri):
        return json.loads(read_bytes(uri))
    metrics = _run_jobs(sweep, config, segment)
    write_bytes(uri, json.dumps(metrics).encode())
    return metrics


def _run_jobs(sweep: Sweep, config: RunConfig, segment: Segment) -> dict[str, float]:
    """Metrics of all jobs of a trial, those of later ones under their names."""
    found: dict[str, float] = {}
    name = segment.run_name
    for place, job in enumerate(sweep.settings.jobs):
        if place:
            own = (
                sweep.settings.finetune if job == "finetune" else {"evaluation.split": "validation"}
            )
            config = with_values(config, {**own, "run.name": f"{name}-{job}"})
        if job not in TRAINING_JOBS:
            from mmtpp.evaluate.evaluate import evaluate  # most trials do without its libraries

            metrics: Any = evaluate(config)["metrics"]
        elif place:
            result = TRAIN[job](config)
            metrics = result["metrics"]
        else:
            result = _train(sweep, config, job, segment)
            metrics = {**result["metrics"], STEP: float(result["steps"])}
        if job in TRAINING_JOBS:
            if config.lora.rank:
                config = with_values(config, {"model.adapter": result["adapter_uri"]})
            else:
                config = with_values(config, {"model.path": result["model_uri"]})
        found |= {f"{job}/{key}" if place else key: value for key, value in metrics.items()}
    return found


class _ToQueue(UserCallback):
    """Puts validations of the run, but for the last, with their checkpoints' names, in a queue."""

    def __init__(self, queue: Queue, metric: str) -> None:
        self._queue, self._metric = queue, metric

    def after_report(self, run_context: Any, metrics: list, checkpoint: Any) -> None:
        """Called in the controller of the Ray Train run."""
        found = metrics[0]
        # the last one, which alone names the best step, is reported when the run has been closed
        if self._metric in found and "best_step" not in found:
            self._queue.put((found, checkpoint.path.rpartition("/")[2] if checkpoint else ""))


def _train(sweep: Sweep, config: RunConfig, job: str, segment: Segment) -> dict[str, Any]:
    """Train, reporting validations meanwhile where the sweep's metric is one."""
    metric = sweep.settings.metric[0]
    if not metric.startswith("validation/"):
        return TRAIN[job](config, start_uri=segment.start_uri)
    queue = Queue(actor_options={"num_cpus": 0})
    is_population = sweep.settings.scheduler.kind == "pbt"
    with ThreadPoolExecutor(1) as pool:
        training = pool.submit(
            TRAIN[job], config, [_ToQueue(queue, metric)], start_uri=segment.start_uri
        )
        while (report := _next(queue, training.done)) is not None:
            _report(report, segment, keep=is_population)
        queue.shutdown()
        return training.result()


def _next(queue: Queue, is_over: Callable[[], bool]) -> Report | None:
    """The next report; None when the run is over and there is none left."""
    while True:
        over = is_over()  # asked first: what came before is in the queue by now
        try:
            return queue.get(timeout=0.5)
        except Empty:
            if over:
                return None


def _report(report: Report, segment: Segment, *, keep: bool) -> None:
    """Tell Ray Tune, with a pointer to the checkpoint if it is to ``keep`` one."""
    metrics = {**report[0], **segment.report}
    checkpoint = report[1]
    if not keep or not checkpoint:
        ray.tune.report(metrics)
        return
    with tempfile.TemporaryDirectory() as folder:
        pointer = {**asdict(segment), "checkpoint": checkpoint}
        (Path(folder) / POINTER_FILE).write_text(json.dumps(pointer))
        ray.tune.report(metrics, checkpoint=Checkpoint.from_directory(folder))
