"""Report of a sweep: table, figures and best configuration in storage and MLflow; the result."""

import logging
import sys
from collections.abc import Sequence
from typing import get_args

from mmtpp.config.flat_settings import flat_settings
from mmtpp.core.training.training_metrics import VALIDATION_EVENTS
from mmtpp.storage.paths import join, read_bytes, write_bytes
from mmtpp.sweep.best_config import BEST_FILE, best_files
from mmtpp.sweep.ranking import best_candidate, finished_trials, list_candidates, pareto_front
from mmtpp.sweep.space import Sweep
from mmtpp.sweep.sweep_figures import draw_figures
from mmtpp.sweep.trial_row import Status, TrialRow
from mmtpp.sweep.trial_table import as_csv, trials_table
from mmtpp.track.mlflow_tracker import MlflowTracker

logger = logging.getLogger(__name__)

TABLE_FILE = "trials.md"
# common settings that the fit of a scaling law reads from the result
SHARED = ("training.samples_per_step", "window.max_tokens")


def write_report(
    sweep: Sweep, rows: Sequence[TrialRow], report_uri: str, parent: MlflowTracker
) -> dict[str, object]:
    """Write the table, the figures and the best configuration, to storage and MLflow.

    Args:
        sweep: Sweep of the trials.
        rows: Rows of all trials, from best to worst.
        report_uri: Folder of the report.
        parent: Tracker of the sweep's run, which stays open.

    Returns:
        Result of the sweep, without the state from which a later round starts.
    """
    _warn_of_different_events(rows)
    best = best_candidate(rows, sweep)
    best_values = {} if best is None else sweep.searched_values(best.settings)
    table = trials_table(rows, sweep)
    files = {TABLE_FILE: table.encode(), "trials.csv": as_csv(rows).encode()}
    files |= {f"figures/{name}": content for name, content in draw_figures(rows, sweep).items()}
    if best is not None:
        files |= best_files(sweep, best_values)
        metric = sweep.settings.metric[0]
        parent.log_metrics(0, {f"best/{metric}": best.metrics[metric]})
        parent.set_tags({f"best.{key}": str(value) for key, value in best_values.items()})
    for name, content in files.items():
        write_bytes(join(report_uri, name), content)
    parent.log_folder(report_uri, "")
    front = _pareto_settings(rows, sweep)
    return {
        "run_id": parent.run_id,
        "name": sweep.name,
        "trials": [row.as_dict() for row in rows],
        "shared": {
            key: value for key, value in flat_settings(sweep.config).items() if key in SHARED
        },
        "best": best_values,
        "best_uri": join(report_uri, BEST_FILE) if best_values else "",
        **({"pareto": front} if front else {}),
        "report_uri": report_uri,
        **{
            status.replace(" ", "_"): sum(row.status == status for row in rows)
            for status in get_args(Status)
        },
        "not_started": sweep.num_trials - len(rows),
        "tracking_uri": sweep.config.tracking.uri,
    }


def print_table(report_uri: str) -> None:
    """Print the table of a written report on standard output, before the JSON line."""
    sys.stdout.write(read_bytes(join(report_uri, TABLE_FILE)).decode() + "\n")
    sys.stdout.flush()


def _pareto_settings(rows: Sequence[TrialRow], sweep: Sweep) -> list[dict[str, object]]:
    """Searched settings of the Pareto front; empty for a sweep with a single metric."""
    metrics, modes = sweep.settings.metric, sweep.settings.mode
    if len(metrics) == 1:
        return []
    front = pareto_front(list_candidates(rows, sweep), metrics, modes)
    return [sweep.searched_values(candidate.settings) for candidate in front]


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
