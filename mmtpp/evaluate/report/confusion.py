"""True types against forecast types: the most frequent types by name, all others as one."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

MAX_TYPES = 20


@dataclass(frozen=True, slots=True)
class Confusion:
    """How often each true type is forecast as each type.

    Axes: K types, at most ``MAX_TYPES``.

    Attributes:
        names: K, full names; the last is that of all other types where there are more.
        counts: (K, K) events, the true type in the row, the forecast one in the column.
        num_types: Number of types that occur or are forecast.
        num_folded: Number of types in the last row and column; 0 where each type has its own.
    """

    names: tuple[str, ...]
    counts: NDArray[np.int64]
    num_types: int
    num_folded: int

    @property
    def shares(self) -> NDArray[np.float64]:
        """(K, K) shares of each row, 0 in rows without events."""
        return self.counts / np.maximum(self.counts.sum(axis=1, keepdims=True), 1)

    @property
    def note(self) -> str:
        """A sentence that says which types have a row."""
        if not self.num_folded:
            return f"All {self.num_types} types that occur or are forecast."
        own = self.num_types - self.num_folded
        return (
            f"The {own} most frequent of {self.num_types} types; the other {self.num_folded} are "
            "one row and one column."
        )


def confusion(targets: pa.Table, names: list[str]) -> Confusion | None:
    """True types against forecast types, the most frequent type first.

    Args:
        targets: ``targets.TARGET_SCHEMA``.
        names: Names of the types by code.

    Returns:
        The counts, or None where types were not forecast.
    """
    if targets["predicted_type"].null_count == len(targets):
        return None
    true, predicted = (targets[name].to_numpy() for name in ("type", "predicted_type"))
    codes, places = np.unique(np.concatenate([true, predicted]), return_inverse=True)
    size = len(codes)
    true_place, predicted_place = places[: len(true)], places[len(true) :]
    # the most frequent first; of equal ones the one that is forecast more often
    order = np.lexsort(
        (-np.bincount(predicted_place, minlength=size), -np.bincount(true_place, minlength=size))
    )
    own = size if size <= MAX_TYPES else MAX_TYPES - 1
    row_of = np.empty(size, dtype=np.int64)
    row_of[order] = np.minimum(np.arange(size), own)
    rows = min(size, own + 1)
    counts = np.zeros((rows, rows), dtype=np.int64)
    np.add.at(counts, (row_of[true_place], row_of[predicted_place]), 1)
    shown = [names[code] for code in codes[order[:own]].tolist()]
    if rows > own:
        shown.append(f"{size - own} other types")
    return Confusion(tuple(shown), counts, size, size - own)
