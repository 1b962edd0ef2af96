"""What every feed delivers, and how a feed is measured.

A feed yields rows: dictionaries of NumPy arrays with the columns of ``TYPES``. The rows are read in
batches of ``STEP`` as a training would, and nothing else happens, so the rate is the largest that
the feed allows.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from benchmarks.peers.measured_process import Meter

TYPES = {
    "sample_id": "int64",
    "input_ids": "int32",
    "modality": "uint8",
    "segment": "int32",
    "event": "int32",
    "may_be_label": "bool",
    "event_type": "int16",
    "event_is_target": "bool",
}
COLUMNS = list(TYPES)
STEP = 4  # rows in a step of training

Row = Mapping[str, Any]


def measure_feed(
    open_feed: Callable[[], Iterator[Row]], *, pids: tuple[int, ...] = (), stop: int | None = None
) -> dict[str, Any]:
    """Read rows and measure.

    Args:
        open_feed: Opens the feed; its time counts as part of the time to the first row.
        pids: Processes besides this one that work for the feed.
        stop: Number of rows to read; None reads all.

    Returns:
        ``first_s``: seconds from opening to the first row. ``rows_per_s``: of the rows after the
        first. ``cpu_ms_per_row``: of all processes, from opening to the end. ``ids``: the rows in
        their order. ``checksum``: sum of all token ids, so that all feeds can be compared.
    """
    meter = Meter(pids)
    ids: list[int] = []
    checksum, tokens, first_s = 0, 0, 0.0
    for row in open_feed():
        if not ids:
            first_s = meter.wall_s
        ids.append(int(row["sample_id"]))
        checksum += sum(int(np.asarray(row[name]).sum()) for name in COLUMNS[1:])
        tokens += len(row["input_ids"])
        if len(ids) == stop:
            break
    seconds, cpu_s = meter.wall_s, meter.cpu_s
    return {
        "first_s": first_s,
        "rows_per_s": (len(ids) - 1) / max(seconds - first_s, 1e-9),
        "cpu_ms_per_row": 1000 * cpu_s / len(ids),
        "tokens": tokens,
        "ids": ids,
        "checksum": checksum,
    }
