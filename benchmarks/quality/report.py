"""The tables and figures of the quality benchmark, from its results."""

import json
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.quality.difference_table import difference_table
from benchmarks.quality.easytpp import DRAWS, SCORES_TICKS, TRAIN_POINTS
from benchmarks.quality.expert_table import expert_table, is_one_draw
from benchmarks.quality.neural import FINE_POINTS
from benchmarks.quality.sets import data_sets
from benchmarks.quality.variants import PLAIN, PUBLISHED
from mmtpp.evaluate.scores.position_ranges import AT, POSITION_RANGES
from mmtpp.evaluate.scores.renamed_metrics import RENAMED_RANGES

NLL, RMSE, MAE, ACCURACY = (
    "joint/nll_nats_per_event",
    "time/rmse_s",
    "time/mae_s",
    "type/accuracy",
)
COLUMNS = {
    NLL: "NLL (nats/event)",
    RMSE: "RMSE (s)",
    MAE: "MAE (s)",
    "time/crps_s": "CRPS (s)",
    ACCURACY: "accuracy",
    "type/macro_f1": "macro F1",
    "time/coverage_90": "90 % covered",
    "time/pit_coverage_90": "90 % covered, within ticks",
    "text/nll_nats_per_event": "text NLL",
}
NEURAL_NOTE = (
    f"Neural models predict an interval by the mean of {DRAWS} samples, and the type from the same "
    "samples (IntensityFree: from the history)."
)
ONE_DRAW_NOTE = (
    " †: older trials, tested with one random sample per event; these errors are larger than those "
    "of the models' means and cannot be compared with the other rows."
)
SHORT = f"{PLAIN}, short"
BY_POSITION = (SHORT, PUBLISHED, "temporal, runs", "random drop, runs")
Records = list[dict[str, Any]]


def write_report(results: Path, folder: Path, *, budget: object, sums: Path) -> None:
    """Write ``quality.md`` and its figures, and add to ``differences.jsonl`` beside the results.

    Args:
        results: File with the finished trials, one JSON object per line.
        folder: Output folder.
        budget: Budget of a trial; the report prints it.
        sums: Folder of the trials' sums by sequence, see ``differences.py``.
    """
    records = read_records(results)
    sets = list(dict.fromkeys(record["set"] for record in records))
    parts = [_head(records, budget)]
    parts += [_table(name, _of(records, name)) for name in sets]
    kept = results.with_name("differences.jsonl")
    differences = difference_table(records, sums, kept)
    parts += [expert_table(records, kept), differences]
    with_plain = [
        name for name in sets if any(record["name"] == PLAIN for record in _of(records, name))
    ]
    parts.append(_decoding(records, with_plain))
    parts.append(_integrals(records, sets))
    parts.append(_floors(records, with_plain))
    (folder / "quality.md").write_text("\n".join(parts))
    varied = [
        name for name in sets if any(record["name"] == PUBLISHED for record in _of(records, name))
    ]
    _positions(records, varied).savefig(folder / "positions.png", dpi=110, bbox_inches="tight")
    for name in varied:
        curve = _by_delta(_of(records, name))
        if len(curve) > 2:
            figure = _deltas(name, curve)
            figure.savefig(folder / f"{name}_delta.png", dpi=110, bbox_inches="tight")


def read_records(path: Path) -> Records:
    """Read the finished trials; if a trial was repeated, its last line counts.

    Where ``SCORES_TICKS`` has a trial by ticks on a set, its trials by densities do not count.
    """
    text = path.read_text().replace("@", AT)  # older records have "@", and old names of ranges
    for old, new in RENAMED_RANGES.items():
        text = text.replace(f'{AT}{old}"', f'{AT}{new}"')
    lines = [json.loads(line) for line in text.splitlines()]
    records = list(
        {
            tuple(line[key] for key in ("set", "kind", "name", "seed")): line for line in lines
        }.values()
    )
    scored = {line["set"] for line in records if line["metrics"].get("scores_ticks")}
    return [
        line
        for line in records
        if line["name"] != SCORES_TICKS
        or line["set"] not in scored
        or line["metrics"].get("scores_ticks")
    ]


def _head(records: Records, budget: object) -> str:
    seconds = [record["seconds"] for record in records if record.get("kind") == "ours"]
    packages = ["torch", "transformers"]
    if any(record["kind"] == "neural" for record in records):
        packages.append("easy_tpp")
    experts = [record["seconds"] for record in records if record.get("kind") == "expert"]
    of_expert = (
        f", that of an expert {np.median(experts):.0f} s ({min(experts):.0f} to {max(experts):.0f})"
        if experts
        else ""
    )
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    return (
        "# Quality\n\n"
        "Written by `make quality`. Numbers are of the test split: means over seeds, and `±` the "
        "standard deviation over seeds. All models have the same splits, by a stable hash of the "
        "sequence. [README.md](README.md) interprets the results.\n\n"
        f"Budget of a trial: {budget}; training took {np.median(seconds):.0f} s "
        f"({min(seconds):.0f} to {max(seconds):.0f}){of_expert} on {platform.machine()}, one core. "
        f"{versions}.\n"
    )


