"""Draw figures of forecasts."""

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from numpy.typing import NDArray

from mmtpp.core.forecasting.residuals import Uniformity, exponential_residuals
from mmtpp.core.times.durations import axis_ticks, format_duration, typical_unit
from mmtpp.evaluate.report.confusion import Confusion, count_confusion
from mmtpp.evaluate.scores.estimates import Estimate
from mmtpp.evaluate.scores.metric_names import (
    TIME_NLL,
    TIME_RMSE,
    TYPE_ACCURACY,
)
from mmtpp.evaluate.scores.metrics import pit_values
from mmtpp.evaluate.scores.position_ranges import POSITION_RANGES, at_position
from mmtpp.pages.page_style import BLUE, GREY, build_figure, shorten
from mmtpp.storage.paths import join, write_bytes

TYPES = "types"  # name of the figure that the report shows as a table
MAX_POINTS = 3000
MAX_NAME = 18  # maximum number of letters of a type's name
MIN_BIN = 20  # minimum number of targets for a point of a curve
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ReportFigure:
    """A figure with its title and description.

    Attributes:
        name: Name of the file, without the suffix.
        title: Title in a few words.
        description: One or two sentences on how to read the figure.
        figure: The figure.
    """

    name: str
    title: str
    description: str
    figure: Figure


def draw_report_figures(
    targets: pa.Table,
    estimates: Mapping[str, Estimate],
    *,
    seconds_per_unit: float,
    names: list[str],
) -> list[ReportFigure]:
    """Draw all figures that the targets allow.

    These are calibration, true against forecast intervals, types, and metrics by position in the
    sequence and by the length of the history.

    Args:
        targets: ``targets.TARGET_SCHEMA``.
        estimates: Metrics of the same targets.
        seconds_per_unit: Seconds in one unit of the source's times.
        names: Names of the types by code.
    """
    figures: list[ReportFigure] = []
    if targets["mean"].null_count < len(targets):
        figures += [_draw_calibration(targets), _draw_intervals(targets, seconds_per_unit)]
    if (confusion := count_confusion(targets, names)) is not None:
        figures.append(_draw_confusion(confusion))
    figures += [*_draw_positions(estimates), *_draw_histories(targets)]
    return figures


def write_figures(uri: str, figures: Iterable[ReportFigure]) -> None:
    """Write each figure as a PNG file below ``uri``."""
    for report_figure in figures:
        content = io.BytesIO()
        report_figure.figure.savefig(content, format="png", dpi=110)
        write_bytes(join(uri, f"{report_figure.name}.png"), content.getvalue())


def _draw_calibration(targets: pa.Table) -> ReportFigure:
    figure, axes = build_figure(4.2, 3.6)
    low, high = (targets[name].to_numpy() for name in ("cdf_low", "cdf_high"))
    pit, levels = pit_values(low, high), np.linspace(0, 1, 51)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
    axes.plot(levels, [(pit <= level).mean() for level in levels], color=BLUE)
    axes.set(xlabel="forecast probability", ylabel="share of events")
    uniformity = Uniformity.test(pit)
    about = (
        "The share of events below each forecast quantile. Forecasts that can be trusted follow "
        f"the dotted diagonal; these are at most {uniformity.distance:.3f} away from it "
        f"(Kolmogorov-Smirnov, p {_p_text(uniformity.p_value)}). The residuals "
        f"-log(1 - probability) have mean {exponential_residuals(pit).mean():.3f}; it is 1 for "
        "right forecasts, and above 1 where events come later than forecast."
    )
    return ReportFigure("calibration", "Calibration of intervals", about, figure)


def _p_text(p_value: float) -> str:
    return "< 0.001" if p_value < 0.001 else f"= {p_value:.3f}"


def _draw_intervals(targets: pa.Table, seconds_per_unit: float) -> ReportFigure:
    true, forecast = (
        targets[name].to_numpy() * seconds_per_unit for name in ("interval", "quantile_50")
    )
    drawn = np.random.default_rng(0).permutation(len(true))[:MAX_POINTS]
    shown = drawn[(true[drawn] > 0) & (forecast[drawn] > 0)]
    figure, axes = build_figure(4.2, 3.6)
    axes.loglog(true[shown], forecast[shown], ".", markersize=2, alpha=0.5, color=BLUE)
    low, high = axes.get_xlim()
    axes.plot([low, high], [low, high], color=GREY, linewidth=1, linestyle=":")
    for axis, (first, last) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        ticks = axis_ticks(first, last, most=5)
        axis.set_ticks(ticks, [format_duration(tick) for tick in ticks])
        axis.set_ticks([], minor=True)
    axes.set(xlabel="true interval", ylabel="median forecast")
    about = (
        f"{len(shown):,} events whose interval and forecast are both above zero. Good forecasts "
        "lie near the dotted diagonal."
    )
    return ReportFigure("intervals", "Forecast and true intervals", about, figure)


