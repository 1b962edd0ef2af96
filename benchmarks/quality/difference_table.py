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
from benchmarks.quality.kept_differences import KeptDifference, read_kept, write_kept
from benchmarks.quality.variants import MIXTURE, MIXTURE_WITH_IMAGES, PLAIN

NLL = "joint/nll_nats_per_event"
EXPERT, SHORT = "temporal expert", f"{PLAIN}, short"
LENGTH, WITH_IMAGES = "temporal expert, text length", "temporal expert with images"
OURS = ("mixture", "expert", "soft", "ours")
MAX_DEVIATION = 1e-3  # nats; EasyTPP's sums are computed one sequence at a time
# both models of a pair have the same budget
ABLATIONS = (
    (EXPERT, LENGTH),
    (LENGTH, "temporal expert without texts"),
    (EXPERT, "temporal expert without texts"),
    (EXPERT, "temporal expert without calendar"),
    (WITH_IMAGES, EXPERT),
    (MIXTURE_WITH_IMAGES, WITH_IMAGES),
    ("soft tokens", EXPERT),
    ("soft tokens", PLAIN),
    (SHORT, "without texts"),
    (SHORT, "without images"),
)
Records = Sequence[dict[str, Any]]


def difference_table(records: Records, sums: Path, kept: Path) -> str:
    """A section with the differences of every set, in Markdown.

    The mixture, the expert and the plain model are compared with the best baseline, which is the
    classical or neural model with the lowest mean NLL, and models with texts or images with those
    without.

    Args:
        records: Finished trials of all sets.
        sums: Folder of the trials' sums by sequence.
        kept: File of the differences that were computed before; those of this call are added.
    """
    differences = {(old.set, old.first, old.second): old for old in read_kept(kept)}
    lines = [
        "## Paired differences\n",
        "NLL of the first model minus that of the second, in nats per event on the same targets; "
        "below 0 the first is better. Standard errors and 95 % intervals are over sequences "
        "(paired bootstrap), of the means over the seeds whose losses by sequence were in the work "
        "folder when the pair was compared. Where they never were, only the difference of the "
        "tables above is shown.\n",
        "| set | first | second | difference | standard error | 95 % interval | sequences |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(record["set"] for record in records):
        of_set = [record for record in records if record["set"] == name]
        for first, second in _pairs(of_set):
            pair = (name, first, second)
            nll = (mean_nll(of_set, first), mean_nll(of_set, second))
            if (difference := _difference(of_set, first, second, sums)) is not None:
                differences[pair] = KeptDifference(*pair, nll, difference)
            cells = f"{nll[0] - nll[1]:+.3f} | | | "
            if pair in differences and differences[pair].is_of(nll):
                cells = _difference_cells(differences[pair].difference)
            lines.append(f"| {name} | {first} | {second} | {cells} |")
    write_kept(kept, list(differences.values()))
    return "\n".join([*lines, ""])


def _pairs(of_set: Records) -> list[tuple[str, str]]:
    """Names of the compared models of a set: the first is ours."""
    names = {record["name"] for record in of_set if NLL in record["metrics"]}
    best = best_baseline(of_set)
    pairs = [(ours, best) for ours in (MIXTURE, EXPERT, PLAIN) if best]
    pairs += [(MIXTURE, EXPERT), (MIXTURE, PLAIN), (EXPERT, PLAIN), *ABLATIONS]
    return [pair for pair in pairs if set(pair) <= names]


def is_baseline(record: dict[str, Any]) -> bool:
    """Whether a trial is of a classical or neural model."""
    return record["kind"] not in OURS


def best_baseline(of_set: Records) -> str:
    """Name of the classical or neural model with the lowest mean NLL; empty if there is none.

    Args:
        of_set: Trials of one set.
    """
    names = {
        record["name"] for record in of_set if is_baseline(record) and NLL in record["metrics"]
    }
    return min(sorted(names), key=lambda name: mean_nll(of_set, name), default="")


def mean_nll(of_set: Records, name: str) -> float:
    """Mean NLL of a model over its seeds, in nats per event.

    Args:
        of_set: Trials of one set.
        name: Name of the model.
    """
    values = [
        record["metrics"][NLL]
        for record in of_set
        if record["name"] == name and NLL in record["metrics"]
    ]
    return float(np.mean(values))


def _difference(of_set: Records, first: str, second: str, sums: Path) -> Difference | None:
    """The paired difference of two models; None without their sums, or of different targets."""
    tables = [
        _tables([record for record in of_set if record["name"] == name], sums)
        for name in (first, second)
    ]
    if not all(tables):
        return None
    means = [mean_over_seeds(of_seeds) for of_seeds in tables]
    return paired_difference(*means) if same_targets(*means) else None


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
