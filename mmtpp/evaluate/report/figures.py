"""Figures of forecasts."""

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from numpy.typing import NDArray

from mmtpp.core.durations import axis_ticks, format_duration, typical_unit
from mmtpp.evaluate.metrics import BUCKETS, Estimate
from mmtpp.evaluate.report.confusion import Confusion, confusion
from mmtpp.evaluate.report.style import BLUE, GREY, cut, plot
from mmtpp.storage.paths import join, write_bytes

TYPES = "types"  # the figure that the report shows as a table
MAX_POINTS = 3000
MAX_NAME = 18  # letters of a type's name
MIN_BIN = 20  # targets; fewer make no point of a curve
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Plot:
    """A figure with words.

    Attributes:
        name: Name of its file, without the suffix.
        title: A few words.
        description: One or two sentences on how to read it.
        figure: The figure.
    """

    name: str
    title: str
    description: str
    figure: Figure


def make_plots(
    targets: pa.Table,
    estimates: Mapping[str, Estimate],
    *,
    seconds_per_unit: float,
    names: list[str],
) -> list[Plot]:
    """Calibration, true against forecast intervals, types, metrics by position in the sequence and
    by the length of the history, as far as the targets allow.

    Args:
        targets: ``targets.TARGET_SCHEMA``.
        estimates: Metrics of the same targets.
        seconds_per_unit: Seconds in one unit of the source's times.
        names: Names of the types by code.
    """
    plots: list[Plot] = []
    if targets["mean"].null_count < len(targets):
        plots += [_calibration(targets), _intervals(targets, seconds_per_unit)]
    if (found := confusion(targets, names)) is not None:
        plots.append(_confusion(found))
    plots += [*_positions(estimates), *_histories(targets)]
    return plots


def write_figures(uri: str, plots: Iterable[Plot]) -> None:
    """Write each plot as a PNG file below ``uri``."""
    for each in plots:
        content = io.BytesIO()
        each.figure.savefig(content, format="png", dpi=110)
        write_bytes(join(uri, f"{each.name}.png"), content.getvalue())


def _calibration(targets: pa.Table) -> Plot:
    figure, axes = plot(4.2, 3.6)
    cdf, levels = targets["cdf"].to_numpy(), np.linspace(0, 1, 51)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
    axes.plot(levels, [(cdf <= level).mean() for level in levels], color=BLUE)
    axes.set(xlabel="forecast probability", ylabel="share of events")
    about = (
        "The share of events below each forecast quantile. Forecasts that can be trusted follow "
        "the dotted diagonal."
    )
    return Plot("calibration", "Calibration of intervals", about, figure)


def _intervals(targets: pa.Table, seconds_per_unit: float) -> Plot:
    true, forecast = (
        targets[name].to_numpy() * seconds_per_unit for name in ("interval", "quantile_50")
    )
    chosen = np.random.default_rng(0).permutation(len(true))[:MAX_POINTS]
    both = chosen[(true[chosen] > 0) & (forecast[chosen] > 0)]
    figure, axes = plot(4.2, 3.6)
    axes.loglog(true[both], forecast[both], ".", markersize=2, alpha=0.5, color=BLUE)
    low, high = axes.get_xlim()
    axes.plot([low, high], [low, high], color=GREY, linewidth=1, linestyle=":")
    for axis, (first, last) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        places = axis_ticks(first, last, most=5)
        axis.set_ticks(places, [format_duration(place) for place in places])
        axis.set_ticks([], minor=True)
    axes.set(xlabel="true interval", ylabel="median forecast")
    about = (
        f"{len(both):,} events whose interval and forecast are both above zero. Good forecasts lie "
        "near the dotted diagonal."
    )
    return Plot("intervals", "Forecast and true intervals", about, figure)