def _draw_confusion(confusion: Confusion) -> ReportFigure:
    size = len(confusion.names)
    figure, axes = build_figure(3.4 + 0.16 * size, 2.8 + 0.16 * size)
    axes.grid(visible=False)
    figure.colorbar(axes.imshow(confusion.shares, vmin=0, vmax=1, cmap="viridis"), label="share")
    labels = _labels(confusion.names)
    # names are data: a dollar sign must not start a formula
    axes.set_xticks(range(size), labels, rotation=90, parse_math=False)
    axes.set_yticks(range(size), labels, parse_math=False)
    axes.set(xlabel="forecast type", ylabel="true type")
    about = f"The share of each true type that is forecast as each type. {confusion.note}"
    return ReportFigure(TYPES, "Types", about, figure)


def _labels(names: Iterable[str]) -> list[str]:
    """Truncate names; a name that the font cannot write becomes ``type RANK``, by frequency."""
    letters = get_font(findfont(FontProperties())).get_charmap()
    return [
        shorten(name, MAX_NAME)
        if all(ord(letter) in letters for letter in name)
        else f"type {rank}"
        for rank, name in enumerate(names, start=1)
    ]


def _draw_positions(estimates: Mapping[str, Estimate]) -> list[ReportFigure]:
    """Metrics by position in the sequence."""
    wanted = {
        TIME_RMSE: "RMSE",
        TIME_NLL: "NLL of times (nats)",
        TYPE_ACCURACY: "type accuracy",
    }
    shown = {name: label for name, label in wanted.items() if name in estimates}
    if not shown:
        return []
    figure, panels = _panels(len(shown))
    for axes, (name, label) in zip(panels, shown.items(), strict=True):
        ranges = [key for key in POSITION_RANGES if at_position(name, key) in estimates]
        points = [estimates[at_position(name, key)] for key in ranges]
        below = [point.value - point.low for point in points]
        above = [point.high - point.value for point in points]
        errors = np.abs([below, above])
        labels = [key.replace("_", " and ") for key in ranges]
        values = np.array([point.value for point in points])
        if name.endswith("_s"):
            unit = typical_unit(values.tolist())
            values, errors = values / unit.seconds, errors / unit.seconds
            label = f"{label} ({unit.name})"
        axes.errorbar(labels, values, errors, fmt="o", capsize=3, color=BLUE)
        axes.set(xlabel="position in the sequence", ylabel=label)
    about = "Forecasts by the event's position in its sequence, with 95 % intervals over sequences."
    return [ReportFigure("positions", "Far into a sequence", about, figure)]


def _draw_histories(targets: pa.Table) -> list[ReportFigure]:
    """Metrics by the number of events before the target in its window."""
    curves = {
        label: curve
        for column, label, is_perplexity in (
            ("time_nll", "NLL of times (nats)", False),
            ("type_nll", "perplexity of the type", True),
            ("text_nll", "perplexity of a text token", True),
        )
        if len(curve := history_curve(targets, column, is_perplexity=is_perplexity)) > 1
    }
    if not curves:
        return []
    figure, panels = _panels(len(curves))
    for axes, (label, curve) in zip(panels, curves.items(), strict=True):
        x, value, low, high = np.array(curve).T
        axes.fill_between(x, low, high, color=BLUE, alpha=0.25, linewidth=0)
        axes.plot(x, value, "o-", color=BLUE, markersize=4)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
        axes.set(xlabel="events read before", ylabel=label)
    about = (
        "Forecasts by the number of events that the model read before the event, with 95 % "
        "intervals of the mean. Lower is better."
    )
    return [ReportFigure("histories", "With more history", about, figure)]


def history_curve(
    targets: pa.Table, column: str, *, is_perplexity: bool
) -> list[tuple[float, float, float, float]]:
    """Average nats over groups of targets with similar lengths of history.

    A group contains the histories between two powers of two. Groups of fewer than ``MIN_BIN``
    targets are left out.

    Args:
        targets: ``targets.TARGET_SCHEMA``.
        column: A column of nats; nats of texts count per token.
        is_perplexity: Whether to return exponentials of the mean nats.

    Returns:
        Mean length of the history, mean, and ends of its 95 % interval, for each group.
    """
    if targets[column].null_count == len(targets):
        return []
    values = targets[column].to_numpy().astype(np.float64)
    context = targets["context"].to_numpy()
    tokens = np.ones(len(values))
    if column == "text_nll":
        tokens = targets["text_tokens"].to_numpy().astype(np.float64)
    usable = np.isfinite(values) & (context > 0) & (tokens > 0)
    bins = np.floor(np.log2(np.maximum(context, 1))).astype(np.int64)
    points: list[tuple[float, float, float, float]] = []
    for group in np.unique(bins[usable]).tolist():
        is_inside = usable & (bins == group)
        count = int(is_inside.sum())
        if count < MIN_BIN:
            continue
        mean = values[is_inside].sum() / tokens[is_inside].sum()
        # the error of a ratio of sums, by linearisation
        residual = values[is_inside] - mean * tokens[is_inside]
        error = 1.96 * residual.std(ddof=1) / np.sqrt(count) / tokens[is_inside].mean()
        curve = np.array([mean, mean - error, mean + error])
        value, low, high = np.exp(curve) if is_perplexity else curve
        points.append((float(context[is_inside].mean()), float(value), float(low), float(high)))
    return points


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    """Axes side by side in one figure."""
    figure, first = build_figure(3.7 * count, 3.2)
    first.remove()
    panels = [figure.add_subplot(1, count, index + 1) for index in range(count)]
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color=f"{GREY}40")
        axes.set_axisbelow(True)
    return figure, panels
