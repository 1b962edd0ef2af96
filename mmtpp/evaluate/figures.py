"""Figures of forecasts: what people look at before they trust a number."""

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mmtpp.evaluate.metrics import BUCKETS, Estimate
from mmtpp.page.style import BLUE, GREY, plot
from mmtpp.storage.paths import join, write_bytes

MAX_POINTS = 3000
MIN_BIN = 20  # targets; fewer make no point of a curve
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Plot:
    """A figure with words.

    Attributes:
        name: of its file.
        title: a few words.
        description: what to see in it.
        figure: to be saved.
    """

    name: str
    title: str
    description: str
    figure: Figure


def make_plots(
    targets: pa.Table, estimates: Mapping[str, Estimate], *, seconds_per_unit: float
) -> list[Plot]:
    """Calibration, true against forecast intervals, types, metrics by position in the sequence and
    by the length of the history; those the targets allow.

    Args:
        targets: ``targets.TARGET_SCHEMA``.
        estimates: of the same targets.
        seconds_per_unit: of the source's time unit.
    """
    has_time = targets["mean"].null_count < len(targets)
    has_type = targets["predicted_type"].null_count < len(targets)
    plots: list[Plot] = []
    if has_time:
        plots += [_calibration(targets), _intervals(targets, seconds_per_unit)]
    if has_type:
        plots.append(_confusion(targets))
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
    about = "share of events below each forecast quantile: the diagonal when it can be trusted"
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
    axes.set(xlabel="interval (s)", ylabel="median forecast (s)")
    about = f"of {len(both):,} targets with both above zero"
    return Plot("intervals", "Forecast and true intervals", about, figure)


def _confusion(targets: pa.Table) -> Plot:
    true, predicted = (targets[name].to_numpy() for name in ("type", "predicted_type"))
    codes, places = np.unique(np.concatenate([true, predicted]), return_inverse=True)
    counts = np.zeros((len(codes), len(codes)))
    np.add.at(counts, (places[: len(true)], places[len(true) :]), 1)
    counts /= np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axes = plot(4.4, 3.6)
    axes.grid(visible=False)
    figure.colorbar(axes.imshow(counts, vmin=0, vmax=1, cmap="viridis"), label="share")
    ticks = range(0, len(codes), max(1, len(codes) // 12))
    axes.set_xticks(ticks, [str(codes[tick]) for tick in ticks])
    axes.set_yticks(ticks, [str(codes[tick]) for tick in ticks])
    axes.set(xlabel="forecast type", ylabel="true type")
    about = "share of each true type that is forecast as each type, by their codes"
    return Plot("types", "Types", about, figure)


def _positions(estimates: Mapping[str, Estimate]) -> list[Plot]:
    """How good forecasts are far into a sequence."""
    wanted = {
        "time/rmse_s": "RMSE (s)",
        "time/nll_nats_per_event": "nats of the time",
        "type/accuracy": "type accuracy",
    }
    shown = {name: label for name, label in wanted.items() if name in estimates}
    if not shown:
        return []
    figure, panels = _panels(len(shown))
    for axes, (name, label) in zip(panels, shown.items(), strict=True):
        buckets = [bucket for bucket in BUCKETS if f"{name}/at_{bucket}" in estimates]
        found = [estimates[f"{name}/at_{bucket}"] for bucket in buckets]
        errors = np.abs([[each.value - each.low for each in found],
                         [each.high - each.value for each in found]])  # fmt: skip
        ticks = [bucket.replace("_", " ") for bucket in buckets]
        values = [each.value for each in found]
        axes.errorbar(ticks, values, errors, fmt="o", capsize=3, color=BLUE)
        axes.set(xlabel="position in the sequence", ylabel=label)
    about = "by the event's position in its sequence, with 95 % intervals over sequences"
    return [Plot("positions", "Far into a sequence", about, figure)]


def _histories(targets: pa.Table) -> list[Plot]:
    """How good forecasts are with more events before them in the window."""
    curves = {
        label: curve
        for column, label, is_perplexity in (
            ("time_nll", "nats of the time", False),
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
        axes.set(xlabel="events before it in the window", ylabel=label)
    about = "against the length of the history that was seen, with 95 % intervals of the mean"
    return [Plot("histories", "With more history", about, figure)]


def against_history(
    targets: pa.Table, column: str, *, is_perplexity: bool
) -> list[tuple[float, float, float, float]]:
    """Mean history, value, and ends of its 95 % interval, of targets with about as much history.

    Histories are grouped by powers of two; groups of less than ``MIN_BIN`` targets are left out.

    Args:
        targets: ``targets.TARGET_SCHEMA``.
        column: of nats; those of texts are by token.
        is_perplexity: exponentials of the mean nats.
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