def _confusion(found: Confusion) -> Plot:
    size = len(found.names)
    figure, axes = plot(3.4 + 0.16 * size, 2.8 + 0.16 * size)
    axes.grid(visible=False)
    figure.colorbar(axes.imshow(found.shares, vmin=0, vmax=1, cmap="viridis"), label="share")
    labels = _labels(found.names)
    # names are data: a dollar sign starts no formula
    axes.set_xticks(range(size), labels, rotation=90, parse_math=False)
    axes.set_yticks(range(size), labels, parse_math=False)
    axes.set(xlabel="forecast type", ylabel="true type")
    about = f"The share of each true type that is forecast as each type. {found.note}"
    return Plot(TYPES, "Types", about, figure)


def _labels(names: Iterable[str]) -> list[str]:
    """Truncated names; ``type 1`` is the most frequent one of those the font cannot write."""
    letters = get_font(findfont(FontProperties())).get_charmap()
    return [
        cut(name, MAX_NAME) if all(ord(letter) in letters for letter in name) else f"type {place}"
        for place, name in enumerate(names, start=1)
    ]


def _positions(estimates: Mapping[str, Estimate]) -> list[Plot]:
    """Metrics by position in the sequence."""
    wanted = {
        "time/rmse_s": "RMSE",
        "time/nll_nats_per_event": "NLL of times (nats)",
        "type/accuracy": "type accuracy",
    }
    shown = {name: label for name, label in wanted.items() if name in estimates}
    if not shown:
        return []
    figure, panels = _panels(len(shown))
    for axes, (name, label) in zip(panels, shown.items(), strict=True):
        buckets = [bucket for bucket in BUCKETS if f"{name}/at_{bucket}" in estimates]
        found = [estimates[f"{name}/at_{bucket}"] for bucket in buckets]
        errors = np.abs(
            [[each.value - each.low for each in found], [each.high - each.value for each in found]]
        )
        places = [bucket.replace("_", " ") for bucket in buckets]
        values = np.array([each.value for each in found])
        if name.endswith("_s"):
            unit = typical_unit(values.tolist())
            values, errors = values / unit.seconds, errors / unit.seconds
            label = f"{label} ({unit.name})"
        axes.errorbar(places, values, errors, fmt="o", capsize=3, color=BLUE)
        axes.set(xlabel="position in the sequence", ylabel=label)
    about = "Forecasts by the event's position in its sequence, with 95 % intervals over sequences."
    return [Plot("positions", "Far into a sequence", about, figure)]


def _histories(targets: pa.Table) -> list[Plot]:
    """Metrics by the number of events before the target in its window."""
    curves = {
        label: curve
        for column, label, is_perplexity in (
            ("time_nll", "NLL of times (nats)", False),
            ("type_nll", "perplexity of the type", True),
            ("text_nll", "perplexity of a text token", True),
        )
        if len(curve := against_history(targets, column, is_perplexity=is_perplexity)) > 1
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
    return [Plot("histories", "With more history", about, figure)]


def against_history(
    targets: pa.Table, column: str, *, is_perplexity: bool
) -> list[tuple[float, float, float, float]]:
    """Mean history, value, and ends of its 95 % interval, for groups of targets.

    Groups are histories between two powers of two; groups of less than ``MIN_BIN`` targets are left
    out.

    Args:
        targets: ``targets.TARGET_SCHEMA``.
        column: A column of nats; nats of texts count per token.
        is_perplexity: Return exponentials of the mean nats.
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
    for each in np.unique(bins[usable]).tolist():
        chosen = usable & (bins == each)
        count = int(chosen.sum())
        if count < MIN_BIN:
            continue
        mean = values[chosen].sum() / tokens[chosen].sum()
        # the error of a ratio of sums, by linearisation
        residual = values[chosen] - mean * tokens[chosen]
        error = 1.96 * residual.std(ddof=1) / np.sqrt(count) / tokens[chosen].mean()
        curve = np.array([mean, mean - error, mean + error])
        value, low, high = np.exp(curve) if is_perplexity else curve
        points.append((float(context[chosen].mean()), float(value), float(low), float(high)))
    return points


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    """Side by side."""
    figure, first = plot(3.7 * count, 3.2)
    first.remove()
    panels = [figure.add_subplot(1, count, place + 1) for place in range(count)]
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color=f"{GREY}40")
        axes.set_axisbelow(True)
    return figure, panels
