"""The report's table of paired differences between models, from their sums by sequence."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.quality.differences import (
    Difference,
    mean_over_seeds,
    paired_difference,
    same_targets,
    table_path,
)
from benchmarks.quality.variants import MIXTURE, PLAIN

NLL = "joint/nll_nats_per_event"
EXPERT, SHORT = "temporal expert", f"{PLAIN}, short"
LENGTH = "temporal expert, text length"
OURS = ("mixture", "expert", "soft", "ours")
MAX_DEVIATION = 1e-3  # nats; EasyTPP's sums are computed one sequence at a time
# both models of a pair have the same budget
ABLATIONS = (
    (EXPERT, LENGTH),
    (LENGTH, "temporal expert without texts"),
    (EXPERT, "temporal expert without texts"),
    (EXPERT, "temporal expert without calendar"),
    ("temporal expert with images", EXPERT),
    ("soft tokens", EXPERT),
    ("soft tokens", PLAIN),
    (SHORT, "without texts"),
    (SHORT, "without images"),
)
Records = Sequence[dict[str, Any]]


def difference_table(records: Records, sums: Path) -> str:
    """A section with the differences of every set, in Markdown.

    The mixture, the expert and the plain model are compared with the best baseline, which is the
    classical or neural model with the lowest mean NLL, and models with texts or images with those
    without.

    Args:
        records: Finished trials of all sets.
        sums: Folder of the trials' sums by sequence.
    """
    lines = [
        "## Paired differences\n",
        "NLL of the first model minus that of the second, in nats per event on the same targets; "
        "below 0 the first is better. Standard errors and 95 % intervals are over sequences "
        "(paired bootstrap), of the means over the seeds whose losses by sequence are in the work "
        "folder. Where they are not, because the trials are older or from another machine, only "
        "the difference of the tables above is shown.\n",
        "| set | first | second | difference | standard error | 95 % interval | sequences |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(record["set"] for record in records):
        of_set = [record for record in records if record["set"] == name]
        for first, second in _pairs(of_set):
            cells = _cells(of_set, first, second, sums)
            lines.append(f"| {name} | {first} | {second} | {cells} |")
    return "\n".join([*lines, ""])


def _pairs(of_set: Records) -> list[tuple[str, str]]:
    """Names of the compared models of a set: the first is ours."""
    names = {record["name"] for record in of_set if NLL in record["metrics"]}
    best = best_baseline(of_set)
    pairs = [(ours, best) for ours in (MIXTURE, EXPERT, PLAIN) if best]
    pairs += [(MIXTURE, EXPERT), (MIXTURE, PLAIN), (EXPERT, PLAIN), *ABLATIONS]
    return [pair for pair in pairs if set(pair) <= names]


def best_baseline(of_set: Records) -> str:
    """Name of the classical or neural model with the lowest mean NLL; empty if there is none.

    Args:
        of_set: Trials of one set.
    """
    names = {
        record["name"]
        for record in of_set
        if record["kind"] not in OURS and NLL in record["metrics"]
    }
    return min(sorted(names), key=lambda name: _mean_nll(of_set, name), default="")


def _mean_nll(of_set: Records, name: str) -> float:
    values = [
        record["metrics"][NLL]
        for record in of_set
        if record["name"] == name and NLL in record["metrics"]
    ]
    return float(np.mean(values))


def _cells(of_set: Records, first: str, second: str, sums: Path) -> str:
    tables = [
        _tables([record for record in of_set if record["name"] == name], sums)
        for name in (first, second)
    ]
    if not all(tables):
        return f"{_mean_nll(of_set, first) - _mean_nll(of_set, second):+.3f} | | | "
    means = [mean_over_seeds(kept) for kept in tables]
    if not same_targets(*means):
        return "different targets | | | "
    return _difference_cells(paired_difference(*means))


def _tables(trials: Records, sums: Path) -> list[pa.Table]:
    """The tables of the trials that have one, if its mean is the trial's NLL."""
    tables: list[pa.Table] = []
    for trial in trials:
        path = table_path(sums, trial)
        if path.exists():
            table = pq.read_table(path)
            mean = table["nll"].to_numpy().sum() / table["events"].to_numpy().sum()
            # a table from another run of the trial does not belong to its record
            if abs(mean - trial["metrics"][NLL]) < MAX_DEVIATION:
                tables.append(table)
    return tables


def _difference_cells(difference: Difference) -> str:
    return (
        f"{difference.value:+.3f} | {difference.standard_error:.3f} | "
        f"{difference.low:+.3f} to {difference.high:+.3f} | {difference.num_sequences}"
    )
