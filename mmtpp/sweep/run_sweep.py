"""Run a sweep with Ray Tune over Ray Train: one MLflow run with a child run for each trial."""

import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, get_args

import pyarrow.fs as pafs
import ray
import ray.tune
from ray.tune.schedulers import FIFOScheduler

from mmtpp.compat.ray_hooks import trials_of_results
from mmtpp.config.flat_settings import flat_settings
from mmtpp.core.errors import ClusterError, ConfigError, StorageError
from mmtpp.core.training_metrics import VALIDATION_EVENTS
from mmtpp.runtime.machines import data_task_demand, has_autoscaler, machines, wait_for_machines
from mmtpp.runtime.session import start_ray
from mmtpp.storage.manifest import load_manifest
from mmtpp.storage.paths import exists, filesystem_of, join, list_files, read_bytes, write_bytes
from mmtpp.sweep.best_config import best_files
from mmtpp.sweep.budget import Budget
from mmtpp.sweep.failure_causes import shared_cause
from mmtpp.sweep.ranking import (
    best_candidate,
    finished_trials,
    list_candidates,
    pareto_front,
    rank_trials,
)
from mmtpp.sweep.rounds import (
    EndedRound,
    Round,
    check_data,
    check_limits,
    has_begun,
    have_all_failed,
    next_round,
    save_round,
)
from mmtpp.sweep.search import (
    build_scheduler,
    build_searcher,
    largest_trial,
    max_concurrent_trials,
    param_space,
    to_python_values,
)
from mmtpp.sweep.space import Sweep
from mmtpp.sweep.stopped_runs import STOPPED_EARLY, StoppedRunCloser
from mmtpp.sweep.sweep_figures import draw_figures
from mmtpp.sweep.sweep_progress import SweepProgress
from mmtpp.sweep.trial import run_trial
from mmtpp.sweep.trial_row import Status, TrialRow
from mmtpp.sweep.trial_table import as_csv, trials_table
from mmtpp.sweep.tune_results import row_from_result
from mmtpp.track.mlflow_tracker import MlflowTracker, RunIdentity
from mmtpp.track.provenance import versions

logger = logging.getLogger(__name__)

RESULT_FILE, TABLE_FILE = "result.json", "trials.md"
TRACKER_WAIT_S = 20.0
# settings that the fit of a scaling law reads from the result
SHARED = ("training.samples_per_step", "window.max_tokens")
TUNE_VARIABLES = (
    # Ray Tune's own handler would end the sweep at Ctrl-C as if it were finished
    "TUNE_DISABLE_SIGINT_HANDLER",
    # with two metrics, a report before the end of a trial may have only the first
    "TUNE_DISABLE_STRICT_METRIC_CHECKING",
)
DRIVER_BYTES = 2**29  # memory of the process that drives a trial


def run_sweep(
    sweep: Sweep, *, resume: bool = False, retry_failed: bool = False
) -> dict[str, object]:
    """Run every trial; a failing trial is recorded and does not stop the sweep.

    Finished trials of the same sweep do not run again. A sweep whose trials all failed is not
    finished: its trials run again.

    Args:
        sweep: Sweep to run.
        resume: Whether the sweep must have been started before.
        retry_failed: Whether the failed trials of a finished sweep run again.

    Raises:
        ConfigError: ``resume`` is set and the sweep was never started, or limits that Ray Tune
            keeps have changed.
        DataError: The store is not the one the sweep was started on.
        StorageError: MLflow does not answer.
        ClusterError: A trial does not fit the cluster, or all trials failed.
    """
    uri = join(sweep.config.run.storage_uri, sweep.name)
    store_uri = sweep.config.store.uri
    files_before = _store_files(store_uri)
    check_data(uri, store_uri=store_uri, sweep_name=sweep.settings.name)
    start_ray()
    concurrent_trials = _wait_for_room(sweep)
    budget = Budget.build_for_process(sweep)
    current = Round()
    if exists(join(uri, RESULT_FILE)):
        result = json.loads(read_bytes(join(uri, RESULT_FILE)))
        budget.set_state(result["budget"])
        ended = EndedRound.from_result(result)
        current = next_round(sweep, uri, ended, budget, retry_failed=retry_failed)
        if not current.points:
            _show_finished(uri)
            _check_not_all_failed(ended.rows, result["report_uri"])
            return result
    folder = join(uri, f"tune-{current.number}")
    if resume and not current.points:
        _check_has_begun(folder)
    parent = MlflowTracker.from_run(sweep.config.tracking, RunIdentity(sweep.name, uri, uri))
    StoppedRunCloser.set_tracker(parent, sweep.name)
    try:
        rows = _run_round(sweep, current, folder, parent, budget, concurrent_trials)
    except BaseException:
        parent.close("KILLED")
        raise
    parent.close_children(STOPPED_EARLY)
    if num_changed := _count_changes(files_before, _store_files(store_uri)):
        logger.warning("%d files of the store changed while trials read it", num_changed)
    result = _write_report(sweep, rows, parent, uri)
    result |= {
        "store_files_changed": num_changed,
        "round": current.number,
        "budget": budget.get_state(),
        "budget_used_up": budget.is_used_up,
    }
    write_bytes(join(uri, RESULT_FILE), json.dumps(result, indent=2).encode())
    _check_not_all_failed(rows, join(uri, "report"))
    return result


