"""Forecasts of a fine-tuned model: every held-out event once, compared with baselines."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from mmtpp.core.point_processes.history import History
from mmtpp.evaluate.baselines.baseline_tasks import BaselineTasks
from mmtpp.evaluate.context import EvaluationContext
from mmtpp.evaluate.evaluation_scores import EvaluationScores
from mmtpp.evaluate.histories import read_histories
from mmtpp.evaluate.horizon import evaluate_horizon
from mmtpp.evaluate.kinds.evaluated_model import EvaluatedModel
from mmtpp.evaluate.report.figures import draw_report_figures, write_figures
from mmtpp.evaluate.report.report_page import Subject, render_report
from mmtpp.evaluate.report.verdict import Estimates
from mmtpp.evaluate.scores.estimates import (
    Estimate,
    as_json_tree,
    few_sequences_warning,
    finite_values,
)
from mmtpp.evaluate.scores.metrics import estimate_metrics, metric_differences
from mmtpp.evaluate.scores.position_ranges import is_at_position
from mmtpp.storage.parquet import write_table
from mmtpp.storage.paths import write_bytes

logger = logging.getLogger(__name__)

REPORT_FILE = "report.html"


@dataclass(frozen=True, slots=True)
class _ComparedForecasts:
    """Forecasts of the same targets by the model and by the baselines.

    Attributes:
        targets: Forecasts of the model, ``targets.TARGET_SCHEMA``.
        targets_uri: Path of this table.
        baselines: Forecasts of each baseline, ``targets.TARGET_SCHEMA``.
    """

    targets: pa.Table
    targets_uri: str
    baselines: Mapping[str, pa.Table]


def evaluate_forecasts(model: EvaluatedModel) -> EvaluationScores:
    """Forecast every target of the held-out split and compare with baselines.

    Writes ``targets.parquet``, ``metrics.json`` with confidence intervals, ``figures`` and
    ``report.html``.

    Args:
        model: The model of the evaluation.

    Raises:
        DataError: No event is a target.
    """
    context = model.context
    type_codes = context.all_types(model.trained_tasks)
    # a baseline may know the events before window.time_from, as the model does
    histories = read_histories(
        replace(context.held_out_sample_settings, time_from=None), type_codes
    )
    forecasts = _forecast_with_baselines(model, histories, type_codes)
    estimates = _estimate(context, forecasts)
    if context.evaluation.num_futures:
        horizon = evaluate_horizon(model, histories, type_codes)
        estimates["model"] |= horizon.model
        estimates["repeat"] = horizon.repeat
    note = few_sequences_warning(len(forecasts.targets["sequence_id"].unique()))
    _write_estimates(context.path("metrics.json"), estimates, note)
    report_uri = context.path(REPORT_FILE)
    _write_report(model, forecasts, estimates, report_uri)
    return EvaluationScores(
        metrics=finite_values(estimates["model"]) | model.cut_text_counts(),
        baselines=_baseline_metrics(estimates),
        tables={
            "targets": len(forecasts.targets),
            "targets_uri": forecasts.targets_uri,
            "report_uri": report_uri,
            **({"note": note} if note else {}),
        },
        report_uri=report_uri,
    )


def _forecast_with_baselines(
    model: EvaluatedModel, histories: Sequence[History], type_codes: tuple[int, ...]
) -> _ComparedForecasts:
    """Forecast the targets; the baselines are fitted while the model scores.

    Writes ``targets.parquet``.
    """
    context = model.context
    training = read_histories(context.training_sample_settings, type_codes)
    baseline_tasks = BaselineTasks(
        histories,
        tick=context.manifest.tick,
        num_types=len(type_codes),
        machine_labels=context.task_labels,
    )
    baseline_tasks.start_fit([history for history in training if len(history.times) > 1])
    targets = model.forecast_targets()
    targets_uri = context.path("targets.parquet")
    write_table(targets_uri, targets)
    return _ComparedForecasts(targets, targets_uri, baseline_tasks.forecast_targets(targets))


def _estimate(
    context: EvaluationContext, forecasts: _ComparedForecasts
) -> dict[str, dict[str, Estimate]]:
    """Metrics of ``model`` and of each baseline, times in seconds."""
    seconds, seed = context.manifest.seconds_per_unit, context.seed
    return {
        name: estimate_metrics(table, seconds_per_unit=seconds, seed=seed)
        for name, table in {"model": forecasts.targets, **forecasts.baselines}.items()
    }


def _write_estimates(uri: str, estimates: Estimates, note: str | None) -> None:
    """Write the metrics of the model and of the baselines as JSON."""
    tree: dict[str, object] = {name: as_json_tree(part) for name, part in estimates.items()}
    if note:
        logger.warning("%s", note)
        tree["note"] = note
    write_bytes(uri, json.dumps(tree, indent=2).encode())


def _write_report(
    model: EvaluatedModel, forecasts: _ComparedForecasts, estimates: Estimates, report_uri: str
) -> None:
    """Write the figures and the page.

    Args:
        model: The model of the evaluation.
        forecasts: Forecasts of the model and of the baselines.
        estimates: Metrics of ``model`` and of each baseline, times in seconds.
        report_uri: Path of the page.
    """
    context = model.context
    seconds, targets = context.manifest.seconds_per_unit, forecasts.targets
    differences = {
        name: metric_differences(targets, table, seconds_per_unit=seconds, seed=context.seed)
        for name, table in forecasts.baselines.items()
    }
    subject = _subject(model)
    figures = draw_report_figures(
        targets, estimates["model"], seconds_per_unit=seconds, names=subject.names()
    )
    write_figures(context.path("figures"), figures)
    examples = model.examples(targets)
    page = render_report(subject, targets, estimates, figures, examples, differences)
    write_bytes(report_uri, page.encode("utf-8", "backslashreplace"))


def _subject(model: EvaluatedModel) -> Subject:
    """The name and the facts of the evaluation, for the page."""
    context, manifest = model.context, model.context.manifest
    return Subject(
        context.run_uri.rpartition("/")[2],
        {
            **model.facts(),
            "store": f"{context.store_uri}, {manifest.fingerprint[:16]}",
            "split": f"{context.evaluation.split}, by {manifest.split_by}",
        },
        tuple(manifest.type_names),
        manifest.seconds_per_unit,
        manifest.times_are_dates,
    )


def _baseline_metrics(estimates: Estimates) -> dict[str, float]:
    """Metrics of the baselines over all positions, by ``BASELINE/METRIC``."""
    return {
        f"{name}/{metric}": value
        for name, part in estimates.items()
        if name != "model"
        for metric, value in finite_values(part).items()
        if not is_at_position(metric)
    }
