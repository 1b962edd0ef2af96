"""Paired differences of likelihoods: two models on the same targets, resampled by sequence.

Every trial keeps the sums of its negative log-likelihoods by sequence, in a table of
``SUMS_SCHEMA``. The tables are in the folder ``per_sequence`` of the work folder.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmtpp.evaluate.scores.metrics import target_values
from mmtpp.evaluate.scores.paired_difference import RESAMPLES, Difference
from mmtpp.evaluate.scores.paired_difference import paired_difference as difference_of_sums

SUMS_SCHEMA = pa.schema(
    [
        ("sequence_id", pa.string()),
        ("events", pa.float64()),  # number of targets with a density
        ("nll", pa.float64()),  # sum over these targets, of time and type, in nats
    ]
)


def sequence_sums(targets: pa.Table) -> pa.Table | None:
    """Sums by sequence, ``SUMS_SCHEMA``; None if the targets have no likelihood of time and type.

    Args:
        targets: ``mmtpp.evaluate.scores.targets.TARGET_SCHEMA`` or a part of its columns.
    """
    values = target_values(targets)
    if "joint_nll" not in values:
        return None
    names = targets["sequence_id"].to_numpy(zero_copy_only=False)
    sequence_ids, sequence = np.unique(names, return_inverse=True)
    sums = [np.bincount(sequence, values[name]) for name in ("has_density", "joint_nll")]
    return pa.table([sequence_ids, *sums], schema=SUMS_SCHEMA)


def table_path(folder: Path, record: dict[str, Any]) -> Path:
    """Path of a trial's table of sums.

    Args:
        folder: Folder of the tables.
        record: The trial, with ``set``, ``kind``, ``name`` and ``seed``.
    """
    words = (record["set"], record["kind"], record["name"], f"seed {record['seed']}")
    return folder / f"{'-'.join(re.sub('[^A-Za-z0-9.]+', '_', word) for word in words)}.parquet"


def write_sums(sums: pa.Table, path: Path) -> None:
    """Write a table of sums; its folder is created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(sums.cast(SUMS_SCHEMA), path)


def mean_over_seeds(tables: Sequence[pa.Table]) -> pa.Table:
    """The mean of the sums of several seeds, by sequence.

    Args:
        tables: Tables of ``SUMS_SCHEMA`` with the same sequences; at least one.

    Raises:
        ValueError: The tables have different targets.
    """
    first, *later = [table.sort_by("sequence_id") for table in tables]
    for table in later:
        _check_same_targets(first, table)
    nll = np.mean([table["nll"].to_numpy() for table in (first, *later)], axis=0)
    return pa.table([first["sequence_id"], first["events"], nll], schema=SUMS_SCHEMA)


def paired_difference(
    first: pa.Table, second: pa.Table, *, seed: int = 0, resamples: int = RESAMPLES
) -> Difference:
    """Subtract the likelihoods of one model from those of another, on the same targets.

    Args:
        first: Table of ``SUMS_SCHEMA``, at least one row.
        second: Table of ``SUMS_SCHEMA`` with the same sequences, in any order.
        seed: Seed of the resamples.
        resamples: Number of resamples, at least 2.

    Raises:
        ValueError: The tables have different targets.
    """
    first, second = first.sort_by("sequence_id"), second.sort_by("sequence_id")
    _check_same_targets(first, second)
    return difference_of_sums(
        first["nll"].to_numpy(),
        second["nll"].to_numpy(),
        first["events"].to_numpy(),
        seed=seed,
        resamples=resamples,
    )


def same_targets(first: pa.Table, second: pa.Table) -> bool:
    """Whether two tables of ``SUMS_SCHEMA`` have the same sequences and numbers of targets."""
    keys = [
        table.sort_by("sequence_id").select(["sequence_id", "events"]) for table in (first, second)
    ]
    return keys[0].equals(keys[1])


def _check_same_targets(first: pa.Table, second: pa.Table) -> None:
    if not same_targets(first, second):
        raise ValueError(
            f"likelihoods of different targets cannot be compared: {len(first)} sequences with "
            f"{_num_events(first)} events, and {len(second)} with {_num_events(second)}"
        )


def _num_events(table: pa.Table) -> int:
    return int(table["events"].to_numpy().sum())
