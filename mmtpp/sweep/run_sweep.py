"""Run a sweep with Ray Tune over Ray Train: one MLflow run with a child run for each trial."""

import json
import logging
from collections.abc import Mapping, Sequence

from mmtpp.compat.ray_hooks import trials_of_results
from mmtpp.config.flat_settings import flat_settings
from mmtpp.core.errors import ClusterError, ConfigError, StorageError
from mmtpp.runtime.machines import data_task_demand, has_autoscaler, machines, wait_for_machines
from mmtpp.runtime.session import start_ray
from mmtpp.storage.manifest import load_manifest
from mmtpp.storage.paths import exists, join, list_files, read_bytes, write_bytes
from mmtpp.sweep.budget import Budget
from mmtpp.sweep.failure_causes import shared_cause
from mmtpp.sweep.ranking import rank_trials
from mmtpp.sweep.rounds import (
    EndedRound,
    Round,
    check_data,
    has_begun,
    have_all_failed,
    next_round,
)
from mmtpp.sweep.search import largest_trial, max_concurrent_trials
from mmtpp.sweep.space import Sweep
from mmtpp.sweep.stopped_runs import INTERRUPTED, STOPPED_EARLY, StoppedRunCloser
from mmtpp.sweep.sweep_report import print_table, write_report
from mmtpp.sweep.trial_row import TrialRow
from mmtpp.sweep.tune_results import row_from_result
from mmtpp.sweep.tuner import fit, load_or_build_tuner
from mmtpp.track.mlflow_tracker import TRACKER_WAIT_S, MlflowTracker
from mmtpp.track.provenance import versions
from mmtpp.track.tracker import RunIdentity

logger = logging.getLogger(__name__)

RESULT_FILE = "result.json"


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
    store_uri, report_uri = sweep.config.store.uri, join(uri, "report")
    files_before = _store_files(store_uri)
    check_data(uri, store_uri=store_uri, sweep_name=sweep.settings.name)
    start_ray()
    concurrent_trials = _wait_for_room(sweep)
    budget = Budget.build_for_process(sweep)
    current_round = Round()
    if exists(join(uri, RESULT_FILE)):
        result = json.loads(read_bytes(join(uri, RESULT_FILE)))
        budget.set_state(result["budget"])
        ended = EndedRound.from_result(result)
        current_round = next_round(sweep, uri, ended, budget, retry_failed=retry_failed)
        if not current_round.points:
            print_table(report_uri)
            logger.info("this sweep is finished; its result is %s", join(uri, RESULT_FILE))
            return result
    folder = join(uri, f"tune-{current_round.number}")
    if resume and not current_round.points:
        _check_has_begun(folder)
    run = RunIdentity(sweep.name, uri, uri)
    with MlflowTracker.from_run(sweep.config.tracking, run) as parent:
        rows = _run_round(
            sweep,
            current_round,
            folder=folder,
            parent=parent,
            budget=budget,
            concurrent_trials=concurrent_trials,
        )
        num_changed = _count_changes(files_before, _store_files(store_uri))
        if num_changed:
            logger.warning("%d files of the store changed while trials read it", num_changed)
        result = write_report(sweep, rows, report_uri, parent) | {
            "store_files_changed": num_changed,
            "round": current_round.number,
            "budget": budget.get_state(),
            "budget_used_up": budget.is_used_up,
        }
        write_bytes(join(uri, RESULT_FILE), json.dumps(result, indent=2).encode())
        print_table(report_uri)
        _check_not_all_failed(rows, report_uri)
    return result


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
    current_round: Round,
    *,
    folder: str,
    parent: MlflowTracker,
    budget: Budget,
    concurrent_trials: int,
) -> list[TrialRow]:
    """Run the trials of a round, or resume them; return the ranked rows of the whole sweep.

    The runs of trials that end without closing their runs are closed in MLflow.
    """
    parent.log_params(flat_settings(sweep.config))
    parent.set_tags({"mmtpp.job": "sweep", **versions()})
    StoppedRunCloser.set_tracker(parent, sweep.name)
    tuner = load_or_build_tuner(
        sweep,
        current_round,
        folder,
        budget=budget,
        concurrent_trials=concurrent_trials,
        parent_run_id=_wait_for_parent_id(parent, sweep.config.tracking.uri),
    )
    try:
        results = fit(tuner)
    except BaseException:
        parent.close_children(INTERRUPTED)
        raise
    parent.close_children(STOPPED_EARLY)
    # the result of a trial that never reported has no settings, and Ray Tune has no public access
    # to its trials
    trials = trials_of_results(results)
    new_rows = [
        row_from_result(results[index], trial, sweep, budget, current_round)
        for index, trial in enumerate(trials)
    ]
    return rank_trials(
        current_round.kept_rows + [row for row in new_rows if row is not None],
        sweep.settings.metric[0],
        sweep.settings.mode[0],
    )


def _wait_for_parent_id(parent: MlflowTracker, tracking_uri: str) -> str:
    """Wait for the id of the sweep's run in MLflow, which trials need."""
    run_id = parent.wait_for_run()
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


def _store_files(store_uri: str) -> dict[str, tuple[int, str]]:
    """Sizes and modification times of the store's files, which trials only read."""
    load_manifest(store_uri)  # raises an error that names the missing store
    files = list_files(store_uri, "")
    return {info.path: (info.size, str(info.mtime)) for info in files}


def _count_changes(before: Mapping[str, object], after: Mapping[str, object]) -> int:
    """Number of files that were written, changed or deleted."""
    return sum(before.get(name) != after.get(name) for name in before.keys() | after.keys())
