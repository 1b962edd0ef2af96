"""Run a sweep with Ray Tune over Ray Train: one MLflow run with a child per trial."""

import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow.fs as pafs
import ray
import ray.tune
from ray.tune.schedulers import FIFOScheduler

from mmtpp.compat.ray_hooks import trials_of_results
from mmtpp.config.flat_settings import flat_settings
from mmtpp.core.errors import (
    ClusterError,
    ConfigError,
    StorageError,
)
from mmtpp.runtime.machines import data_task_demand, has_autoscaler, machines, wait_for_machines
from mmtpp.runtime.session import start_ray
from mmtpp.storage.manifest import load_manifest
from mmtpp.storage.paths import (
    exists,
    filesystem_of,
    join,
    list_files,
    read_bytes,
    write_bytes,
)
from mmtpp.sweep.budget import Budget
from mmtpp.sweep.causes import shared_cause
from mmtpp.sweep.charts import figures
from mmtpp.sweep.resume import Again, begin_again, check_data, check_limits, has_begun, keep_limits
from mmtpp.sweep.rows import row_of
from mmtpp.sweep.search import concurrency, largest_trial, param_space, plain, scheduler, searcher
from mmtpp.sweep.space import Sweep
from mmtpp.sweep.stopped import BY_THE_SWEEP, StoppedRuns
from mmtpp.sweep.sweep_progress import Progress
from mmtpp.sweep.trial import run_trial
from mmtpp.sweep.trial_table import (
    Row,
    as_csv,
    best_files,
    best_of,
    comparable,
    pareto,
    ranked,
    trials_table,
)
from mmtpp.track.mlflow_tracker import MlflowTracker, RunIdentity
from mmtpp.track.provenance import versions

logger = logging.getLogger(__name__)

RESULT_FILE, TABLE_FILE = "result.json", "trials.md"
EVENTS = "validation/events"  # that a trial was scored on
INTERRUPTED = 130  # exit status after Ctrl-C
TRACKER_WAIT_S = 20.0
SHARED = ("training.samples_per_step", "window.max_tokens")  # what a study of scaling asks for
DRIVER_BYTES = 2**29  # of the process that drives a trial


def run(sweep: Sweep, *, resume: bool = False, retry_failed: bool = False) -> dict[str, object]:
    """Run every trial; a failing one is recorded and does not stop the others.

    Finished trials of the same sweep are not run again. A sweep whose trials all failed is not
    finished: its trials run again.

    Args:
        sweep: what to try.
        resume: whether it must have been started before.
        retry_failed: Whether the failed trials of a finished sweep run again.

    Raises:
        ConfigError: ``resume``, and there is nothing to go on with; or limits that Ray Tune keeps
            have changed.
        DataError: the store is not the one the sweep was started on.
        StorageError: MLflow does not answer.
        ClusterError: a trial does not fit the cluster, or all trials failed.
    """
    uri = join(sweep.config.run.storage_uri, sweep.name)
    before = _store_files(sweep)
    check_data(sweep, uri)
    start_ray()
    at_once = _trials_at_once(sweep)
    budget = Budget.of_this_process(sweep)
    again = Again()
    if exists(join(uri, RESULT_FILE)):
        result = json.loads(read_bytes(join(uri, RESULT_FILE)))
        budget.set_state(result["budget"])
        again = begin_again(sweep, uri, result, budget, retry_failed=retry_failed)
        if not again.points:
            _print(read_bytes(join(uri, "report", TABLE_FILE)).decode())
            logger.info("this sweep is finished; its result is %s", join(uri, RESULT_FILE))
            return _checked(result)
    folder = join(uri, f"tune-{again.round}")
    filesystem, path = filesystem_of(folder)
    started = has_begun(folder)
    if resume and not (started or again.points):
        raise ConfigError(
            "there is no such sweep to resume",
            where=folder,
            cause="its settings or its space are not those it was started with, or it never was",
        )
    parent = MlflowTracker.of_run(sweep.config.tracking, RunIdentity(sweep.name, uri, uri))
    StoppedRuns.close_with(parent, sweep.name)
    try:
        parent.params(flat_settings(sweep.config))
        parent.tags({"mmtpp.job": "sweep", **versions()})
        trainable = _trainable(sweep, _parent_id(sweep, parent), again)
        if started:
            check_limits(sweep, folder, at_once)
            logger.info("going on with the trials of %s", folder)
            tuner = ray.tune.Tuner.restore(path, trainable, storage_filesystem=filesystem)
        else:
            keep_limits(sweep, folder, at_once, again)
            tuner = _new_tuner(sweep, trainable, again, budget, at_once, path, filesystem)
        # its own handler would end the sweep at Ctrl-C as if it were over
        os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
        # of two metrics a report before a trial's end may have the first alone
        os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"
        grid = _fit(tuner, parent)
        # a result has no settings if its trial never reported, and Ray Tune no other way to trials
        trials = trials_of_results(grid)
        found = [
            row_of(grid[place], trial, sweep, budget, again) for place, trial in enumerate(trials)
        ]
    except BaseException:
        parent.close("KILLED")
        raise
    rows = ranked(
        again.known + [row for row in found if row is not None],
        sweep.settings.metric[0],
        sweep.settings.mode[0],
    )
    parent.close_children(BY_THE_SWEEP)
    changed = _changed(before, _store_files(sweep))
    if changed:
        logger.warning("%d files of the store were changed while trials read it", changed)
    result = _conclude(sweep, rows, parent, uri)
    result |= {
        "store_files_changed": changed,
        "round": again.round,
        "budget": budget.get_state(),
        "budget_used_up": budget.is_used_up,
    }
    write_bytes(join(uri, RESULT_FILE), json.dumps(result, indent=2).encode())
    return _checked(result)