def _show_finished(uri: str) -> None:
    """Print the table of a finished sweep, and log where its result is."""
    _print(read_bytes(join(uri, "report", TABLE_FILE)).decode())
    logger.info("this sweep is finished; its result is %s", join(uri, RESULT_FILE))


def _check_has_begun(folder: str) -> None:
    """Check that the sweep to resume was started."""
    if not has_begun(folder):
        raise ConfigError(
            "there is no such sweep to resume",
            where=folder,
            cause="it was never started, or its settings or its space have changed since",
        )


def _run_round(
    sweep: Sweep,
    current: Round,
    folder: str,
    parent: MlflowTracker,
    budget: Budget,
    concurrent_trials: int,
) -> list[TrialRow]:
    """Run the trials of a round, or resume them; return the ranked rows of the whole sweep."""
    filesystem, path = filesystem_of(folder)
    parent.log_params(flat_settings(sweep.config))
    parent.set_tags({"mmtpp.job": "sweep", **versions()})
    trainable = _build_trainable(
        sweep, _wait_for_parent_id(parent, sweep.config.tracking.uri), current
    )
    if has_begun(folder):
        check_limits(sweep, folder, concurrent_trials)
        logger.info("resuming the trials in %s", folder)
        tuner = ray.tune.Tuner.restore(path, trainable, storage_filesystem=filesystem)
    else:
        save_round(sweep, folder, concurrent_trials, current)
        tuner = _build_tuner(sweep, trainable, current, budget, concurrent_trials, path, filesystem)
    results = _fit(tuner, parent)
    # the result of a trial that never reported has no settings, and Ray Tune has no public access
    # to its trials
    trials = trials_of_results(results)
    new_rows = [
        row_from_result(results[index], trial, sweep, budget, current)
        for index, trial in enumerate(trials)
    ]
    return rank_trials(
        current.kept_rows + [row for row in new_rows if row is not None],
        sweep.settings.metric[0],
        sweep.settings.mode[0],
    )


def _print(text: str) -> None:
    """Print a table on standard output, before the JSON line."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


@contextmanager
def _tune_environment() -> Iterator[None]:
    """Set the environment variables that Ray Tune reads while it runs trials."""
    before = {name: os.environ.get(name) for name in TUNE_VARIABLES}
    os.environ.update(dict.fromkeys(TUNE_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _fit(tuner: ray.tune.Tuner, parent: MlflowTracker) -> ray.tune.ResultGrid:
    """Run the trials; an interruption ends them, so close their MLflow runs too."""
    try:
        with _tune_environment():
            return tuner.fit()
    except BaseException:
        parent.close_children("by an interruption of the sweep")
        raise


def _wait_for_parent_id(parent: MlflowTracker, tracking_uri: str) -> str:
    """Wait for the id of the sweep's run in MLflow, which trials need."""
    run_id = parent.wait_for_run(TRACKER_WAIT_S)
    if run_id is None:
        raise StorageError(
            f"MLflow does not answer within {TRACKER_WAIT_S:.0f} s, and trials need the id of the "
            "sweep's run to be its children",
            where=tracking_uri,
            setting="tracking.uri, or MLFLOW_TRACKING_URI in the environment",
        )
    return run_id


def _wait_for_room(sweep: Sweep) -> int:
    """Wait until the cluster has room for one trial; return the number of concurrent trials."""
    patience_s, at_most = sweep.config.run.wait_for_machines_s, sweep.settings.max_concurrent
    need = largest_trial(sweep)
    wait_for_machines(data_task_demand(sweep.config.store.machine_labels), patience_s=patience_s)
    wait_for_machines(need, patience_s=patience_s)
    if at_most and has_autoscaler():
        return at_most  # the autoscaler launches machines, or a trial waits for another one to end
    num_trials = max_concurrent_trials(need, machines(need.labels), at_most=at_most)
    if sweep.settings.scheduler.kind == "pbt" and num_trials < sweep.settings.num_trials:
        raise ClusterError(
            f"population-based training runs all members at once, but the cluster has room for "
            f"{num_trials} of sweep.num_trials = {sweep.settings.num_trials}",
            setting=f"sweep.num_trials = {num_trials}, or add machines; with an autoscaler, set "
            "sweep.max_concurrent",
        )
    return num_trials


def _check_not_all_failed(rows: Sequence[TrialRow], report_uri: str) -> None:
    """Check that a trial succeeded: a sweep whose trials all failed has no result."""
    if have_all_failed(rows):
        raise ClusterError(
            f"all {len(rows)} trials failed; the first: {rows[0].error}",
            where=report_uri,
            cause=f"{shared_cause([row.error for row in rows])}. The same command runs them again",
        )


