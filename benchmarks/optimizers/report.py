"""Tables and figures of the optimiser benchmark, from its results."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.measure import machine
from benchmarks.optimizers import margins, training

Record = dict[str, Any]
LEARNING_RATE = "training.learning_rate"
NEAR = 0.1  # nats per event


def write_report(results: Path, folder: Path) -> None:
    """Write ``optimizers.md`` and its figures.

    Args:
        results: File with the finished trials, one JSON object per line.
        folder: Output folder.
    """
    lines = [json.loads(line) for line in results.read_text().splitlines()]

    def of_kind(kind: str) -> list[Record]:
        return [line for line in lines if line["trial"]["kind"] == kind]

    shares = [record for line in of_kind("margins") for record in line["found"]]
    runs = [
        {**line["trial"], **line["trial"]["changes"], **line["found"]}
        for line in of_kind("training")
    ]
    parts = [
        "# Optimisers and few bits\n",
        f"Written by `make bench-optimizers`; {machine('torch', 'deepspeed', used='both used')}. "
        "± is the standard deviation over seeds. [README.md](README.md) interprets the results.\n",
    ]
    if shares:
        parts += _margins(shares)
        _save(_margins_figure(shares), folder / "margins.png")
    examples = [record for line in of_kind("counterexample") for record in line["found"]]
    if examples:
        parts += _counterexample(examples)
    sets = list(dict.fromkeys(run["set"] for run in runs))
    for name in sets:
        of_set = [run for run in runs if run["set"] == name]
        parts += [f"## {name}\n", *_rates(of_set), *_bits(of_set)]
    if runs:
        _save(_rates_figure(runs, sets), folder / "rates.png")
        _save(_bits_figure(runs, sets), folder / "bits.png")
        parts.append("![losses by learning rate](rates.png)\n")
        parts.append("![loss by mantissa bits](bits.png)\n")
    (folder / "optimizers.md").write_text("\n".join(parts))


def _save(figure: Figure, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=110, bbox_inches="tight")


def _line(axes: Axes, points: dict[Any, list[float]], label: str, line: str = "-") -> None:
    """Plot means over seeds with standard deviations; points without values are left out."""
    points = {where: values for where, values in points.items() if values}
    if points:
        means = [np.mean(values) for values in points.values()]
        spreads = [
            float(np.std(values, ddof=1)) if len(values) > 1 else 0.0 for values in points.values()
        ]
        axes.errorbar(
            list(points), means, spreads, fmt=f"o{line}", markersize=3, capsize=2, label=label
        )


def _legend(figure: Figure) -> None:
    """Draw the legend to the right of the last axes, where it hides no line."""
    last = figure.axes[-1]
    if last.get_legend_handles_labels()[0]:
        last.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.02, 1.0))


def _cell(values: Sequence[float], digits: int = 3) -> str:
    if not values:
        return ""
    finite = [value for value in values if np.isfinite(value)]
    note = f" ({len(values) - len(finite)} not finite)" if len(finite) < len(values) else ""
    if not finite:
        return "not finite"
    spread = f" ± {np.std(finite, ddof=1):.{digits}f}" if len(finite) > 1 else ""
    return f"{np.mean(finite):.{digits}f}{spread}{note}"


def _table(corner: str, columns: Sequence[str], rows: dict[str, list[str]]) -> str:
    lines = [f"| {corner} | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    lines += [f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()]
    return "\n".join([*lines, ""])


def _margins(records: list[Record]) -> list[str]:
    seeds = len({record["seed"] for record in records})
    parts = [
        "## Largest margins\n",
        f"The smallest margin after {margins.STEPS:,} steps as a share of the largest possible one "
        f"for the norm; {margins.NUM_SAMPLES} samples, {margins.NUM_CLASSES} classes, "
        f"{margins.NUM_FEATURES} features, {seeds} problems. Columns: samples per step. *Rate*: "
        "the exponent a in 1 - share ~ steps^-a, fitted to the last three steps shown; the theory "
        "predicts 1/2 for a full batch.\n",
    ]
    batches = [str(size) for size in margins.BATCHES]
    for norm in margins.NORMS:
        shares = {
            method: [_shares(records, norm, method, batch) for batch in margins.BATCHES]
            for method in margins.METHODS
        }
        last = {
            method: [_cell([run[-1] for run in runs]) for runs in cells]
            for method, cells in shares.items()
        }
        rates = {
            method: [_cell([closing_rate(run) for run in runs], 2) for runs in cells]
            for method, cells in shares.items()
        }
        parts += [_table(norm, batches, last), _table(f"{norm}, rate", batches, rates)]
    return [*parts, "![share of the largest margin by steps](margins.png)\n"]


def _shares(records: list[Record], norm: str, method: str, batch: int) -> list[list[float]]:
    """Shares of the largest margin for each seed, at the steps ``margins.SHOWN``."""
    shares: dict[int, list[float]] = {}
    for record in sorted(records, key=lambda record: record["step"]):
        if (record["norm"], record["method"], record["batch"]) == (norm, method, batch):
            shares.setdefault(record["seed"], []).append(record["share"])
    return list(shares.values())


def closing_rate(shares: Sequence[float]) -> float:
    """Exponent a of a gap that closes like steps^-a.

    Args:
        shares: Shares of the largest margin at the steps ``margins.SHOWN``, below 1. The fit uses
            the last three.
    """
    gaps = np.log(1 - np.array(shares[-3:]))
    return -float(np.polyfit(np.log(margins.SHOWN[-3:]), gaps, 1)[0])


def _counterexample(records: list[Record]) -> list[str]:
    rows = {
        f"{record['norm']}, {record['method']}, {record['batch']} per step": [
            f"{record['cosine']:.4f}",
            f"{record['share']:.3f}",
        ]
        for record in records
    }
    columns = ["cosine with the direction computed by hand", "share of the largest margin"]
    return [
        "## Single samples without momentum do not reach the largest margin\n",
        "Two classes of four samples: three equal samples outvote the fourth.\n",
        _table("", columns, rows),
    ]


def _with_changes(runs: list[Record], changes: training.Changes) -> list[Record]:
    """Runs with exactly these changes, of any seed."""
    return [run for run in runs if run["changes"] == changes]


def _rate_runs(runs: list[Record], name: str) -> list[Record]:
    return [
        run
        for run in runs
        if run["optimizer.name"] == name
        and not any(
            key.startswith("optimizer_precision") or "beta2" in key for key in run["changes"]
        )
    ]


def _rates(runs: list[Record]) -> list[str]:
    parts = [
        "Validation loss in nats per event by learning rate, "
        f"{training.STEPS} steps; *robust*: number of rates whose mean is within {NEAR} nats of "
        "the best mean.\n"
    ]
    for name, rates in training.RATES.items():
        rate_runs = _rate_runs(runs, name)
        cells = [[run["nll"] for run in rate_runs if run[LEARNING_RATE] == rate] for rate in rates]
        means = np.array([np.mean(losses) if losses else np.nan for losses in cells])
        near = int(np.sum(means <= np.nanmin(means) + NEAR)) if np.isfinite(means).any() else 0
        columns = [*(f"{rate:g}" for rate in rates), "robust"]
        row = [*(_cell(losses) for losses in cells), f"{near} of {len(rates)}"]
        parts.append(_table(name, columns, {"": row}))
    return parts


def _series(
    runs: list[Record], name: str, part: str, mode: str, slow: bool
) -> Callable[[int], list[float]]:
    """A function from bits to the losses minus those of the exact runs with the same seeds."""
    shared: training.Changes = {"optimizer.name": name, LEARNING_RATE: training.RATE[name]}
    if slow:
        shared["optimizer.beta2"] = training.SLOW
    exact = {run["seed"]: run["nll"] for run in _with_changes(runs, shared)}

    def added_loss(bits: int) -> list[float]:
        rounded: training.Changes = {f"optimizer_precision.{part}.mantissa_bits": bits}
        if mode == "stochastic":
            rounded[f"optimizer_precision.{part}.mode"] = mode
        return [
            run["nll"] - exact[run["seed"]]
            for run in _with_changes(runs, shared | rounded)
            if run["seed"] in exact
        ]

    return added_loss


def _all_series(runs: list[Record]) -> dict[str, Callable[[int], list[float]]]:
    series = {
        f"{name}, {part}, {mode}": _series(runs, name, part, mode, slow=False)
        for name in ("adamw", "muon")
        for part in training.PARTS
        for mode in ("nearest", "stochastic")
        if mode == "nearest" or part == "weights"
    }
    series[f"adamw, states, beta2 = {training.SLOW}"] = _series(
        runs, "adamw", "states", "nearest", slow=True
    )
    return series


def _bits(runs: list[Record]) -> list[str]:
    rows = {
        name: [_cell(added_loss(bits)) for bits in training.BITS]
        for name, added_loss in _all_series(runs).items()
    }
    return [
        "Loss added by rounding to a number of mantissa bits, relative to the exact run of the "
        "same seed; learning rates "
        + " and ".join(f"{rate:g} for {name}" for name, rate in training.RATE.items())
        + ".\n",
        _table("", [str(bits) for bits in training.BITS], rows),
    ]


def _margins_figure(records: list[Record]) -> Figure:
    figure = Figure(figsize=(11, 3.2))
    shown = [("no momentum", batch) for batch in margins.BATCHES]
    shown += [(method, 1) for method in list(margins.METHODS)[1:]]
    for place, norm in enumerate(margins.NORMS, 1):
        axes = figure.add_subplot(1, 3, place)
        for method, batch in shown:
            by_step = zip(*_shares(records, norm, method, batch), strict=True)
            points = dict(zip(margins.SHOWN, map(list, by_step), strict=False))
            _line(axes, points, f"{method}, {batch} per step")
        axes.set(title=norm, xlabel="steps", xscale="log", ylim=(-0.6, 1.05))
    figure.axes[0].set_ylabel("share of the largest margin")
    _legend(figure)
    return figure


def _rates_figure(runs: list[Record], sets: list[str]) -> Figure:
    figure = Figure(figsize=(4.2 * len(sets), 3.2))
    for place, set_name in enumerate(sets, 1):
        axes = figure.add_subplot(1, len(sets), place)
        for name, rates in training.RATES.items():
            rate_runs = [run for run in _rate_runs(runs, name) if run["set"] == set_name]
            points = {
                rate: [run["nll"] for run in rate_runs if run[LEARNING_RATE] == rate]
                for rate in rates
            }
            _line(axes, points, name)
        axes.set(title=set_name, xlabel="learning rate", xscale="log")
    figure.axes[0].set_ylabel("validation loss (nats/event)")
    _legend(figure)
    return figure


def _bits_figure(runs: list[Record], sets: list[str]) -> Figure:
    figure = Figure(figsize=(4.6 * len(sets), 3.4))
    for place, set_name in enumerate(sets, 1):
        axes = figure.add_subplot(1, len(sets), place)
        for name, added_loss in _all_series(
            [run for run in runs if run["set"] == set_name]
        ).items():
            points = {bits: added_loss(bits) for bits in training.BITS}
            _line(axes, points, name, line="--" if "muon" in name else "-")
        axes.set(title=set_name, xlabel="bits of the mantissa")
        axes.set_yscale("symlog", linthresh=0.1)
    figure.axes[0].set_ylabel("added loss (nats/event)")
    _legend(figure)
    return figure