def _print(text: str) -> None:
    """Show a table on standard output, before the JSON line."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _fit(tuner: ray.tune.Tuner, parent: MlflowTracker) -> ray.tune.ResultGrid:
    """Run the trials; an interruption, which takes them down, closes their runs too."""
    try:
        return tuner.fit()
    except BaseException:
        parent.close_children("by an interruption of the sweep")
        raise


def _parent_id(sweep: Sweep, parent: MlflowTracker) -> str:
    found = parent.wait_for_run(TRACKER_WAIT_S)
    if found is None:
        raise StorageError(
            f"MLflow does not answer within {TRACKER_WAIT_S:.0f} s, and trials need the id of the "
            "sweep's run to be its children",
            where=sweep.config.tracking.uri,
            setting="tracking.uri, or MLFLOW_TRACKING_URI in the environment",
        )
    return found


def _trials_at_once(sweep: Sweep) -> int:
    """After waiting until there is room for one."""
    patience_s, at_most = sweep.config.run.wait_for_machines_s, sweep.settings.max_concurrent
    need = largest_trial(sweep)
    for each in (data_task_demand(sweep.config.store.machine_labels), need):
        wait_for_machines(each, patience_s=patience_s)
    if at_most and has_autoscaler():
        return at_most  # each brings its machines, or waits for those of another
    at_once = concurrency(need, machines(need.labels), at_most=at_most)
    if sweep.settings.scheduler.kind == "pbt" and at_once < sweep.settings.num_trials:
        raise ClusterError(
            f"members of a population are trained at the same time: of sweep.num_trials = "
            f"{sweep.settings.num_trials} there is room for {at_once}",
            setting="fewer of them, or sweep.max_concurrent where an autoscaler brings machines",
        )
    return at_once


def _checked(result: dict[str, Any]) -> dict[str, Any]:
    """The result, unless there is nothing but failures in it."""
    rows = result["trials"]
    if rows and result["failed"] == len(rows):
        raise ClusterError(
            f"all {len(rows)} trials failed; the first: {rows[0]['error']}",
            where=result["report_uri"],
            cause=f"{shared_cause(rows)}. The same command runs them again",
        )
    return result


def _trainable(sweep: Sweep, parent_run_id: str, again: Again) -> Any:
    """What Ray Tune starts for each trial."""

    def driver(values: dict[str, Any]) -> None:
        name = ray.tune.get_context().get_trial_id() or ""
        run_trial(
            sweep,
            plain(values),
            parent_run_id=parent_run_id,
            trial_id=again.first_name(name),
            began=again.row(name),
        )

    # no CPU: its workers have those, and with another one two workers would not fit two CPUs
    return ray.tune.with_resources(driver, {"CPU": 0, "memory": DRIVER_BYTES})


def _new_tuner(
    sweep: Sweep,
    trainable: Any,
    again: Again,
    budget: Budget,
    at_once: int,
    path: str,
    filesystem: pafs.FileSystem,
) -> ray.tune.Tuner:
    """Ray Tune's part of the sweep: of the points alone, if there are any."""
    settings, points = sweep.settings, again.points
    storage_path, _, name = path.rpartition("/")
    total = len(points) or sweep.num_trials
    return ray.tune.Tuner(
        trainable,
        param_space=param_space(sweep, is_grid=settings.searcher == "grid" and not points),
        tune_config=ray.tune.TuneConfig(
            num_samples=len(points) or settings.num_trials or 1,
            search_alg=searcher(sweep, points, at_once=at_once),
            scheduler=FIFOScheduler() if points else scheduler(sweep),
        ),
        run_config=ray.tune.RunConfig(
            name=name,
            storage_path=storage_path,
            storage_filesystem=filesystem,
            failure_config=ray.tune.FailureConfig(max_failures=settings.max_machine_failures),
            stop=budget,
            callbacks=[Progress(sweep, total), budget, StoppedRuns(sweep.name)],
            verbose=0,
        ),
    )