def _build_trainable(sweep: Sweep, parent_run_id: str, current: Round) -> Any:
    """Build the function that Ray Tune calls for each trial."""

    def driver(values: dict[str, Any]) -> None:
        trial_id = ray.tune.get_context().get_trial_id() or ""
        run_trial(
            sweep,
            to_python_values(values),
            parent_run_id=parent_run_id,
            trial_id=current.first_trial_id(trial_id),
            earlier_row=current.earlier_row(trial_id),
        )

    # no CPU for the driver: with one more CPU, a trial of two workers would not fit two CPUs
    return ray.tune.with_resources(driver, {"CPU": 0, "memory": DRIVER_BYTES})


def _build_tuner(
    sweep: Sweep,
    trainable: Any,
    current: Round,
    budget: Budget,
    concurrent_trials: int,
    path: str,
    filesystem: pafs.FileSystem,
) -> ray.tune.Tuner:
    """Build Ray Tune's tuner, for the points of the round or, without points, the whole space."""
    settings, points = sweep.settings, current.points
    storage_path, _, name = path.rpartition("/")
    total = len(points) or sweep.num_trials
    return ray.tune.Tuner(
        trainable,
        param_space=param_space(sweep, is_grid=settings.searcher == "grid" and not points),
        tune_config=ray.tune.TuneConfig(
            num_samples=len(points) or settings.num_trials or 1,
            search_alg=build_searcher(sweep, points, concurrent_trials=concurrent_trials),
            scheduler=FIFOScheduler() if points else build_scheduler(sweep),
        ),
        run_config=ray.tune.RunConfig(
            name=name,
            storage_path=storage_path,
            storage_filesystem=filesystem,
            failure_config=ray.tune.FailureConfig(max_failures=settings.max_machine_failures),
            stop=budget,
            callbacks=[SweepProgress(sweep, total), budget, StoppedRunCloser(sweep.name)],
            verbose=0,
        ),
    )


def _write_report(
    sweep: Sweep, rows: list[TrialRow], parent: MlflowTracker, uri: str
) -> dict[str, object]:
    """Write the table, the figures and the best configuration, to storage and MLflow.

    Returns:
        Result of the sweep.
    """
    settings = sweep.settings
    text = trials_table(rows, sweep)
    _print(text)
    files = {TABLE_FILE: text.encode(), "trials.csv": as_csv(rows).encode()}
    files |= {f"figures/{name}": content for name, content in draw_figures(rows, sweep).items()}
    _warn_of_different_events(rows)
    chosen = best_candidate(rows, sweep)
    best: dict[str, object] = {}
    if chosen is not None:
        best = {key: chosen.settings[key] for key in sweep.space}
        files |= best_files(sweep, best)
        metric = settings.metric[0]
        parent.log_metrics(0, {f"best/{metric}": chosen.metrics[metric]})
        parent.set_tags({f"best.{key}": str(value) for key, value in best.items()})
    for name, content in files.items():
        write_bytes(join(uri, "report", name), content)
    parent.log_folder(join(uri, "report"), "")
    parent.close("FAILED" if have_all_failed(rows) else "FINISHED")
    candidates = list_candidates(rows, sweep) if len(settings.metric) > 1 else []
    front = [
        {key: candidate.settings[key] for key in sweep.space if key in candidate.settings}
        for candidate in pareto_front(candidates, settings.metric, settings.mode)
    ]
    return {
        "run_id": parent.run_id,
        "name": sweep.name,
        "trials": [row.as_dict() for row in rows],
        "shared": {
            key: value for key, value in flat_settings(sweep.config).items() if key in SHARED
        },
        "best": best,
        "best_uri": join(uri, "report", "best.toml") if best else "",
        **({"pareto": front} if front else {}),
        "report_uri": join(uri, "report"),
        **{
            status.replace(" ", "_"): sum(row.status == status for row in rows)
            for status in get_args(Status)
        },
        "not_started": sweep.num_trials - len(rows),
        "tracking_uri": sweep.config.tracking.uri,
    }


def _warn_of_different_events(rows: Sequence[TrialRow]) -> None:
    """Warn when trials were scored on different numbers of events."""
    counts = sorted(
        {
            row.metrics[VALIDATION_EVENTS]
            for row in finished_trials(rows)
            if VALIDATION_EVENTS in row.metrics
        }
    )
    if len(counts) > 1:
        logger.warning(
            "trials were scored on %g to %g events: they cannot be compared", counts[0], counts[-1]
        )


def _store_files(store_uri: str) -> dict[str, tuple[int, str]]:
    """Sizes and modification times of the store's files, which trials only read."""
    load_manifest(store_uri)  # raises an error that names the missing store
    files = list_files(store_uri, "")
    return {info.path: (info.size, str(info.mtime)) for info in files}


def _count_changes(before: Mapping[str, object], after: Mapping[str, object]) -> int:
    """Number of files that were written, changed or deleted."""
    return sum(before.get(name) != after.get(name) for name in before.keys() | after.keys())
