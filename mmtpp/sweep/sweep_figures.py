"""Figures of a sweep: metrics against each searched setting, all settings, and the Pareto front."""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from mmtpp.core.training.training_metrics import (
    COMPRESSED_FRACTION,
    EVENTS_PER_CONTEXT,
    TOKENS_PER_EVENT,
    TRAINED_PARAMETERS,
    VALIDATION_INTERVAL_NLL,
    VALIDATION_LOSS,
    VALIDATION_TYPE_ACCURACY,
)
from mmtpp.evaluate.scores.metric_names import TIME_RMSE
from mmtpp.sweep.ranking import Candidate, finished_trials, list_candidates, pareto_front
from mmtpp.sweep.space import Sweep
from mmtpp.sweep.sweep_settings import Mode
from mmtpp.sweep.trial_row import TrialRow

MAX_TICKS = 12  # maximum number of values of a setting that an axis lists
# metrics shown against a setting, after those of the sweep
PANELS = (
    COMPRESSED_FRACTION,
    TOKENS_PER_EVENT,
    EVENTS_PER_CONTEXT,
    TRAINED_PARAMETERS,
    VALIDATION_INTERVAL_NLL,
    VALIDATION_TYPE_ACCURACY,
    VALIDATION_LOSS,
    f"evaluate/{TIME_RMSE}",
)
# the cost against which a single metric is drawn
COST = TOKENS_PER_EVENT


def draw_figures(rows: Sequence[TrialRow], sweep: Sweep) -> dict[str, bytes]:
    """Draw the figures of a sweep as PNG files, by name.

    There is one figure for each setting, ``all_settings`` if there are several settings, and
    ``pareto``, for the two metrics of the sweep, or for its only metric against tokens per event.
    Trials that were stopped early are hollow or dashed, with their last report; they count in no
    mean and no front.

    Args:
        rows: Rows of all trials.
        sweep: Sweep of the trials.
    """
    finished = finished_trials(rows)
    if not finished:
        return {}
    shown = [row for row in rows if row.status != "failed"]
    figures = {
        f"by_{key.replace('.', '_')}": _setting_figure(shown, key, sweep)
        for key in sweep.space
        if len({str(row.settings[key]) for row in shown}) > 1
    }
    if len(figures) > 1:
        figures["all_settings"] = _parallel_figure(shown, sweep)
    metrics: list[str] = list(sweep.settings.metric)
    modes: list[Mode] = list(sweep.settings.mode)
    if len(metrics) == 1 and metrics[0] != COST:
        metrics, modes = [COST, *metrics], ["min", *modes]
    if len(metrics) == 2 and all(_varies(finished, name) for name in metrics):
        figures["pareto"] = _pareto_figure(finished, list_candidates(rows, sweep), metrics, modes)
    files: dict[str, bytes] = {}
    for name, figure in figures.items():
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=110, bbox_inches="tight")
        files[f"{name}.png"] = content.getvalue()
    return files


def _metric_values(rows: Sequence[TrialRow | Candidate], name: str) -> np.ndarray:
    """Values of a metric, (N,); NaN for a trial without the metric."""
    return np.array([row.metrics.get(name, np.nan) for row in rows])


def _varies(rows: Sequence[TrialRow], name: str) -> bool:
    """Whether trials have at least two different values of a metric."""
    values = _metric_values(rows, name)
    return np.isfinite(values).sum() > 1 and np.nanmin(values) < np.nanmax(values)


def _axis_positions(rows: Sequence[TrialRow], key: str) -> tuple[np.ndarray, list[str], bool]:
    """Positions of trials on the axis of a setting.

    Returns:
        The positions, (N,); labels of the ticks; whether the axis lists all values,
        evenly spaced. Up to ``MAX_TICKS`` numbers are listed like names: they may span decades.
    """
    settings = [row.settings[key] for row in rows]
    values = [value if isinstance(value, int | float) else str(value) for value in settings]
    are_numbers = not any(isinstance(value, str) for value in values)
    distinct = sorted(set(values), key=lambda value: (isinstance(value, str), value))  # pyright: ignore
    if len(distinct) <= MAX_TICKS or not are_numbers:
        return (
            np.array([distinct.index(value) for value in values]),
            [_format_value(value) for value in distinct],
            True,
        )
    return np.array(values, dtype=float), [], False