def _conclude(sweep: Sweep, rows: list[Row], parent: MlflowTracker, uri: str) -> dict[str, object]:
    """Table, figures and best configuration, beside the trials and in MLflow."""
    settings = sweep.settings
    text = trials_table(rows, sweep)
    _print(text)
    files = {TABLE_FILE: text.encode(), "trials.csv": as_csv(rows).encode()}
    files |= {f"figures/{name}": content for name, content in figures(rows, sweep).items()}
    _warn_of_different_events(rows)
    chosen = best_of(rows, sweep)
    best: Mapping[str, object] = {}
    if chosen is not None:
        best = {key: chosen[key] for key in sweep.space}
        files |= best_files(sweep, best)
        parent.metrics(0, {f"best/{settings.metric[0]}": float(str(chosen[settings.metric[0]]))})
        parent.tags({f"best.{key}": str(value) for key, value in best.items()})
    for name, content in files.items():
        write_bytes(join(uri, "report", name), content)
    parent.folder(join(uri, "report"), "")
    has_failed = bool(rows) and all(row["status"] == "failed" for row in rows)
    parent.close("FAILED" if has_failed else "FINISHED")
    judged = comparable(rows, sweep) if len(settings.metric) > 1 else []
    front = [
        {key: row[key] for key in sweep.space if key in row}
        for row in pareto(judged, settings.metric, settings.mode)
    ]
    return {
        "run_id": parent.run_id,
        "name": sweep.name,
        "trials": rows,
        "shared": {
            key: value for key, value in flat_settings(sweep.config).items() if key in SHARED
        },
        "best": dict(best),
        "best_uri": join(uri, "report", "best.toml") if best else "",
        **({"pareto": front} if front else {}),
        "report_uri": join(uri, "report"),
        **{
            state.replace(" ", "_"): sum(row["status"] == state for row in rows)
            for state in ("finished", "stopped", "cut short", "failed")
        },
        "not_started": sweep.num_trials - len(rows),
        "tracking_uri": sweep.config.tracking.uri,
    }


def _warn_of_different_events(rows: Sequence[Row]) -> None:
    """Trials that were scored on different events cannot be compared."""
    done = [row for row in rows if row["status"] == "finished" and EVENTS in row]
    counts = sorted({float(str(row[EVENTS])) for row in done})
    if len(counts) > 1:
        logger.warning(
            "trials were scored on %g to %g events: they cannot be compared", counts[0], counts[-1]
        )


def _store_files(sweep: Sweep) -> dict[str, tuple[int, str]]:
    """Sizes and times of the store's files: trials read it, and none prepares it again."""
    load_manifest(sweep.config.store.uri)  # says what is missing
    found = list_files(sweep.config.store.uri, "")
    return {info.path: (info.size, str(info.mtime)) for info in found}


def _changed(before: Mapping[str, object], after: Mapping[str, object]) -> int:
    """How many files were written, changed or deleted."""
    return sum(before.get(name) != after.get(name) for name in before.keys() | after.keys())
