"""Figures of forecasts: what people look at before they trust a number."""

import io

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure

from mmtpp.evaluate.metrics import BUCKETS, Estimate
from mmtpp.storage.paths import join, write_bytes

MAX_POINTS = 3000


def write_figures(
    uri: str, targets: pa.Table, estimates: dict[str, Estimate], *, seconds_per_unit: float
) -> None:
    """Write PNG files below ``uri``: calibration, true against forecast intervals, metrics by
    position in the sequence, and the confusion of types; those the targets allow.

    Args:
        uri: folder.
        targets: ``targets.TARGET_SCHEMA``.
        estimates: of the same targets.
        seconds_per_unit: of the source's time unit.
    """
    has_time = targets["mean"].null_count < len(targets)
    has_type = targets["predicted_type"].null_count < len(targets)
    figures: dict[str, Figure] = {}
    if has_time:
        figures["calibration"] = _calibration(targets["cdf"].to_numpy())
        figures["intervals"] = _intervals(
            targets["interval"].to_numpy() * seconds_per_unit,
            targets["quantile_50"].to_numpy() * seconds_per_unit,
        )
    if has_type:
        figures["types"] = _confusion(
            targets["type"].to_numpy(), targets["predicted_type"].to_numpy()
        )
    figures["positions"] = _positions(estimates)
    for name, figure in figures.items():
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=110, bbox_inches="tight")
        write_bytes(join(uri, f"{name}.png"), content.getvalue())


def _calibration(cdf: np.ndarray) -> Figure:
    """Share of events below each forecast quantile: a diagonal when forecasts can be trusted."""
    figure = Figure(figsize=(4.2, 4))
    axes = figure.subplots()
    levels = np.linspace(0, 1, 51)
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    axes.plot(levels, [(cdf <= level).mean() for level in levels])
    axes.set(
        xlabel="forecast probability", ylabel="share of events", title="Calibration of intervals"
    )
    return figure


def _intervals(true: np.ndarray, forecast: np.ndarray) -> Figure:
    chosen = np.random.default_rng(0).permutation(len(true))[:MAX_POINTS]
    both = (true[chosen] > 0) & (forecast[chosen] > 0)
    figure = Figure(figsize=(4.6, 4))
    axes = figure.subplots()
    axes.loglog(true[chosen][both], forecast[chosen][both], ".", markersize=2, alpha=0.4)
    low, high = axes.get_xlim()
    axes.plot([low, high], [low, high], color="0.5", linewidth=1)
    axes.set(
        xlabel="interval (s)", ylabel="median forecast (s)", title="Forecast and true intervals"
    )
    return figure


def _confusion(true: np.ndarray, predicted: np.ndarray) -> Figure:
    codes, places = np.unique(np.concatenate([true, predicted]), return_inverse=True)
    counts = np.zeros((len(codes), len(codes)))
    np.add.at(counts, (places[: len(true)], places[len(true) :]), 1)
    counts /= np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(4.8, 4))
    axes = figure.subplots()
    image = axes.imshow(counts, vmin=0, vmax=1, cmap="viridis")
    figure.colorbar(image, label="share of the true type")
    ticks = range(0, len(codes), max(1, len(codes) // 12))
    axes.set_xticks(ticks, [str(codes[tick]) for tick in ticks])
    axes.set_yticks(ticks, [str(codes[tick]) for tick in ticks])
    axes.set(xlabel="predicted type", ylabel="true type", title="Types")
    return figure


def _positions(estimates: dict[str, Estimate]) -> Figure:
    """How good forecasts are far into a sequence."""
    shown = [
        name
        for name in ("time/mae_s", "time/nll_nats_per_event", "type/accuracy")
        if name in estimates
    ]
    figure = Figure(figsize=(3.6 * max(1, len(shown)), 3))
    for place, name in enumerate(shown):
        axes = figure.add_subplot(1, len(shown), place + 1)
        buckets = [bucket for bucket in BUCKETS if f"{name}@{bucket}" in estimates]
        found = [estimates[f"{name}@{bucket}"] for bucket in buckets]
        errors = [
            [each.value - each.low for each in found],
            [each.high - each.value for each in found],
        ]
        axes.errorbar(buckets, [each.value for each in found], np.abs(errors), fmt="o", capsize=3)
        axes.set(xlabel="position in the sequence", title=name)
    figure.tight_layout()
    return figure
