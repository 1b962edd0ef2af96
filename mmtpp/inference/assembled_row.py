"""One assembled sample, as actors and scores read it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mmtpp.core.representation.row import PackedRow


@dataclass(frozen=True, slots=True)
class AssembledRow:
    """One sample: the packed row that the model reads, and the values of its events.

    Attributes:
        row: The packed row.
        table: The same row as a table of one row, ``row_table.ROW_SCHEMA``.
        windows: Windows of the sample, each a row of ``plan.WINDOW_SCHEMA``.
    """

    row: PackedRow
    table: pa.Table
    windows: Sequence[Mapping[str, Any]] = ()

    @property
    def sequence_ids(self) -> pa.Array:
        """Name of the sequence of each segment."""
        return self.table["sequences"][0].values

    def event_values(self, name: str) -> np.ndarray:
        """Values of the column ``event_NAME``, one for each event of the row."""
        return self.table[f"event_{name}"][0].values.to_numpy(zero_copy_only=False)