def _of(records: Records, name: str) -> Records:
    return [record for record in records if record["set"] == name]


def _values(records: Records, metric: str) -> list[float]:
    return [record["metrics"][metric] for record in records if metric in record["metrics"]]


def _cell(records: Records, metric: str) -> str:
    values = _values(records, metric)
    if not values:
        return ""
    mean, digits = float(np.mean(values)), 3 if abs(float(np.mean(values))) < 100 else 0
    spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{mean:.{digits}f}{spread}"


def _table(name: str, records: Records) -> str:
    shown = {key: title for key, title in COLUMNS.items() if _values(records, key)}
    lines = [
        f"## {name}\n",
        f"{records[0]['targets']:,} targets.\n",
        f"| | seeds | context (events) | epochs | {' | '.join(shown.values())} |",
        f"|---|---|---|---|{'---|' * len(shown)}",
    ]
    if any(record["kind"] == "neural" for record in records):
        marked = any(_one_draw([record], RMSE) for record in records)
        lines.insert(2, f"{NEURAL_NOTE}{ONE_DRAW_NOTE if marked else ''}\n")
    order = {
        "mixture": 0,
        "expert": 1,
        "soft": 2,
        "ours": 3,
        "neural": 4,
        "control": 5,
        "classical": 6,
    }
    names = dict.fromkeys(
        record["name"] for record in sorted(records, key=lambda record: order[record["kind"]])
    )
    for row in names:
        of_row = [record for record in records if record["name"] == row]
        cells = [_cell(of_row, metric) + _one_draw(of_row, metric) for metric in shown]
        failed = [record["error"] for record in of_row if "error" in record]
        context = [record["context"] for record in of_row if "context" in record]
        seen = f"{np.mean(context):.0f}" if context else ""
        note = f" (failed: {failed[0]})" if failed else ""
        epochs = _values(of_row, "epochs")
        passes = f"{np.mean(epochs):.0f}" if epochs else ""
        lines.append(f"| {row}{note} | {len(of_row)} | {seen} | {passes} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _one_draw(records: Records, metric: str) -> str:
    """Footnote mark for predictions of a neural model with fewer than ``DRAWS`` samples."""
    return " †" if is_one_draw(records, metric) else ""


def _decoding(records: Records, sets: list[str]) -> str:
    """Greedy decoding, used by the published code, compared with the mean and the median."""
    lines = [
        "## Decoding\n",
        "The same forecasts of the plain model, decoded in three ways.\n",
        "The last column counts all trials of this project on the set.\n",
        "| set | RMSE of mean | of median | of greedy | MAE of median | of mean | of greedy "
        "| median better than greedy in MAE |",
        "|---|---|---|---|---|---|---|---|",
    ]
    names = (
        RMSE,
        "time/rmse_of_median_s",
        "time/rmse_of_greedy_s",
        MAE,
        "time/mae_of_mean_s",
        "time/mae_of_greedy_s",
    )
    for name in sets:
        plain = [record for record in records if record["set"] == name and record["name"] == PLAIN]
        pairs = [
            (record["metrics"][MAE], record["metrics"]["time/mae_of_greedy_s"])
            for record in _of(records, name)
            if record["kind"] == "ours"
        ]
        better = f"{sum(median < greedy for median, greedy in pairs)} of {len(pairs)} trials"
        lines.append(
            f"| {name} | {' | '.join(_cell(plain, metric) for metric in names)} | {better} |"
        )
    return "\n".join([*lines, ""])


def _integrals(records: Records, sets: list[str]) -> str:
    """EasyTPP's likelihoods with the points of its training and with more points."""
    lines = [
        "## EasyTPP's likelihood by number of points of its integral\n",
        "NLL of the test split in nats per event; IntensityFree has no integral.\n",
        f"| set | model | {TRAIN_POINTS} points, as trained | {FINE_POINTS} points |",
        "|---|---|---|---|",
    ]
    for name in sets:
        neural = [
            record for record in records if record["set"] == name and record["kind"] == "neural"
        ]
        for model in dict.fromkeys(record["name"] for record in neural):
            of_model = [record for record in neural if record["name"] == model]
            cells = f"{_cell(of_model, 'joint/nll_by_train_points')} | {_cell(of_model, NLL)}"
            lines.append(f"| {name} | {model} | {cells} |")
    return "\n".join([*lines, ""])


def _floors(records: Records, sets: list[str]) -> str:
    """Properties of the plain model, with their results."""
    lines = ["## Properties of the plain model\n", "| set | | |", "|---|---|---|"]
    for name in sets:
        of_set = [record for record in records if record["set"] == name]
        plain = [record for record in of_set if record["name"] == PLAIN]

        def mean(metric: str, chosen: Records = plain) -> float:
            return float(np.mean(_values(chosen, metric) or [np.nan]))

        trivial = [
            record
            for record in of_set
            if record["kind"] == "classical" and record["name"] != "hawkes"
        ]
        neural = [record for record in of_set if record["kind"] == "neural"]
        best, right = _best(trivial, NLL, min), _best(trivial, ACCURACY, max)
        best_neural, right_neural = _best(neural, NLL, min), _best(neural, ACCURACY, max)
        checks = {
            "mean beats greedy in RMSE": mean(RMSE) < mean("time/rmse_of_greedy_s"),
            "median beats greedy in MAE": mean(MAE) < mean("time/mae_of_greedy_s"),
            "90 % intervals cover 85 to 95 %": 0.85 <= mean("time/coverage_90") <= 0.95,
            f"NLL {mean(NLL):.3f} below every trivial baseline's ({best:.3f})": mean(NLL) < best,
            f"accuracy {mean(ACCURACY):.3f} above every trivial baseline's ({right:.3f})": (
                mean(ACCURACY) > right
            ),
            f"NLL below the best neural one's ({best_neural:.3f})": mean(NLL) < best_neural,
            f"accuracy above the best neural one's ({right_neural:.3f})": (
                mean(ACCURACY) > right_neural
            ),
        }
        lines += [
            f"| {name} | {check} | {'yes' if holds else '**no**'} |"
            for check, holds in checks.items()
        ]
    return "\n".join([*lines, ""])


def _best(records: Records, metric: str, choose: Callable[[list[float]], float]) -> float:
    """The best mean over seeds of all models with the metric; NaN if no model has it."""
    means = [
        float(np.mean(values))
        for name in sorted({record["name"] for record in records})
        if (values := _values([record for record in records if record["name"] == name], metric))
    ]
    return choose(means) if means else float("nan")


def _positions(records: Records, sets: list[str]) -> Figure:
    """NLL by position in the sequence, with and without compression (figure 2 of the paper)."""
    figure = Figure(figsize=(3.4 * len(sets), 3))
    for place, name in enumerate(sets):
        axes = figure.add_subplot(1, len(sets), place + 1)
        for row in BY_POSITION:
            of_row = [
                record for record in records if record["set"] == name and record["name"] == row
            ]
            means = {
                position_range: float(np.mean(values))
                for position_range in POSITION_RANGES
                if (values := _values(of_row, f"{NLL}{AT}{position_range}"))
            }
            axes.plot(list(means), list(means.values()), "o-", label=row, markersize=3)
        axes.set(title=name, xlabel="position in the sequence")
    figure.axes[0].set_ylabel("NLL (nats/event)")
    figure.axes[-1].legend(fontsize=7)
    figure.tight_layout()
    return figure


def _by_delta(records: Records) -> dict[float, Records]:
    """Trials of the published compression by Delta; Delta 0 is without compression."""
    data = data_sets(Path()).get(records[0]["set"])
    if data is None:
        return {}  # the set is not on this machine
    by_delta: dict[float, Records] = {}
    for record in records:
        if record["name"] == SHORT:
            by_delta.setdefault(0.0, []).append(record)
        elif record["name"].startswith(PUBLISHED):
            suffix = record["name"].removeprefix(f"{PUBLISHED}, Delta ")
            delta = data.delta if suffix == PUBLISHED else float(suffix)
            by_delta.setdefault(delta, []).append(record)
    return dict(sorted(by_delta.items()))


def _deltas(name: str, curve: dict[float, Records]) -> Figure:
    """Likelihood and events in the context by Delta (the ablation of the paper)."""
    figure = Figure(figsize=(7, 3))
    nll = [_values(trials, NLL) for trials in curve.values()]
    places = range(len(curve))
    left, right = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2)
    spreads = [float(np.std(values, ddof=1)) if len(values) > 1 else 0.0 for values in nll]
    left.errorbar(places, [np.mean(values) for values in nll], spreads, fmt="o-")
    left.set_ylabel("NLL (nats/event)")
    context = [np.mean([record["context"] for record in records]) for records in curve.values()]
    right.plot(places, context, "o-")
    right.set_ylabel("events in the context")
    for axes in (left, right):
        axes.set(title=name, xlabel="Delta", xticks=list(places))
        axes.set_xticklabels([f"{delta:g}" for delta in curve])
    figure.tight_layout()
    return figure