def _format_value(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _are_finished(rows: Sequence[TrialRow]) -> np.ndarray:
    """Whether each trial finished, (N,)."""
    return np.array([row.status == "finished" for row in rows])


def _setting_figure(rows: Sequence[TrialRow], key: str, sweep: Sweep) -> Figure:
    """Draw trials as points, and the mean of finished trials as a line, against one setting."""
    is_finished = _are_finished(rows)
    names = dict.fromkeys([*sweep.settings.metric, *PANELS])
    shown = [name for name in names if _varies(rows, name)] or list(sweep.settings.metric)
    positions, labels, listed = _axis_positions(rows, key)
    columns = min(3, len(shown))
    figure = Figure(figsize=(3.8 * columns, 3.0 * -(-len(shown) // columns)))
    for index, name in enumerate(shown):
        axes = figure.add_subplot(-(-len(shown) // columns), columns, index + 1)
        values = _metric_values(rows, name)
        axes.plot(positions[is_finished], values[is_finished], "o", markersize=4, alpha=0.5)
        axes.plot(
            positions[~is_finished],
            values[~is_finished],
            "o",
            markersize=4,
            alpha=0.5,
            color="0.4",
            markerfacecolor="none",
            label="stopped early",
        )
        if listed:
            measured = is_finished & np.isfinite(values)
            ticks = np.unique(positions[measured])
            means = [values[measured & (positions == tick)].mean() for tick in ticks]
            axes.plot(ticks, means, linewidth=1.2, color="C0")
            axes.set_xticks(range(len(labels)), labels)
        if index == 0 and not is_finished.all():
            axes.legend(fontsize=8)
        axes.set(xlabel=key, title=name)
        axes.title.set_fontsize(9)
    figure.tight_layout()
    return figure


def _parallel_figure(rows: Sequence[TrialRow], sweep: Sweep) -> Figure:
    """Draw a line per trial through all settings and metrics, coloured by the first metric."""
    keys, metrics = list(sweep.space), list(sweep.settings.metric)
    figure = Figure(figsize=(1.9 * (len(keys) + len(metrics)) + 1, 3.6))
    axes = figure.add_subplot()
    heights = []
    for index, name in enumerate([*keys, *metrics]):
        if name in sweep.space:
            values, labels, listed = _axis_positions(rows, name)
        else:
            values, labels, listed = _metric_values(rows, name), [], False
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        heights.append((values - low) / ((high - low) or 1.0))
        ends = list(enumerate(labels)) if listed else [(low, f"{low:.4g}"), (high, f"{high:.4g}")]
        for position, label in ends:
            axes.text(index + 0.03, (position - low) / ((high - low) or 1.0), label, fontsize=8)
        axes.axvline(index, color="0.8", linewidth=1)
    lines = np.stack(heights, axis=1)
    first = lines[:, len(keys)]
    better = first if sweep.settings.mode[0] == "max" else 1 - first
    for line, share, is_solid in zip(lines, better, _are_finished(rows), strict=True):
        axes.plot(
            line,
            "-" if is_solid else "--",
            linewidth=1.2,
            alpha=0.8,
            color=colormaps["viridis"](np.nan_to_num(share)),
        )
    axes.set_xticks(range(len(keys) + len(metrics)), [*keys, *metrics], fontsize=8)
    axes.set_yticks([])
    axes.set_title(
        "Trials, the best in yellow"
        + ("" if _are_finished(rows).all() else ", stopped trials dashed")
    )
    return figure


def _pareto_figure(
    rows: Sequence[TrialRow],
    candidates: Sequence[Candidate],
    metrics: Sequence[str],
    modes: Sequence[Mode],
) -> Figure:
    """Draw trials in grey, and the Pareto front of the candidates."""
    figure = Figure(figsize=(4.8, 3.8))
    axes = figure.add_subplot()
    axes.plot(*(_metric_values(rows, name) for name in metrics), "o", color="0.6", markersize=4)
    best = sorted(
        pareto_front(candidates, metrics, modes),
        key=lambda candidate: candidate.metrics[metrics[0]],
    )
    axes.plot(*(_metric_values(best, name) for name in metrics), "o-", markersize=5, linewidth=1.2)
    axes.set(
        xlabel=f"{metrics[0]} ({modes[0]})",
        ylabel=f"{metrics[1]} ({modes[1]})",
        title="Pareto front",
    )
    return figure
