"""The report of the benchmark of little data, from its finished trials."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.measure import machine
from benchmarks.quality.differences import mean_over_seeds, paired_difference, table_path
from benchmarks.quality.little_sets import LITTLE
from benchmarks.quality.report import ACCURACY, NLL, RMSE, read_records

BASELINE = "baseline"  # kind of the classical models, which are fitted once per draw
NAMES = ("marginal", "poisson", "hawkes", "temporal expert")
Records = Sequence[dict[str, Any]]


def write_report(results: Path, sums: Path, target: Path, *, held_out: str) -> None:
    """Write the tables of the benchmark, in Markdown.

    Args:
        results: File with the finished trials.
        sums: Folder of the trials' sums by sequence.
        target: Written file.
        held_out: Split of the full data sets that tested the models.
    """
    records = read_records(results)
    sets = list(dict.fromkeys(record["set"] for record in records))
    parts = [_head(records, held_out), _differences(records, sets, sums)]
    parts += [
        _table(name, [record for record in records if record["set"] == name]) for name in sets
    ]
    target.write_text("\n".join(parts), encoding="utf-8")


def _head(records: Records, held_out: str) -> str:
    seconds = [record["seconds"] for record in records if record["kind"] == "expert"]
    return (
        "# Little data\n\n"
        "Written by `python -m benchmarks.quality.little_data"
        f"{' --held-out validation' * (held_out == 'validation')}`. "
        f"A draw has {LITTLE.num_training} training sequences of at most {LITTLE.max_events} "
        f"consecutive events, {LITTLE.num_validation} of them for validation, and tests on at "
        f"most {LITTLE.max_held_out} sequences of the {held_out} split of the full data set, of "
        f"at most {LITTLE.max_held_out_events:,} events, the same for every draw. Images are left "
        "out. Numbers are means over draws, and `±` is their standard deviation over draws. "
        "[README.md](README.md) interprets the results.\n\n"
        f"Training of an expert took {np.median(seconds):.0f} CPU seconds ({min(seconds):.0f} to "
        f"{max(seconds):.0f}) on {machine('torch', 'numpy')}.\n"
    )


def _differences(records: Records, sets: Sequence[str], sums: Path) -> str:
    lines = [
        "## Temporal expert minus the best classical baseline\n",
        "NLL in nats per event; below 0 the expert is better. The best baseline has the lowest "
        "mean NLL over draws. Standard error and 95 % interval are over held-out sequences (paired "
        "bootstrap), of the mean over draws; `by draw` has the difference of each draw.\n",
        "| set | baseline | difference | standard error | 95 % interval | sequences | by draw |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in sets:
        of_set = [record for record in records if record["set"] == name]
        best = min(NAMES[:-1], key=lambda model: _mean(of_set, model, NLL))
        expert, baseline = (_tables(of_set, model, sums) for model in (NAMES[-1], best))
        whole = paired_difference(mean_over_seeds(expert), mean_over_seeds(baseline))
        draws = [paired_difference(*pair).value for pair in zip(expert, baseline, strict=True)]
        lines.append(
            f"| {name} | {best} | {whole.value:+.3f} | {whole.standard_error:.3f} "
            f"| {whole.low:+.3f} to {whole.high:+.3f} | {whole.num_sequences} "
            f"| {', '.join(f'{draw:+.3f}' for draw in draws)} |"
        )
    return "\n".join([*lines, ""])


def _table(name: str, of_set: Records) -> str:
    targets = {record["targets"] for record in of_set}
    lines = [
        f"## {name}\n",
        f"{', '.join(f'{count:,}' for count in sorted(targets))} targets.\n",
        "| | draws | NLL (nats/event) | RMSE (s) | accuracy | CPU seconds |",
        "|---|---|---|---|---|---|",
    ]
    for model in NAMES:
        trials = [record for record in of_set if record["name"] == model]
        cells = [_cell(trials, metric) for metric in (NLL, RMSE, ACCURACY)]
        seconds = f"{np.mean([record['seconds'] for record in trials]):.1f}"
        lines.append(f"| {model} | {len(trials)} | {' | '.join(cells)} | {seconds} |")
    return "\n".join([*lines, ""])


def _cell(trials: Records, metric: str) -> str:
    values = [trial["metrics"][metric] for trial in trials if metric in trial["metrics"]]
    if not values:
        return ""
    digits = 3 if np.mean(values) < 100 else 0
    spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}"


def _mean(of_set: Records, model: str, metric: str) -> float:
    values = [record["metrics"][metric] for record in of_set if record["name"] == model]
    return float(np.mean(values))


def _tables(of_set: Records, model: str, sums: Path) -> list[pa.Table]:
    """Sums by sequence of a model, one table for each draw, in the order of the draws."""
    trials = sorted(
        (record for record in of_set if record["name"] == model), key=lambda trial: trial["seed"]
    )
    return [pq.read_table(table_path(sums, trial)) for trial in trials]
